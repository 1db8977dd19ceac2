"""The fields that `baseline` forbids need permissions, field by field: by the table, against Kubernetes' checks and
recordings.

Each field that a control restricts is set in a Deployment as an import meets it. It is then either a right that is
found, or nothing that the platform can say, so that the Deployment is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilothouse_server.authorization.access import Grant, Principal
from pilothouse_server.containers import privileges
from pilothouse_server.containers.model import Container, TakenOver, Toleration
from pilothouse_server.containers.privileges import BASELINE, BEYOND, Control, findings
from pilothouse_server.errors import PermissionDenied
from pilothouse_server.importing.deployments import Converted, convert
from pilothouse_server.settings.model import Settings
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_simulator.admission.pod_security_checks import violations
from tests.kubernetes.containers import container

JsonObject = dict[str, Any]

_RECORDING = Path(__file__).parents[1] / "recordings" / "07c-pod-security.json"
_METADATA = "169.254.169.254"
# A value that the control of this name forbids, by the last key of the field where it has several.
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
# The other fields that an object with such a field needs.
_BESIDE: dict[str, JsonObject] = {
    "ports": {"containerPort": 80},
    "volumes": {"name": "v"},
    "tolerations": {"operator": "Exists"},
    "httpGet": {"port": 80},
    "tcpSocket": {"port": 80},
    "sysctls": {"value": "1"},
}


def _value(control: Control, key: str) -> Any:
    value = _FORBIDDEN[control.name]
    return value.get(key, value.get("")) if isinstance(value, dict) and "path" not in value else value


def _deployment(template: JsonObject) -> JsonObject:
    metadata = {"labels": {"app": "web"}, **template.get("metadata", {})}
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": metadata, "spec": template["spec"]},
        },
    }


def _with(control: Control, field: str, *, init: bool) -> JsonObject:
    """A template of pods that is ordinary but for one field."""
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


def _templates(controls: Sequence[Control]) -> Iterator[tuple[str, JsonObject]]:
    for control in controls:
        for field in control.fields:
            yield field, _with(control, field, init=False)
            if "containers[*]" in field:
                yield field.replace("containers", "initContainers"), _with(control, field, init=True)


def _found(converted: Converted) -> list[str]:
    return [name for name, _ in findings(converted.container)]


def _escaping(controls: Sequence[Control]) -> list[str]:
    """The fields that an import would take along without anybody being asked."""
    return [
        field
        for field, template in _templates(controls)
        if not (converted := convert(_deployment(template))).problems and not _found(converted)
    ]


def test_each_field_is_asked_for_or_cannot_be_said() -> None:
    assert _escaping((*BASELINE, *BEYOND)) == []
    ordinary = convert(_deployment({"spec": {"containers": [{"name": "main", "image": "nginx:1.27"}]}}))
    assert (ordinary.problems, _found(ordinary)) == ((), [])


@pytest.mark.parametrize(
    "left_out", [control for control in (*BASELINE, *BEYOND) if control.find is not None]
)
def test_without_a_control_its_fields_would_escape(
    monkeypatch: pytest.MonkeyPatch, left_out: Control
) -> None:
    """The positive control: every control that finds something is needed."""
    for name in ("BASELINE", "BEYOND"):
        kept = tuple(each for each in getattr(privileges, name) if each is not left_out)
        monkeypatch.setattr(privileges, name, kept)
    assert _escaping([left_out]) != []


def test_the_table_is_kubernetes_own() -> None:
    """Every field is one that the checks of Kubernetes forbid, and each of their checks is there."""
    unchecked = [
        field
        for field, template in _templates(BASELINE)
        if not violations("baseline", template["metadata"], template["spec"])
    ]
    assert unchecked == []
    # Named by the check that forbids it: there are as many of ours as of theirs.
    reasons = {
        violations("baseline", template["metadata"], template["spec"])[0].reason.rstrip("s")
        for _, template in _templates(BASELINE)
    }
    assert len(reasons) == len(BASELINE) == 12


def test_what_a_real_cluster_refused_at_baseline_is_asked_for() -> None:
    exchanges = json.loads(_RECORDING.read_text())["exchanges"]
    refused = [
        exchange["request"]["body"]
        for exchange in exchanges
        if 'violates PodSecurity "baseline' in str(exchange["response"].get("body"))
        and exchange["request"]["body"].get("kind") == "Pod"
    ]
    assert refused
    for pod in refused:
        converted = convert(_deployment({"metadata": pod["metadata"], "spec": pod["spec"]}))
        assert "privileged" in _found(converted)
        assert any("hostNetwork" in problem for problem in converted.problems)


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
def test_what_baseline_allows_is_nobodys_privilege(main: JsonObject) -> None:
    spec = {"containers": [{"name": "main", "image": "nginx:1.27", **main}], "hostNetwork": False}
    annotations = {
        "container.apparmor.security.beta.kubernetes.io/main": "runtime/default",
        "container.apparmor.security.beta.kubernetes.io/other": "localhost/web",
        "seccomp.security.alpha.kubernetes.io/pod": "docker/default",
    }
    assert violations("baseline", {"annotations": annotations}, spec) == []
    converted = convert(_deployment({"metadata": {"annotations": annotations}, "spec": spec}))
    assert (converted.problems, _found(converted)) == ((), [])


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
def test_tolerations(toleration: Toleration, is_one: bool) -> None:
    assert bool(list(findings(_with_spec(tolerations=(toleration,))))) is is_one


def _with_spec(**fields: Any) -> Container:
    subject = container()
    return msgspec.structs.replace(subject, spec=msgspec.structs.replace(subject.spec, **fields))


_GUARDED = KeyPatterns(Settings().guarded_pod_keys)
_NOBODY = Principal(1, "dora", (Grant("admin", "shop", 1, frozenset({"*"})),))


def _refused_key(wanted: Container, stored: Container | None = None) -> bool:
    try:
        privileges.refuse_guarded_keys(
            "shop", wanted, stored, _GUARDED, lambda permission: _NOBODY.allows(permission, "shop")
        )
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
        ("ad.datadoghq.com/web.logs", False),
        ("openshift.io/generated-by", False),
        ("prometheus.io/scrape", False),
        ("app.kubernetes.io/part-of", False),
        ("kubectl.kubernetes.io/restartedAt", False),
        ("team", False),
    ],
)
def test_keys_of_pods_that_others_obey(key: str, guarded: bool) -> None:
    plain = container()
    for field in ("annotations", "labels"):
        wanted = msgspec.structs.replace(plain, **{field: {key: "any"}})
        assert _refused_key(wanted) is guarded
        assert _refused_key(wanted, plain) is guarded
        # Present values stay, also under another number of pods, and need the permission if another program would
        # run.
        assert not _refused_key(msgspec.structs.replace(wanted, replicas=7), wanted)
        assert _refused_key(msgspec.structs.replace(wanted, image="evil:1"), wanted) is guarded
        # Nor is it taken away.
        assert _refused_key(plain, wanted) is guarded
    # Pods that were taken over have what they brought along, and nothing of what the Deployment is given.
    brought = _with_spec(taken_over=TakenOver("uid", pod_annotations={key: "any"}))
    assert _refused_key(brought) is guarded
    given = msgspec.structs.replace(_with_spec(taken_over=TakenOver("uid")), annotations={key: "any"})
    assert not _refused_key(given)
