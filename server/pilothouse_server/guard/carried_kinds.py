"""The allow-lists of carried kinds (Kubernetes 1.30 to 1.37, Gateway API 1.0 to 1.4).

The lists are read from the top, as in `pods`. A field that is missing here needs `object.privileged`, or `object.rbac`
in a Role or RoleBinding. These fields are missing on purpose: `resource` of an Ingress's backends, `extensionRef`,
`parametersRef` and `tls.options`, because controllers decide their effect; addresses and infrastructure of Gateways;
`frontendValidation`, `allowedListeners`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pilothouse_manifests.carried import GATEWAY, RBAC
from pilothouse_server.guard import annotation_keys, hosts, references, roles
from pilothouse_server.guard.budgets import blocking
from pilothouse_server.guard.checks import Check, Inspection, Way, shown
from pilothouse_server.guard.model import PRIVILEGED_OBJECT, RBAC_OBJECT
from pilothouse_server.guard.objects import KindFields
from pilothouse_server.guard.pods import FREE, LABEL_SELECTOR

_NEVER: Final = ""


def _free(names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), FREE)


def _kind(
    spec: Any, *, checked: Check = annotation_keys.of_any_kind, whole: Check | None = None
) -> KindFields:
    fields = {"spec": spec, "status": _status}
    return KindFields(fields, labels=annotation_keys.labels, annotations=checked, whole=whole)


def _status(value: Any, found: Inspection, way: Way) -> None:
    """Refuses a status, because the cluster writes it."""
    if value:
        found.note(way, "status", "may not be set: the cluster writes it", permission=_NEVER)


def protected_policy(document: Mapping[str, Any], found: Inspection, _way: Way) -> None:
    """Requires `object.privileged` for a NetworkPolicy in a protected namespace.

    NetworkPolicies are additive, so a policy that allows everything undoes a default deny.
    """
    if found.facts.policies_protected:
        words = "is a NetworkPolicy, and network_policies of the namespace is PROTECTED"
        found.note((None, "kind"), "networkPolicies", words, permission=PRIVILEGED_OBJECT)


def _ingress_without_rules(document: Mapping[str, Any], found: Inspection, _way: Way) -> None:
    """Notes an empty host for an Ingress without rules and default backend: it names no host to compare."""
    spec = document.get("spec")
    if isinstance(spec, dict) and not spec.get("rules") and not spec.get("defaultBackend"):
        hosts.host(None, found, ((None, "spec"), "rules"))


def _route_hosts(document: Mapping[str, Any], found: Inspection, _way: Way) -> None:
    hosts.fields("hostnames")(document.get("spec") or {}, found, (None, "spec"))


def _scale_target(value: Any, found: Inspection, way: Way) -> None:
    """Checks that an HPA scales a container of the platform, and that the caller may scale it."""
    target = value if isinstance(value, dict) else {}
    named = (shown(target.get("kind")), shown(target.get("name")))
    known = found.facts.scalable
    if known is not None and named not in known:
        words = f'is {named[0]} "{named[1]}", which is not a container of the platform in the namespace'
        found.note(way, "scaleTarget", words, *named, permission=_NEVER)
        return
    found.note(way, "scaleTarget", f'scales {named[0]} "{named[1]}"', *named, permission="container.scale")


_SERVICE_BACKEND = {"name": FREE, "port": _free("name number")}
_INGRESS = {
    "ingressClassName": FREE,
    "defaultBackend": references.default_backend,
    "rules": [
        (
            hosts.field("host"),
            {
                "host": FREE,
                "http": {
                    "paths": [
                        {
                            "path": references.path_of_ingress,
                            "pathType": FREE,
                            "backend": {"service": _SERVICE_BACKEND},
                        }
                    ]
                },
            },
        )
    ],
    "tls": [(hosts.fields("hosts"), {"hosts": FREE, "secretName": FREE})],
}
_GATEWAY = {
    "gatewayClassName": FREE,
    "listeners": [
        (
            hosts.field("hostname"),
            {
                **_free("name hostname port protocol"),
                "tls": {
                    "mode": FREE,
                    "certificateRefs": [(references.certificate, _free("group kind name namespace"))],
                },
                "allowedRoutes": {
                    "namespaces": {"from": references.routes_from},
                    "kinds": [_free("group kind")],
                },
            },
        )
    ],
}
_HEADER_CHANGES = {"add": [_free("name value")], "set": [_free("name value")], "remove": FREE}
_PATH_CHANGE = _free("type replaceFullPath replacePrefixMatch")
_BACKEND_FIELDS = _free("group kind name namespace port")
_FILTER = {
    "type": FREE,
    "requestHeaderModifier": _HEADER_CHANGES,
    "responseHeaderModifier": _HEADER_CHANGES,
    "requestMirror": {
        "backendRef": (references.backend, _BACKEND_FIELDS),
        "percent": FREE,
        "fraction": _free("numerator denominator"),
    },
    "requestRedirect": {**_free("scheme hostname port statusCode"), "path": _PATH_CHANGE},
    "urlRewrite": {"hostname": FREE, "path": _PATH_CHANGE},
    "cors": _free("allowCredentials allowHeaders allowMethods allowOrigins exposeHeaders maxAge"),
}
_HTTP_ROUTE = {
    "hostnames": FREE,
    "parentRefs": [(references.parent, _free("group kind name namespace port sectionName"))],
    "rules": [
        {
            "name": FREE,
            "matches": [
                {
                    "path": _free("type value"),
                    "headers": [_free("type name value")],
                    "queryParams": [_free("type name value")],
                    "method": FREE,
                }
            ],
            "filters": [_FILTER],
            "backendRefs": [
                (references.backend, {**_BACKEND_FIELDS, "weight": FREE, "filters": [_FILTER]}),
            ],
            "timeouts": _free("request backendRequest"),
            "retry": _free("codes attempts backoff"),
            "sessionPersistence": {
                **_free("sessionName absoluteTimeout idleTimeout type"),
                "cookieConfig": {"lifetimeType": FREE},
            },
        }
    ],
}
_PEERS = [
    {
        "podSelector": LABEL_SELECTOR,
        "namespaceSelector": LABEL_SELECTOR,
        "ipBlock": _free("cidr except"),
    }
]
_POLICY_PORTS = [_free("port endPort protocol")]
_NETWORK_POLICY = {
    "podSelector": LABEL_SELECTOR,
    "policyTypes": FREE,
    "ingress": [{"from": _PEERS, "ports": _POLICY_PORTS}],
    "egress": [{"to": _PEERS, "ports": _POLICY_PORTS}],
}
_BUDGET = {
    "selector": LABEL_SELECTOR,
    **_free("minAvailable maxUnavailable unhealthyPodEvictionPolicy"),
}
_TARGET = (_scale_target, _free("apiVersion kind name"))
_METRIC_TARGET = _free("type value averageValue averageUtilization")
_METRIC = {"name": FREE, "selector": LABEL_SELECTOR}
_SCALING = {
    **_free("stabilizationWindowSeconds selectPolicy tolerance"),
    "policies": [_free("type value periodSeconds")],
}
_AUTOSCALER = {
    "scaleTargetRef": _TARGET,
    **_free("minReplicas maxReplicas"),
    "metrics": [
        {
            "type": FREE,
            "resource": {"name": FREE, "target": _METRIC_TARGET},
            "containerResource": {**_free("name container"), "target": _METRIC_TARGET},
            "pods": {"metric": _METRIC, "target": _METRIC_TARGET},
            "object": {
                "describedObject": _free("apiVersion kind name"),
                "metric": _METRIC,
                "target": _METRIC_TARGET,
            },
            "external": {"metric": _METRIC, "target": _METRIC_TARGET},
        }
    ],
    "behavior": {"scaleUp": _SCALING, "scaleDown": _SCALING},
}
_FIRST_AUTOSCALER = {
    "scaleTargetRef": _TARGET,
    **_free("minReplicas maxReplicas targetCPUUtilizationPercentage"),
}


def _plain(fields: dict[str, Any], permission: str = PRIVILEGED_OBJECT) -> KindFields:
    return KindFields(fields, permission, annotation_keys.labels, annotation_keys.of_any_kind)


_ROUTE = _kind(_HTTP_ROUTE, checked=annotation_keys.of_routes, whole=_route_hosts)
CARRIED_KINDS: Final[dict[tuple[str, str], KindFields]] = {
    ("v1", "ServiceAccount"): _plain(
        {
            "automountServiceAccountToken": FREE,
            "imagePullSecrets": [{"name": FREE}],
            "secrets": [{"name": FREE}],
        }
    ),
    ("networking.k8s.io/v1", "Ingress"): _kind(
        _INGRESS, checked=annotation_keys.of_ingresses, whole=_ingress_without_rules
    ),
    ("networking.k8s.io/v1", "NetworkPolicy"): _kind(_NETWORK_POLICY, whole=protected_policy),
    ("policy/v1", "PodDisruptionBudget"): _kind(_BUDGET, whole=blocking),
    ("autoscaling/v1", "HorizontalPodAutoscaler"): _kind(_FIRST_AUTOSCALER),
    ("autoscaling/v2", "HorizontalPodAutoscaler"): _kind(_AUTOSCALER),
    **dict.fromkeys(
        ((f"{GATEWAY}/v1", "Gateway"), (f"{GATEWAY}/v1beta1", "Gateway")),
        _kind(_GATEWAY, checked=annotation_keys.of_gateways),
    ),
    **dict.fromkeys(((f"{GATEWAY}/v1", "HTTPRoute"), (f"{GATEWAY}/v1beta1", "HTTPRoute")), _ROUTE),
    (f"{RBAC}/v1", "Role"): _plain({"rules": roles.rules}, RBAC_OBJECT),
    (f"{RBAC}/v1", "RoleBinding"): _plain(
        {"roleRef": roles.bound_role, "subjects": [(roles.subject, _free("kind name namespace apiGroup"))]},
        RBAC_OBJECT,
    ),
}
# Custom resources have no list of fields: their operators decide what their fields do.
CUSTOM: Final = KindFields({}, labels=annotation_keys.labels, annotations=annotation_keys.of_any_kind)
