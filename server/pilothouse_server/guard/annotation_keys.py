"""Checks annotations and labels of carried objects, and annotations of Services.

Each kind has an allow-list of annotations. Controllers act on annotations with their own rights. Some annotations
affect other namespaces or the configuration that all tenants share. They are missing from the allow-lists on purpose,
so they need `object.privileged`: nginx's snippets, `auth-url`, `auth-secret`, `auth-tls-secret`, `proxy-ssl-secret`,
`mirror-target` and `server-alias`; Traefik's middlewares and TLS options; ALB's groups, actions, conditions,
certificates and attributes; static addresses of clouds; shared addresses of MetalLB; global services of Cilium;
identities of ServiceAccounts in clouds.

By the rules of Kubernetes, keys without a prefix are private to the user, so the allow-lists do not apply to them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from pilothouse_server.guard.checks import OBEYED_KEYS, Check, Inspection, Way, shown
from pilothouse_server.guard.hosts import hosts_in_text
from pilothouse_server.guard.model import PRIVILEGED_OBJECT
from pilothouse_server.values.key_patterns import KeyPatterns

ANNOTATIONS: Final = "annotations"

# Keys that describe an object, or that deployment tools use to order their own work.
_COMMON: Final = (
    "app.kubernetes.io/*,helm.sh/*,meta.helm.sh/*,kubectl.kubernetes.io/last-applied-configuration"
    ",kubernetes.io/description,kubernetes.io/change-cause,argocd.argoproj.io/*,checksum/*,prometheus.io/*"
    ",simulate.pilothouse.dev/*"
)
_CERT_MANAGER: Final = (
    "cert-manager.io/cluster-issuer,cert-manager.io/issuer,cert-manager.io/issuer-kind"
    ",cert-manager.io/issuer-group,cert-manager.io/duration,cert-manager.io/renew-before,cert-manager.io/usages"
    ",cert-manager.io/private-key-*,cert-manager.io/revision-history-limit,acme.cert-manager.io/http01-*"
    ",kubernetes.io/tls-acme"
)
_EXTERNAL_DNS: Final = "external-dns.alpha.kubernetes.io/ttl"


def _of_nginx(names: str) -> str:
    return ",".join(f"nginx.ingress.kubernetes.io/{name}" for name in names.split())


_NGINX: Final = _of_nginx(
    "affinity affinity-mode affinity-canary-behavior app-root backend-protocol canary canary-by-* canary-weight*"
    " client-body-buffer-size connection-proxy-header cors-* denylist-source-range enable-access-log enable-cors"
    " force-ssl-redirect from-to-www-redirect hsts* limit-* load-balance permanent-redirect permanent-redirect-code"
    " preserve-trailing-slash proxy-body-size proxy-buffer* proxy-busy-buffers-size proxy-connect-timeout"
    " proxy-cookie-* proxy-http-version proxy-max-temp-file-size proxy-next-upstream* proxy-read-timeout"
    " proxy-request-buffering proxy-send-timeout rewrite-target satisfy service-upstream session-cookie-*"
    " ssl-passthrough ssl-redirect temporal-redirect temporal-redirect-code upstream-vhost use-regex"
    " websocket-services whitelist-source-range allowlist-source-range x-forwarded-prefix"
)
_TRAEFIK: Final = (
    "traefik.ingress.kubernetes.io/router.entrypoints,traefik.ingress.kubernetes.io/router.tls"
    ",traefik.ingress.kubernetes.io/router.tls.certresolver,traefik.ingress.kubernetes.io/router.pathmatcher"
    ",traefik.ingress.kubernetes.io/router.priority"
)
_ALB: Final = ",".join(
    f"alb.ingress.kubernetes.io/{name}"
    for name in (
        *("scheme", "target-type", "listen-ports", "ip-address-type", "backend-protocol*", "ssl-redirect"),
        *("healthcheck-*", "success-codes", "healthy-threshold-count", "unhealthy-threshold-count"),
    )
)
_CLOUDS: Final = "networking.gke.io/managed-certificates,kubernetes.io/ingress.allow-http"
# These annotations put host names into DNS (external-dns) and into certificates (cert-manager).
DNS_NAMES: Final = frozenset({
    "external-dns.alpha.kubernetes.io/hostname", "external-dns.alpha.kubernetes.io/internal-hostname",
})  # fmt: skip
_HOSTS: Final = DNS_NAMES | {"cert-manager.io/common-name"}
# nginx's configuration is text: these characters end a directive or begin a block.
_TEXT_OF_NGINX: Final = re.compile(r"[\x00-\x1f\x7f;{}#\"'`]")


def _allowed(*patterns: str) -> Check:
    keys = KeyPatterns(",".join(patterns))

    def check(value: Any, found: Inspection, way: Way) -> None:
        for key, text in _entries(value, found, way):
            at = (way, key)
            if key in _HOSTS:
                hosts_in_text(text, found, at)
            elif "/" in key and key not in keys:
                words = f'sets "{key}", which not everybody may set on this kind'
                found.note(at, ANNOTATIONS, words, key, shown(text), permission=PRIVILEGED_OBJECT)
            elif key in found.keys.guarded:
                _guarded(key, text, found, at)
            elif key.startswith("nginx.") and _TEXT_OF_NGINX.search(str(text)):
                words = f'sets "{key}" to text that may end a line of the configuration of nginx'
                found.note(at, ANNOTATIONS, words, key, shown(text), permission=PRIVILEGED_OBJECT)

    return check


def of_services(value: Any, found: Inspection, way: Way) -> None:
    """Checks a Service's annotations.

    Controllers create load balancers and DNS names from them. A setting lists the keys that everybody may set. Hosts
    are the exception: the namespace must allow each of them, and no permission replaces that.
    """
    for key, text in _entries(value, found, way):
        if key in DNS_NAMES:
            # Hosts are compared at admission only, so a host that was admitted earlier stays.
            if found.facts.allowed_hosts is not None:
                hosts_in_text(text, found, (way, key))
        elif key not in found.keys.free and key != _EXTERNAL_DNS:
            found.note((way, key), "serviceAnnotations", f'sets "{key}"', key, shown(text))


def labels(value: Any, found: Inspection, way: Way) -> None:
    """Checks the labels of carried objects: everybody may set a label that is not guarded."""
    for key, text in _entries(value, found, way):
        if key in found.keys.guarded:
            _guarded(key, text, found, (way, key))


def _guarded(key: str, text: Any, found: Inspection, at: Way) -> None:
    words = f'sets "{key}", which gives networks, identities or programs'
    found.note(at, OBEYED_KEYS, words, key, shown(text), permission=PRIVILEGED_OBJECT)


def _entries(value: Any, found: Inspection, way: Way) -> Iterable[tuple[str, Any]]:
    if not isinstance(value, dict):
        found.unlisted(way, value)
        return ()
    found.domain(way, value)
    return value.items()


of_any_kind: Final = _allowed(_COMMON)
of_gateways: Final = _allowed(_COMMON, _CERT_MANAGER, _EXTERNAL_DNS)
of_routes: Final = _allowed(_COMMON, _EXTERNAL_DNS)
of_ingresses: Final = _allowed(
    _COMMON, "kubernetes.io/ingress.class", _CERT_MANAGER, _EXTERNAL_DNS, _NGINX, _TRAEFIK, _ALB, _CLOUDS
)
