"""Ordinary carried objects as charts write them, and their guarded paths.

Each guarded path of each kind has the permission that it needs.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

from pilothouse_server.guard.carrying import CarriedPlace
from pilothouse_server.guard.model import CarriedFacts, Keys, OpenedKind
from pilothouse_server.settings.model import Settings
from pilothouse_server.values.key_patterns import KeyPatterns

JsonObject = dict[str, Any]

KEYS = Keys(
    KeyPatterns(Settings().service_annotations), KeyPatterns(Settings().guarded_pod_keys, guarding=True)
)
PRIVILEGED, RBAC, NEVER, HOST = "object.privileged", "object.rbac", "", "HOST_NOT_ALLOWED"
GATEWAY_API = "gateway.networking.k8s.io/v1"
RBAC_API = "rbac.authorization.k8s.io/v1"
OPENED = OpenedKind(
    "postgresql.cnpg.io/v1", "Cluster", to_tenants=True, refused_paths=(("spec", "serviceAccountTemplate"),)
)


def _object(api_version: str, kind: str, **content: Any) -> JsonObject:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app.kubernetes.io/name": "web"}},
        **content,
    }


_LEADER: JsonObject = {
    "apiGroups": ["coordination.k8s.io"],
    "resources": ["leases"],
    "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
}
ORDINARY: dict[str, JsonObject] = {
    "ServiceAccount": _object(
        "v1", "ServiceAccount", automountServiceAccountToken=True, imagePullSecrets=[{"name": "registry"}]
    ),
    "Ingress": _object(
        "networking.k8s.io/v1",
        "Ingress",
        spec={
            "ingressClassName": "nginx",
            "rules": [
                {
                    "host": "www.shop.example",
                    "http": {
                        "paths": [
                            {
                                "path": "/api(/|$)(.*)",
                                "pathType": "ImplementationSpecific",
                                "backend": {"service": {"name": "web", "port": {"name": "http"}}},
                            }
                        ]
                    },
                }
            ],
            "tls": [{"hosts": ["www.shop.example"], "secretName": "web-tls"}],
        },
    ),
    "Gateway": _object(
        GATEWAY_API,
        "Gateway",
        spec={
            "gatewayClassName": "istio",
            "listeners": [
                {
                    "name": "https",
                    "hostname": "*.shop.example",
                    "port": 443,
                    "protocol": "HTTPS",
                    "tls": {"mode": "Terminate", "certificateRefs": [{"kind": "Secret", "name": "web-tls"}]},
                    "allowedRoutes": {"namespaces": {"from": "Same"}, "kinds": [{"kind": "HTTPRoute"}]},
                }
            ],
        },
    ),
    "HTTPRoute": _object(
        GATEWAY_API,
        "HTTPRoute",
        spec={
            "parentRefs": [{"name": "web"}, {"name": "public", "namespace": "infra", "sectionName": "https"}],
            "hostnames": ["www.shop.example"],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}, "method": "GET"}],
                    "filters": [
                        {
                            "type": "RequestHeaderModifier",
                            "requestHeaderModifier": {"set": [{"name": "A", "value": "b"}]},
                        },
                        {
                            "type": "RequestMirror",
                            "requestMirror": {"backendRef": {"name": "copy", "port": 80}},
                        },
                    ],
                    "backendRefs": [{"name": "web", "port": 80, "weight": 9}],
                    "timeouts": {"request": "10s"},
                }
            ],
        },
    ),
    "NetworkPolicy": _object(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        spec={
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"namespaceSelector": {}}], "ports": [{"port": 80, "protocol": "TCP"}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}],
        },
    ),
    "PodDisruptionBudget": _object(
        "policy/v1",
        "PodDisruptionBudget",
        spec={"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    ),
    "HorizontalPodAutoscaler": _object(
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        spec={
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 4,
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                }
            ],
            "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}},
        },
    ),
    "Role": _object(
        RBAC_API,
        "Role",
        rules=[
            _LEADER,
            {"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["get", "list", "watch"]},
        ],
    ),
    "RoleBinding": _object(
        RBAC_API,
        "RoleBinding",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "web"},
        subjects=[{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}],
    ),
    "Cluster": _object("postgresql.cnpg.io/v1", "Cluster", spec={"instances": 3, "storage": {"size": "1Gi"}}),
}
FACTS = CarriedFacts(
    allowed_hosts=("*.shop.example", "shop.example"),
    shared_gateways=frozenset({"infra/public"}),
    roles={
        "web": ORDINARY["Role"],
        "powerful": {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]},
        "reader": {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]},
    },
    scalable=frozenset({("Deployment", "web"), ("StatefulSet", "db")}),
)


def place(**facts: Any) -> CarriedPlace:
    """Returns the namespace `shop`, with the same name on its cluster.

    `facts` replace the default facts.
    """
    fields = {name: getattr(FACTS, name) for name in FACTS.__struct_fields__} | {"opened": OPENED}
    return CarriedPlace("shop", "shop", KEYS, CarriedFacts(**fields | facts))


class Carried(NamedTuple):
    """A path of a kind, a guarded value for it, and the permission that it needs.

    `needs` may also be the reason of the refusal.
    """

    kind: str
    path: str
    value: Any
    needs: str = PRIVILEGED
    facts: tuple[tuple[str, bool], ...] = ()


def _annotations(kind: str, needs: str, **keys: str) -> list[Carried]:
    return [Carried(kind, "metadata.annotations", {key: value}, needs) for key, value in keys.items()]


_NGINX, _ALB = "nginx.ingress.kubernetes.io", "alb.ingress.kubernetes.io"
_DNS = "external-dns.alpha.kubernetes.io"
_RULE = "spec.rules.0"
_LISTENER = "spec.listeners.0"
GUARDED: list[Carried] = [
    *_annotations(
        "Ingress",
        PRIVILEGED,
        **{
            f"{_NGINX}/configuration-snippet": "return 200;",
            f"{_NGINX}/server-snippet": "location / {}",
            f"{_NGINX}/auth-snippet": "x",
            f"{_NGINX}/stream-snippet": "x",
            f"{_NGINX}/auth-url": "http://a.b",
            f"{_NGINX}/auth-secret": "other/users",
            f"{_NGINX}/auth-tls-secret": "other/ca",
            f"{_NGINX}/proxy-ssl-secret": "other/key",
            f"{_NGINX}/mirror-target": "https://a.example",
            f"{_NGINX}/server-alias": "other.example",
            f"{_NGINX}/upstream-hash-by": "$host",
            f"{_NGINX}/rewrite-target": "/a; }",
            f"{_NGINX}/x-forwarded-prefix": "/a\nb",
            "traefik.ingress.kubernetes.io/router.middlewares": "other-auth@kubernetescrd",
            "traefik.ingress.kubernetes.io/router.tls.options": "other-tls@kubernetescrd",
            f"{_ALB}/group.name": "shared",
            f"{_ALB}/actions.web": "{}",
            f"{_ALB}/certificate-arn": "arn:aws:acm:x",
            "kubernetes.io/ingress.global-static-ip-name": "front",
            "haproxy.org/backend-config-snippet": "x",
            "unknown.example/key": "x",
        },
    ),
    *_annotations(
        "Ingress",
        HOST,
        **{
            f"{_DNS}/hostname": "www.shop.example, other.example",
            f"{_DNS}/internal-hostname": "other.example",
            "cert-manager.io/common-name": "other.example",
        },
    ),
    *_annotations("Ingress", NEVER, **{"pilothouse.dev/namespace-uid": "u"}),
    Carried("Ingress", "spec.defaultBackend", {"service": {"name": "web", "port": {"number": 80}}}),
    Carried("Ingress", f"{_RULE}.host", ""),
    Carried("Ingress", f"{_RULE}.host", None),
    Carried("Ingress", f"{_RULE}.host", "other.example", HOST),
    Carried("Ingress", f"{_RULE}.host", ["www.shop.example"], HOST),
    Carried("Ingress", f"{_RULE}.host", "*.example", HOST),
    Carried("Ingress", f"{_RULE}.http.paths.0.path", "/ {return 200;}"),
    Carried("Ingress", f"{_RULE}.http.paths.0.backend", {"resource": {"kind": "Bucket", "name": "b"}}),
    Carried("Ingress", "spec.rules", []),
    Carried("Ingress", "spec.tls.0.hosts", []),
    Carried("Ingress", "spec.tls.0.hosts", ["other.example"], HOST),
    Carried("Ingress", "spec.fieldOfLater", True),
    Carried("Ingress", "status", {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}, NEVER),
    Carried("Gateway", f"{_LISTENER}.hostname", None),
    Carried("Gateway", f"{_LISTENER}.hostname", "*.example", HOST),
    Carried("Gateway", f"{_LISTENER}.tls.certificateRefs.0.namespace", "other"),
    Carried("Gateway", f"{_LISTENER}.tls.certificateRefs.0.kind", "Certificate"),
    Carried("Gateway", f"{_LISTENER}.tls.options", {"vendor.example/option": "x"}),
    Carried("Gateway", f"{_LISTENER}.tls.frontendValidation", {"caCertificateRefs": []}),
    Carried("Gateway", f"{_LISTENER}.allowedRoutes.namespaces.from", "All"),
    Carried("Gateway", f"{_LISTENER}.allowedRoutes.namespaces", {"from": "Selector", "selector": {}}),
    Carried("Gateway", "spec.addresses", [{"value": "10.0.0.1"}]),
    Carried("Gateway", "spec.infrastructure", {"annotations": {"a": "b"}}),
    Carried("Gateway", "spec.allowedListeners", {"namespaces": {"from": "All"}}),
    *_annotations("Gateway", PRIVILEGED, **{"metallb.universe.tf/allow-shared-ip": "front"}),
    *_annotations("Gateway", HOST, **{f"{_DNS}/hostname": "other.example"}),
    Carried("HTTPRoute", "spec.hostnames", []),
    Carried("HTTPRoute", "spec.hostnames", None),
    Carried("HTTPRoute", "spec.hostnames", ["www.shop.example", "other.example"], HOST),
    Carried("HTTPRoute", "spec.parentRefs.0.namespace", "other"),
    Carried("HTTPRoute", "spec.parentRefs.1.name", "private"),
    Carried(
        "HTTPRoute", "spec.parentRefs.0", {"group": "", "kind": "Service", "name": "w", "namespace": "other"}
    ),
    Carried("HTTPRoute", "spec.parentRefs.0.kind", "ListenerSet"),
    Carried("HTTPRoute", f"{_RULE}.backendRefs.0.namespace", "other"),
    Carried("HTTPRoute", f"{_RULE}.backendRefs.0.kind", "ServiceImport"),
    Carried("HTTPRoute", f"{_RULE}.backendRefs.0.group", "multicluster.x-k8s.io"),
    Carried(
        "HTTPRoute",
        f"{_RULE}.backendRefs.0.filters",
        [{"type": "ExtensionRef", "extensionRef": {"group": "a.example", "kind": "B", "name": "c"}}],
    ),
    Carried("HTTPRoute", f"{_RULE}.filters.1.requestMirror.backendRef.namespace", "other"),
    Carried("HTTPRoute", f"{_RULE}.filters.0.extensionRef", {"group": "a.example", "kind": "B", "name": "c"}),
    *_annotations("HTTPRoute", HOST, **{f"{_DNS}/hostname": "other.example"}),
    *_annotations(
        "ServiceAccount",
        PRIVILEGED,
        **{
            "eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/root",
            "iam.gke.io/gcp-service-account": "a@b",
            "azure.workload.identity/client-id": "u",
            "vault.hashicorp.com/alias-metadata": "x",
        },
    ),
    Carried("ServiceAccount", "metadata.labels", {"azure.workload.identity/use": "true"}),
    Carried("ServiceAccount", "secrets", [{"name": "a", "namespace": "other"}]),
    Carried("NetworkPolicy", "kind", "NetworkPolicy", PRIVILEGED, (("policies_protected", True),)),
    Carried("NetworkPolicy", "spec.fieldOfLater", {"a": 1}),
    *_annotations("NetworkPolicy", PRIVILEGED, **{"io.cilium/global-service": "true"}),
    Carried("PodDisruptionBudget", "spec.maxUnavailable", 0, NEVER, (("forbid_blocking_budgets", True),)),
    Carried("PodDisruptionBudget", "spec.minAvailable", "100%", NEVER, (("forbid_blocking_budgets", True),)),
    Carried("PodDisruptionBudget", "spec.fieldOfLater", 1),
    Carried("HorizontalPodAutoscaler", "spec.scaleTargetRef.name", "other", NEVER),
    Carried("HorizontalPodAutoscaler", "spec.scaleTargetRef.kind", "ReplicaSet", NEVER),
    Carried("HorizontalPodAutoscaler", "spec.metrics.0.fieldOfLater", 1),
    Carried("Role", "rules", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}], RBAC),
    Carried("Role", "aggregationRule", {"clusterRoleSelectors": []}, RBAC),
    Carried("RoleBinding", "roleRef.kind", "ClusterRole", RBAC),
    Carried("RoleBinding", "roleRef.name", "powerful", RBAC),
    Carried("RoleBinding", "roleRef.name", "unknown", RBAC),
    Carried("RoleBinding", "subjects.0.kind", "User", RBAC),
    Carried("RoleBinding", "subjects.0.kind", "Group", RBAC),
    Carried("RoleBinding", "subjects.0.namespace", "other", RBAC),
    Carried("RoleBinding", "subjects.0", "web", RBAC),
    Carried("Cluster", "spec.serviceAccountTemplate", {"metadata": {"annotations": {"a": "b"}}}),
    Carried("Cluster", "spec.inheritedMetadata", {"labels": {"pilothouse.dev/container-uid": "u"}}, NEVER),
    *_annotations("Cluster", PRIVILEGED, **{"cnpg.io/hibernation": "on"}),
    *(
        Carried(kind, path, value, NEVER)
        for kind in ORDINARY
        for path, value in (
            ("metadata.namespace", "kube-system"),
            ("metadata.finalizers", ["a.example/hold"]),
            ("metadata.ownerReferences", [{"kind": "Node", "name": "n"}]),
            ("metadata.labels", {"pilothouse.dev/object-uid": "u"}),
        )
    ),
]


def document(guarded: Carried) -> JsonObject:
    """Returns an ordinary object of the kind with this path changed."""
    found = deepcopy(ORDINARY[guarded.kind])
    at: Any = found
    *way, last = guarded.path.split(".")
    for step in way:
        at = at[int(step)] if step.isdigit() else at.setdefault(step, {})
    at[int(last) if last.isdigit() else last] = guarded.value
    return found
