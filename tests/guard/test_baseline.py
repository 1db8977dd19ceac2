"""Each field that the `baseline` standard forbids needs a permission.

Each field that one of Kubernetes' own controls restricts is set in a Deployment, and the guard finds it. The
table is compared with Kubernetes' checks and with recordings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.containers import guarding
from pilothouse_server.containers.model import Container, TakenOver, Toleration
from pilothouse_server.errors import PermissionDenied
from pilothouse_server.guard import objects
from pilothouse_server.guard.inspection import violations as found_by_guard
from pilothouse_server.guard.model import Keys
from pilothouse_server.guard.pods import FREE
from pilothouse_server.settings.model import Settings
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_simulator.admission.pod_security_checks import violations
from tests.kubernetes.containers import container

JsonObject = dict[str, Any]

_RECORDING = Path(__file__).parents[1] / "recordings" / "07c-pod-security.json"
_METADATA = "169.254.169.254"
_HOLDERS = ("spec", "spec.containers[*]")
# https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline, by the names and in the order
# of the checks of Kubernetes 1.36 (staging/src/k8s.io/pod-security-admission/policy). Its lists of fields
# name `containers`; each also applies to `initContainers`.
BASELINE: dict[str, tuple[str, ...]] = {
    "appArmorProfile": (
        "metadata.annotations[container.apparmor.security.beta.kubernetes.io/*]",
        *(f"{holder}.securityContext.appArmorProfile.type" for holder in _HOLDERS),
    ),
    "capabilities_baseline": ("spec.containers[*].securityContext.capabilities.add",),
    "hostNamespaces": ("spec.hostNetwork", "spec.hostPID", "spec.hostIPC"),
    "hostPathVolumes": ("spec.volumes[*].hostPath",),
    "hostPorts": ("spec.containers[*].ports[*].hostPort",),
    "hostProbesAndHostLifecycle": tuple(
        f"spec.containers[*].{handler}.{action}.host"
        for handler in (
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle.postStart",
            "lifecycle.preStop",
        )
        for action in ("httpGet", "tcpSocket")
    ),
    "privileged": ("spec.containers[*].securityContext.privileged",),
    "procMount": ("spec.containers[*].securityContext.procMount",),
    "seLinuxOptions": tuple(
        f"{holder}.securityContext.seLinuxOptions.{part}"
        for holder in _HOLDERS
        for part in ("type", "user", "role")
    ),
    "seccompProfile_baseline": tuple(f"{holder}.securityContext.seccompProfile.type" for holder in _HOLDERS),
    "sysctls": ("spec.securityContext.sysctls[*].name",),
    "windowsHostProcess": tuple(
        f"{holder}.securityContext.windowsOptions.hostProcess" for holder in _HOLDERS
    ),
}
# Guarded fields that the standards do not restrict.
BEYOND: dict[str, tuple[str, ...]] = {
    "seccompAnnotations": (
        "metadata.annotations[seccomp.security.alpha.kubernetes.io/*]",
        "metadata.annotations[container.seccomp.security.alpha.kubernetes.io/*]",
    ),
    "tolerations": ("spec.tolerations[*].key",),
    "priorityClassName": ("spec.priorityClassName",),
}
# A value that each control forbids; where fields of one control need different values, by the field's last
# key.
_FORBIDDEN: dict[str, Any] = {
    "appArmorProfile": {"type": "Unconfined", "": "unconfined"},
    "capabilities_baseline": ["NET_ADMIN"],
    "hostNamespaces": True,
    "hostPathVolumes": {"path": "/"},
    "hostPorts": 8080,
    "hostProbesAndHostLifecycle": _METADATA,
    "privileged": True,
    "procMount": "Unmasked",
    "seLinuxOptions": {"type": "spc_t", "user": "system_u", "role": "system_r"},
    "seccompProfile_baseline": "Unconfined",
    "sysctls": "kernel.msgmax",
    "windowsHostProcess": True,
    "seccompAnnotations": "unconfined",
    "tolerations": "node-role.kubernetes.io/control-plane",
    "priorityClassName": "system-node-critical",
}
# The other fields that an object with a forbidden field needs.
_BESIDE: dict[str, JsonObject] = {
    "ports": {"containerPort": 80},
    "volumes": {"name": "v"},
    "tolerations": {"operator": "Exists"},
    "httpGet": {"port": 80},
    "tcpSocket": {"port": 80},
    "sysctls": {"value": "1"},
}


def _value(control: str, key: str) -> Any:
    value = _FORBIDDEN[control]
    return value.get(key, value.get("")) if isinstance(value, dict) and "path" not in value else value


def _deployment(template: JsonObject) -> JsonObject:
    metadata = {"labels": {"app": "web"}, **template.get("metadata", {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": metadata, "spec": template["spec"]},
        },
    }


def _with(control: str, field: str, *, init: bool) -> JsonObject:
    """Returns a template of pods that are ordinary except for one field."""
    main = {"name": "main", "image": "nginx:1.27"}
    spec: JsonObject = {"containers": [main]}
    template: JsonObject = {"metadata": {"annotations": {}}, "spec": spec}
    if (annotation := re.fullmatch(r"metadata\.annotations\[(.*)\*\]", field)) is not None:
        key = f"{annotation[1]}{'pod' if annotation[1].startswith('seccomp') else 'main'}"
        template["metadata"]["annotations"][key] = _value(control, "")
        return template
    *path, last = field.split(".")
    place: Any = template
    for step in path:
        if step == "containers[*]":
            if init:
                spec["initContainers"] = [{"name": "init", "image": "busybox:1.37"}]
            place = spec["initContainers" if init else "containers"][0]
        elif step.endswith("[*]"):
            name = step.removesuffix("[*]")
            place = place.setdefault(name, [dict(_BESIDE[name])])[0]
        else:
            place = place.setdefault(step, dict(_BESIDE.get(step, {})))
    place[last] = _value(control, last)
    return template


def _templates(controls: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, JsonObject]]:
    for control, fields in controls.items():
        for field in fields:
            yield field, _with(control, field, init=False)
            if "containers[*]" in field:
                yield field.replace("containers", "initContainers"), _with(control, field, init=True)


def _found(template: JsonObject) -> list[str]:
    return [each.rule for each in found_by_guard(_deployment(template), namespace="shop")]


def _escaping() -> list[str]:
    """Returns the fields that the guard would send without requiring a permission."""
    return [field for field, template in _templates({**BASELINE, **BEYOND}) if not _found(template)]


def test_each_field_needs_a_permission() -> None:
    assert _escaping() == []
    assert _found({"spec": {"containers": [{"name": "main", "image": "nginx:1.27"}]}}) == []


def test_a_field_without_its_check_would_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: the guard passes a field that a list marks as free."""
    pod = objects.KINDS["apps/v1", "Deployment"].fields["spec"]["template"]["spec"]
    monkeypatch.setitem(pod, "hostPID", FREE)
    monkeypatch.setitem(pod["containers"][0]["securityContext"], "privileged", FREE)
    assert _escaping() == [
        "spec.hostPID",
        "spec.containers[*].securityContext.privileged",
        "spec.initContainers[*].securityContext.privileged",
    ]


def test_the_table_equals_the_checks_of_kubernetes() -> None:
    """The table contains every check, and the checks forbid each of its fields."""
    unchecked = [
        field
        for field, template in _templates(BASELINE)
        if not violations("baseline", template["metadata"], template["spec"])
    ]
    assert unchecked == []
    # Each reason names its check: there are as many reasons as checks.
    reasons = {
        violations("baseline", template["metadata"], template["spec"])[0].reason.rstrip("s")
        for _, template in _templates(BASELINE)
    }
    assert len(reasons) == len(BASELINE) == 12


def test_pods_that_a_real_cluster_refused_at_baseline_need_a_permission() -> None:
    exchanges = json.loads(_RECORDING.read_text())["exchanges"]
    refused = [
        exchange["request"]["body"]
        for exchange in exchanges
        if 'violates PodSecurity "baseline' in str(exchange["response"].get("body"))
        and exchange["request"]["body"].get("kind") == "Pod"
    ]
    assert refused
    for pod in refused:
        assert {"privileged", "hostNamespaces"} <= set(
            _found({"metadata": pod["metadata"], "spec": pod["spec"]})
        )


_ALLOWED: list[JsonObject] = [
    {
        "securityContext": {
            "capabilities": {"add": ["CHOWN", "NET_BIND_SERVICE"], "drop": ["ALL"]},
            "privileged": False,
        }
    },
    {
        "securityContext": {
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"},
            "procMount": "Default",
        }
    },
    {"livenessProbe": {"httpGet": {"port": 80, "path": "/"}}, "readinessProbe": {"tcpSocket": {"port": 80}}},
    {"livenessProbe": {"exec": {"command": ["true"]}}, "startupProbe": {"grpc": {"port": 80}}},
    {"ports": [{"containerPort": 80, "hostPort": 0}]},
]


@pytest.mark.parametrize("main", _ALLOWED)
def test_pods_that_baseline_allows_need_no_permission(main: JsonObject) -> None:
    spec = {"containers": [{"name": "main", "image": "nginx:1.27", **main}], "hostNetwork": False}
    annotations = {
        "container.apparmor.security.beta.kubernetes.io/main": "runtime/default",
        "container.apparmor.security.beta.kubernetes.io/other": "localhost/web",
        "seccomp.security.alpha.kubernetes.io/pod": "docker/default",
    }
    assert violations("baseline", {"annotations": annotations}, spec) == []
    assert _found({"metadata": {"annotations": annotations}, "spec": spec}) == []


@pytest.mark.parametrize(
    ("toleration", "is_one"),
    [
        (Toleration("node-role.kubernetes.io/control-plane", "Exists", effect="NoSchedule"), True),
        (Toleration("node-role.kubernetes.io/master", "Equal", "true"), True),
        (Toleration(operator="Exists"), True),
        (Toleration("node-role.kubernetes.io/gpu", "Exists"), False),
        (
            Toleration("node.kubernetes.io/not-ready", "Exists", effect="NoExecute", toleration_seconds=5),
            False,
        ),
    ],
)
def test_tolerations_of_control_plane_nodes_need_a_permission(toleration: Toleration, is_one: bool) -> None:
    assert _needs_permission(_with_spec(tolerations=(toleration,))) is is_one


def _with_spec(**fields: Any) -> Container:
    subject = container()
    return msgspec.structs.replace(subject, spec=msgspec.structs.replace(subject.spec, **fields))


_KEYS = Keys(KeyPatterns(""), KeyPatterns(Settings().guarded_pod_keys, guarding=True))
_NOBODY = Principal(1, "dora", (Grant("admin", "shop", 1, frozenset({"*"})),))


def _needs_permission(wanted: Container, stored: Container | None = None) -> bool:
    try:
        guarding.admitted(wanted, stored, _KEYS, lambda permission: _NOBODY.allows(permission, "shop"))
    except PermissionDenied:
        return True
    return False


@pytest.mark.parametrize(
    ("key", "guarded"),
    [
        ("k8s.v1.cni.cncf.io/networks", True),
        ("sidecar.istio.io/userVolume", True),
        ("sidecar.istio.io/rewriteAppHTTPProbers", False),
        ("iam.amazonaws.com/role", True),
        ("azure.workload.identity/use", True),
        ("aadpodidbinding", True),
        ("vault.hashicorp.com/agent-inject", True),
        ("cdi.k8s.io/gpu", True),
        ("io.kubernetes.cri-o.Devices", True),
        ("seccomp-profile.kubernetes.cri-o.io", True),
        ("seccomp-profile.kubernetes.cri-o.io/main", True),
        ("cloud.google.com/identity", True),
        ("linkerd.io/inject", True),
        ("pod.network.openshift.io/assign-macvlan", True),
        ("networkservicemesh.io/inject", True),
        ("sidecar.jaegertracing.io/inject", True),
        ("admission.datadoghq.com/enabled", True),
        ("gke-gcsfuse/volumes", True),
        ("telegraf.influxdata.com/class", True),
        ("injector.tumblr.com/request", True),
        ("ulimits.nri.containerd.io/container.web", True),
        ("vault.security.banzaicloud.io/vault-role", True),
        ("operator.1password.io/item-path", True),
        ("ad.datadoghq.com/web.logs", False),
        ("openshift.io/generated-by", False),
        ("prometheus.io/scrape", False),
        ("app.kubernetes.io/part-of", False),
        ("kubectl.kubernetes.io/restartedAt", False),
        ("team", False),
    ],
)
def test_pod_keys_that_other_controllers_obey_need_a_permission(key: str, guarded: bool) -> None:
    plain = container()
    for field in ("annotations", "labels"):
        # Operators obey annotations on Deployments and meshes those on Services, but they grant a program no
        # power there.
        labelled = msgspec.structs.replace(plain, **{field: {key: "any"}})
        assert _needs_permission(labelled) is guarded
        assert not _needs_permission(msgspec.structs.replace(labelled, image="nginx:1.28"), labelled)
        assert not _needs_permission(plain, labelled)
        wanted = _with_spec(**{f"pod_{field}": {key: "any"}})
        assert _needs_permission(wanted) is guarded
        assert _needs_permission(wanted, plain) is guarded
        # Existing values may stay when the number of pods changes, but need the permission if another program
        # would run.
        assert not _needs_permission(msgspec.structs.replace(wanted, replicas=7), wanted)
        assert _needs_permission(msgspec.structs.replace(wanted, image="evil:1"), wanted) is guarded
        # Removing the value also needs the permission.
        assert _needs_permission(plain, wanted) is guarded
    # The same applies to pods that were taken over.
    brought = _with_spec(taken_over=TakenOver("uid"), pod_annotations={key: "any"})
    assert _needs_permission(brought) is guarded
