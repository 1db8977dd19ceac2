"""Pod Security: the levels of a namespace as recorded, and each check of the Pod Security Standards."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.admission.pod_security import AUDIT, ENFORCE, WARN
from pilothouse_simulator.admission.pod_security_checks import violations
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import NAMESPACES, PODS
from tests.simulator.recorded_cluster import NODE_VALUES, recorded_cluster
from tests.simulator.replay import Options, Replay, check, replay
from tests.simulator.workloads import poll_cluster
from tests.virtual_time import virtual_time

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_POD_SECURITY = "07c-pod-security"
_NAMESPACE = "rec-psa"
_REFUSED, _BAD_LEVEL, _BASELINE_VIOLATED = 0, 7, 10
_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
_GOOD: JsonObject = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_GOOD_POD: JsonObject = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def _labelled(cluster: SimulatedCluster, name: str, labels: dict[str, str]) -> None:
    namespace = copy_json(cluster.store.get(NAMESPACES, None, name))
    assert namespace is not None
    namespace["metadata"]["labels"] |= labels
    cluster.store.update(NAMESPACES, namespace)


async def _restricted(cluster: SimulatedCluster) -> None:
    _labelled(cluster, _NAMESPACE, {ENFORCE: "restricted", WARN: "restricted"})


async def _in_the_same_words(run: Replay) -> None:
    number = max(run.answers)
    recorded = run.recording["exchanges"][number]["response"]["body"]
    assert run.answers[number]["message"] == recorded["message"]


@virtual_time
async def test_pod_security_is_as_recorded() -> None:
    async with recorded_cluster(1.0) as cluster:
        differences = await replay(
            cluster,
            _POD_SECURITY,
            Options(
                varying=NODE_VALUES,
                after=dict.fromkeys((_REFUSED, _BAD_LEVEL, _BASELINE_VIOLATED), _in_the_same_words),
            ),
            prepare=_restricted,
        )
    check(_POD_SECURITY, differences)


def _spec(context: JsonObject | None = None, pod: JsonObject | None = None, **fields: Any) -> JsonObject:
    """Returns the spec of a pod that `restricted` accepts, except for the given fields.

    Names in `fields` that begin with `c_` are fields of the container.
    """
    container = {"name": "c", "image": "busybox:1", "securityContext": {**_GOOD, **(context or {})}}
    container |= {name[2:]: value for name, value in fields.items() if name.startswith("c_")}
    rest = {name: value for name, value in fields.items() if not name.startswith("c_")}
    return {"containers": [container], "securityContext": {**_GOOD_POD, **(pod or {})}, **rest}


def _messages(level: str, spec: JsonObject, annotations: JsonObject | None = None) -> list[str]:
    return [str(found) for found in violations(level, {"annotations": annotations or {}}, spec)]


_HOST_PATH = [{"name": "v", "hostPath": {"path": "/"}}]
_BASELINE: list[tuple[JsonObject, str]] = [
    (
        _spec({"appArmorProfile": {"type": "Unconfined"}}),
        'forbidden AppArmor profile (container "c" must not set AppArmor profile type to "Unconfined")',
    ),
    (
        _spec({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "SYS_TIME"]}}),
        'non-default capabilities (container "c" must not include "NET_ADMIN", "SYS_TIME" in '
        "securityContext.capabilities.add)",
    ),
    (_spec(hostNetwork=True, hostIPC=True), "host namespaces (hostNetwork=true, hostIPC=true)"),
    (_spec(volumes=_HOST_PATH), 'hostPath volumes (volume "v")'),
    (
        _spec(c_ports=[{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 81}]),
        'hostPort (container "c" uses hostPorts 80, 81)',
    ),
    (
        _spec(c_livenessProbe={"httpGet": {"port": 80, "host": "10.0.0.1"}}),
        'probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")',
    ),
    (
        _spec(c_lifecycle={"preStop": {"tcpSocket": {"port": 80, "host": "10.0.0.1"}}}),
        'probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")',
    ),
    (
        _spec({"privileged": True}),
        'privileged (container "c" must not set securityContext.privileged=true)',
    ),
    (
        _spec({"procMount": "Unmasked"}),
        'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
    ),
    (
        _spec({"seLinuxOptions": {"type": "spc_t", "user": "u"}}, {"seLinuxOptions": {"role": "r"}}),
        'seLinuxOptions (pod and container "c" set forbidden securityContext.seLinuxOptions: type "spc_t"; '
        "user may not be set; role may not be set)",
    ),
    (
        _spec({"seccompProfile": {"type": "Unconfined"}}),
        'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
    ),
    (
        _spec(pod={"sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_rmem"}]}),
        "forbidden sysctls (kernel.msgmax)",
    ),
    (
        _spec(pod={"windowsOptions": {"hostProcess": True}}),
        "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
    ),
]
_RESTRICTED: list[tuple[JsonObject, str]] = [
    (
        _spec({"allowPrivilegeEscalation": True}),
        'allowPrivilegeEscalation != false (container "c" must set '
        "securityContext.allowPrivilegeEscalation=false)",
    ),
    (
        _spec({"capabilities": {"drop": ["CHOWN"], "add": ["NET_BIND_SERVICE", "KILL"]}}),
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]; container '
        '"c" must not include "KILL" in securityContext.capabilities.add)',
    ),
    (
        _spec(volumes=[*_HOST_PATH, {"name": "n", "nfs": {}}, {"name": "e", "emptyDir": {}}]),
        'restricted volume types (volumes "v", "n" use restricted volume types "hostPath", "nfs")',
    ),
    (
        _spec({"runAsNonRoot": False}),
        'runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)',
    ),
    (
        _spec(pod={"runAsNonRoot": None}),
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
    ),
    (
        _spec({"runAsUser": 0}, {"runAsUser": 0}),
        'runAsUser=0 (pod and container "c" must not set runAsUser=0)',
    ),
    (
        _spec(pod={"seccompProfile": {"type": "Unconfined"}}),
        'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
    ),
    (
        _spec(pod={"seccompProfile": None}),
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")',
    ),
]


@pytest.mark.parametrize(("spec", "words"), _BASELINE)
def test_each_baseline_check_names_the_container_and_the_change(spec: JsonObject, words: str) -> None:
    assert _messages("baseline", spec) == [words]
    assert _messages("privileged", spec) == []
    # `restricted` may have its own text for the violation, but reports it only once.
    assert len(_messages("restricted", spec)) == 1


@pytest.mark.parametrize(("spec", "words"), _RESTRICTED)
def test_each_restricted_check_names_the_container_and_the_change(spec: JsonObject, words: str) -> None:
    assert _messages("restricted", spec) == [words]


@pytest.mark.parametrize(
    "spec",
    [
        _spec(),
        _spec({"runAsNonRoot": True, "seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}},
              {"runAsNonRoot": None, "seccompProfile": None}),
        _spec({"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "runAsUser": 1000}),
        _spec(volumes=[
            {"name": kind.lower(), kind: {}}
            for kind in ("configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "downwardAPI")
        ]),
        # With its own user namespace, root is unprivileged on the node; Windows does not have these privileges.
        _spec({"runAsUser": 0}, {"runAsNonRoot": None}, hostUsers=False),
        _spec({"allowPrivilegeEscalation": None, "capabilities": None}, {"seccompProfile": None},
              os={"name": "windows"}),
    ],
)  # fmt: skip
def test_restricted_allows_each_compliant_variant(spec: JsonObject) -> None:
    assert _messages("restricted", spec) == []


def test_init_containers_and_annotations_are_checked() -> None:
    spec = _spec()
    spec["initContainers"] = [{"name": "i", "image": "busybox:1"}, {"name": "j", "image": "busybox:1"}]
    assert _messages("restricted", spec) == [
        'allowPrivilegeEscalation != false (containers "i", "j" must set '
        "securityContext.allowPrivilegeEscalation=false)",
        'unrestricted capabilities (containers "i", "j" must set securityContext.capabilities.drop=["ALL"])',
    ]
    allowed = {f"{_APPARMOR}c": "localhost/p", f"{_APPARMOR}d": "runtime/default"}
    assert _messages("baseline", _spec(), allowed) == []
    (message,) = _messages("baseline", _spec(), {f"{_APPARMOR}c": "unconfined"})
    assert message.startswith("forbidden AppArmor profile (annotation must not set AppArmor profile type to ")


async def _patch(
    cluster: SimulatedCluster, path: str, body: JsonObject, kind: str = "merge-patch+json"
) -> tuple[JsonObject, list[str]]:
    """Returns the response to a patch, and its warnings."""
    headers = {"authorization": f"Bearer {cluster.token}", "content-type": f"application/{kind}"}
    async with (
        aiohttp.ClientSession(cluster.url, headers=headers) as session,
        session.patch(path, json=body, params={"fieldManager": "them"}) as response,
    ):
        return await response.json(), response.headers.getall("Warning", [])


def _pod(name: str, **spec: Any) -> JsonObject:
    return {
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"containers": [{"name": "c", "image": "busybox:1"}], **spec},
    }


async def _team(cluster: SimulatedCluster, **labels: str) -> None:
    cluster.store.create(NAMESPACES, {"metadata": {"name": "team", "labels": labels}})
    await poll_cluster(cluster, lambda: cluster.store.get(NAMESPACES, None, "team") is not None)


@virtual_time
async def test_a_raised_level_names_the_violating_pods_and_ends_none() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        await _team(cluster)
        cluster.store.create(PODS, {**_pod("good"), "spec": _spec()})
        for name in ("b", "a", "c"):
            cluster.store.create(PODS, _pod(name, hostNetwork=True))
        cluster.store.create(PODS, _pod("d", hostPID=True, hostNetwork=True, volumes=_HOST_PATH))
        path, stricter = "/api/v1/namespaces/team", {"metadata": {"labels": {ENFORCE: "baseline"}}}
        _, warnings = await _patch(cluster, path, stricter)
        assert warnings == [
            '299 - "existing pods in namespace \\"team\\" violate the new PodSecurity enforce level '
            '\\"baseline:latest\\""',
            '299 - "a (and 2 other pods): host namespaces"',
            '299 - "d: host namespaces, hostPath volumes"',
        ]
        # An unchanged level and a lower level cause no warnings.
        assert (await _patch(cluster, path, stricter))[1] == []
        assert (await _patch(cluster, path, {"metadata": {"labels": {ENFORCE: "privileged"}}}))[1] == []
        assert len(cluster.store.list(PODS, "team")) == 5


@virtual_time
async def test_a_pod_is_checked_again_when_its_image_changes() -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        await _team(cluster)
        pod = cluster.store.create(PODS, _pod("p", hostNetwork=True))
        _labelled(cluster, "team", {ENFORCE: "baseline", f"{ENFORCE}-version": "v1.30", WARN: "baseline"})
        path = "/api/v1/namespaces/team/pods/p"
        answer, warnings = await _patch(cluster, path, {"metadata": {"labels": {"a": "b"}}})
        assert (answer["metadata"]["labels"], warnings) == ({"a": "b"}, [])
        image = [{**pod["spec"]["containers"][0], "image": "busybox:2"}]
        answer, warnings = await _patch(cluster, path, {"spec": {"containers": image}})
        assert answer["code"] == 403
        assert (
            'violates PodSecurity "baseline:v1.30": host namespaces (hostNetwork=true)' in answer["message"]
        )
        # A refused pod gets no warning in addition.
        assert warnings == []


@virtual_time
async def test_invalid_labels_are_refused_when_they_are_set() -> None:
    labels = {ENFORCE: "nonsense", f"{AUDIT}-version": "1.30", WARN: "", f"{WARN}-version": "v1.030"}
    async with SimulatedCluster(nodes=1) as cluster:
        with pytest.raises(ApiError) as refused:
            cluster.store.create(NAMESPACES, {"metadata": {"name": "team", "labels": labels}})
        causes = [(cause["field"], cause["message"]) for cause in refused.value.status["details"]["causes"]]
        levels, versions = "must be one of privileged, baseline, restricted", 'must be "latest" or "v1.x"'
        assert causes == [
            (f"metadata.labels[{ENFORCE}]", f'Invalid value: "nonsense": {levels}'),
            (f"metadata.labels[{AUDIT}-version]", f'Invalid value: "1.30": {versions}'),
            (f"metadata.labels[{WARN}]", f'Invalid value: "": {levels}'),
            (f"metadata.labels[{WARN}-version]", f'Invalid value: "v1.030": {versions}'),
        ]


_SECCOMP = "spec.containers[0].securityContext.seccompProfile"


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (_spec({"seccompProfile": {}}), f"{_SECCOMP}.type",
         "Required value: type is required when seccompProfile is set"),
        (_spec({"seccompProfile": {"type": "Strict"}}), f"{_SECCOMP}.type",
         'Unsupported value: "Strict": supported values: "Localhost", "RuntimeDefault", "Unconfined"'),
        (_spec({"seccompProfile": {"type": "Localhost"}}), f"{_SECCOMP}.localhostProfile",
         "Required value: must be set when seccomp type is Localhost"),
        (_spec(pod={"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "a.json"}}),
         "spec.securityContext.seccompProfile.localhostProfile",
         'Invalid value: {"Type":"RuntimeDefault","LocalhostProfile":"a.json"}: can only be set when seccomp type '
         "is Localhost"),
        (_spec({"seccompProfile": {"type": "Localhost", "localhostProfile": "/a.json"}}),
         f"{_SECCOMP}.localhostProfile", 'Invalid value: "/a.json": must be a relative path'),
        (_spec({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/../b.json"}}),
         f"{_SECCOMP}.localhostProfile", "Invalid value: \"a/../b.json\": must not contain '..'"),
        (_spec({"runAsUser": -1}), "spec.containers[0].securityContext.runAsUser",
         "Invalid value: -1: must be between 0 and 2147483647, inclusive"),
        (_spec(pod={"fsGroup": 2**31}), "spec.securityContext.fsGroup",
         "Invalid value: 2147483648: must be between 0 and 2147483647, inclusive"),
        (_spec(pod={"supplementalGroups": [1, -1]}), "spec.securityContext.supplementalGroups[1]",
         "Invalid value: -1: must be between 0 and 2147483647, inclusive"),
        (_spec(pod={"fsGroupChangePolicy": "Never"}), "spec.securityContext.fsGroupChangePolicy",
         'Unsupported value: "Never": supported values: "Always", "OnRootMismatch"'),
    ],
)  # fmt: skip
@virtual_time
async def test_an_invalid_security_context_is_refused(spec: JsonObject, field: str, message: str) -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        with pytest.raises(ApiError) as refused:
            cluster.store.create(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    assert refused.value.status["code"] == 422
    causes = [(cause["field"], cause["message"]) for cause in refused.value.status["details"]["causes"]]
    assert causes == [(field, message)]


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"privileged": True}, "`privileged` to true"),
        ({"capabilities": {"add": ["CAP_SYS_ADMIN"]}}, "`capabilities.Add` CAP_SYS_ADMIN"),
    ],
)
@virtual_time
async def test_contradictory_security_settings_are_refused(context: JsonObject, words: str) -> None:
    async with SimulatedCluster(nodes=1) as cluster:
        pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": _spec(context)}
        with pytest.raises(ApiError) as refused:
            cluster.store.create(PODS, pod)
    (cause,) = refused.value.status["details"]["causes"]
    assert cause["field"] == "spec.containers[0].securityContext"
    assert cause["message"].endswith(f"cannot set `allowPrivilegeEscalation` to false and {words}")
