"""Objects with one guarded field each, for the guard and for imports."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, NamedTuple

JsonObject = dict[str, Any]
METADATA_SERVICE = "169.254.169.254"


class Guarded(NamedTuple):
    """A guarded field: its path in a pod template, a value, and the rule for it."""

    path: str
    value: Any
    rule: str
    permission: str = "container.privileged"


def _in_programs(path: str, value: Any, rule: str) -> list[Guarded]:
    return [
        Guarded(f"spec.{programs}[0].{path}", value, rule) for programs in ("containers", "initContainers")
    ]


_HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop")
GUARDED: list[Guarded] = [
    Guarded("spec.hostNetwork", True, "hostNamespaces"),
    Guarded("spec.hostPID", True, "hostNamespaces"),
    Guarded("spec.hostIPC", True, "hostNamespaces"),
    Guarded("spec.hostUsers", True, "hostUsers"),
    Guarded("spec.runtimeClassName", "kata", "runtimeClassName"),
    Guarded("spec.nodeName", "node-1", "nodeName"),
    Guarded("spec.schedulerName", "mine", "schedulerName"),
    Guarded("spec.priority", 2_000_000_000, "priority"),
    Guarded("spec.priorityClassName", "system-node-critical", "priority"),
    Guarded("spec.priorityClassName", "gold.shop", "priority"),
    Guarded("spec.preemptionPolicy", "Never", "priority"),
    Guarded("spec.overhead", {"cpu": "1"}, "unlisted"),
    Guarded("spec.resourceClaims", [{"name": "gpu", "resourceClaimName": "gpu"}], "unlisted"),
    Guarded("spec.ephemeralContainers", [{"name": "debug", "image": "busybox:1.37"}], "unlisted"),
    Guarded("spec.fieldOfLater", {"opens": "much"}, "unlisted"),
    Guarded("spec.tolerations", [{"operator": "Exists"}], "tolerations"),
    Guarded(
        "spec.tolerations",
        [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
        "tolerations",
    ),
    Guarded("spec.securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctls"),
    Guarded("spec.securityContext.seLinuxOptions", {"type": "spc_t"}, "seLinuxOptions"),
    Guarded("spec.securityContext.seLinuxOptions", {"user": "system_u"}, "seLinuxOptions"),
    Guarded("spec.securityContext.seLinuxOptions", {"level": "s0:c1,c2"}, "seLinuxOptions"),
    Guarded("spec.securityContext.appArmorProfile", {"type": "Unconfined"}, "appArmor"),
    Guarded("spec.securityContext.seccompProfile", {"type": "Unconfined"}, "seccomp"),
    Guarded("spec.securityContext.windowsOptions", {"hostProcess": True}, "windowsHostProcess"),
    *_in_programs("securityContext.privileged", True, "privileged"),
    *_in_programs("securityContext.capabilities.add", ["NET_ADMIN"], "capabilities"),
    *_in_programs("securityContext.procMount", "Unmasked", "procMount"),
    *_in_programs("securityContext.seccompProfile", {"type": "Unconfined"}, "seccomp"),
    *_in_programs("securityContext.appArmorProfile", {"type": "Unconfined"}, "appArmor"),
    *_in_programs("securityContext.seLinuxOptions", {"role": "system_r"}, "seLinuxOptions"),
    *_in_programs("securityContext.windowsOptions", {"hostProcess": True}, "windowsHostProcess"),
    *_in_programs("ports", [{"containerPort": 80, "hostPort": 8080}], "hostPorts"),
    *_in_programs("ports", [{"containerPort": 80, "hostIP": "10.0.0.1"}], "hostPorts"),
    *_in_programs("fieldOfLater", True, "unlisted"),
    *_in_programs(
        "volumeMounts",
        [{"name": "v", "mountPath": "/v", "mountPropagation": "Bidirectional"}],
        "mountPropagation",
    ),
    *(
        each
        for handler in _HANDLERS
        for action in ("httpGet", "tcpSocket")
        for each in _in_programs(f"{handler}.{action}", {"port": 80, "host": METADATA_SERVICE}, "probeHosts")
    ),
    Guarded("spec.volumes", [{"name": "v", "hostPath": {"path": "/"}}], "hostPath", "storage.host_path"),
    *(
        Guarded("spec.volumes", [{"name": "v", source: {"server": "nfs.example"}}], "unlisted")
        for source in ("nfs", "csi", "iscsi", "ephemeral", "image", "gitRepo")
    ),
    Guarded(
        "spec.volumes",
        [
            {
                "name": "v",
                "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "t"}}]},
            }
        ],
        "tokenAudience",
    ),
    Guarded(
        "spec.volumes",
        [{"name": "v", "projected": {"sources": [{"clusterTrustBundle": {"name": "b", "path": "t"}}]}}],
        "unlisted",
    ),
    Guarded(
        "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        [{"topologyKey": "kubernetes.io/hostname", "namespaceSelector": {"matchLabels": {"team": "b"}}}],
        "unlisted",
    ),
    # An empty selector selects all namespaces.
    Guarded(
        "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {}, "namespaceSelector": {}}],
        "unlisted",
    ),
    Guarded(
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
        [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}],
        "unlisted",
    ),
    Guarded("metadata.annotations", {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/root"}, "podKeys"),
    Guarded("metadata.annotations", {"sidecar.istio.io/userVolume": "[]"}, "podKeys"),
    Guarded(
        "metadata.annotations",
        {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"},
        "appArmor",
    ),
    Guarded("metadata.annotations", {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}, "seccomp"),
    *(
        Guarded("metadata.annotations", {key: "x"}, "podKeys")
        for key in (
            "iam.gke.io/gcp-service-account",
            "azure.workload.identity/client-id",
            "iam.amazonaws.com/role",
            "linkerd.io/inject",
            "consul.hashicorp.com/connect-inject",
            "vault.hashicorp.com/agent-inject",
            "k8s.v1.cni.cncf.io/networks",
        )
    ),
    Guarded("metadata.labels", {"azure.workload.identity/use": "true"}, "podKeys"),
]


def template(guarded: Guarded | None = None) -> JsonObject:
    """Returns a template of ordinary pods, with one additional field if given."""
    main: JsonObject = {"name": "main", "image": "nginx:1.27"}
    found: JsonObject = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [main]}}
    if guarded is None:
        return found
    place: Any = found
    *way, last = guarded.path.split(".")
    for step in way:
        name = step.removesuffix("[0]")
        if name == "initContainers":
            place.setdefault(name, [{"name": "init", "image": "busybox:1.37"}])
        place = place[name][0] if step != name else place.setdefault(name, {})
    value = deepcopy(guarded.value)
    place[last] = {**place[last], **value} if last in place else value
    return found


def deployment(guarded: Guarded | None = None, name: str = "web", namespace: str = "shop") -> JsonObject:
    """Returns a Deployment with such a template."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template(guarded)},
    }
