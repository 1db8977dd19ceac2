"""Conversion of live Deployments to containers.

A round trip changes nothing, and nothing is dropped silently.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from pilothouse_server.containers import manifests, rules
from pilothouse_server.containers.model import (
    Container,
    ContainerSpec,
    EmptyDir,
    EnvVar,
    Exec,
    Grpc,
    HttpGet,
    HttpHeader,
    InitContainer,
    Lifecycle,
    LifecycleHandler,
    PodSecurityContext,
    Port,
    Probe,
    Probes,
    Program,
    ProgramPort,
    Resources,
    SeccompProfile,
    SecurityContext,
    Sleep,
    TcpSocket,
    Toleration,
)
from pilothouse_server.containers.own_volumes import (
    ConfigMapFiles,
    DownwardFile,
    DownwardFiles,
    KeyFile,
    OwnVolume,
    ProjectedConfigMap,
    ProjectedFields,
    ProjectedFiles,
    ProjectedSecret,
    ProjectedSource,
    SecretFiles,
    ServiceAccountToken,
)
from pilothouse_server.containers.owned_services import owned_services
from pilothouse_server.containers.workload_settings import DeploymentSettings
from pilothouse_server.importing import drift_adoption
from pilothouse_server.importing.deployments import convert, without_services
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.objects import DEPLOYMENTS, NAMESPACES, SERVICES, Manifest
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, NAMESPACE_UID
from pilothouse_server.network.manifests import SERVICE_UID
from pilothouse_server.reconcile.apply import additions
from pilothouse_server.values.key_patterns import KeyPatterns
from pilothouse_server.values.permitted_additions import PermittedAdditions
from pilothouse_server.values.resources import NamespaceRef
from pilothouse_server.values.volumes import VolumeMount
from pilothouse_simulator import SimulatedCluster
from tests.kubernetes.containers import container
from tests.translator.manifests import wanted

RICH: dict[str, Any] = {
    "image": "ghcr.io/team/app:1.2",
    "env": (
        EnvVar("A", "1"),
        EnvVar("EMPTY"),
        EnvVar("NODE", value_from="field_ref", source_key="spec.nodeName"),
        EnvVar("C", value_from="config_map", source_name="conf", source_key="c", optional=True),
        EnvVar("S", value_from="secret", source_name="cred", source_key="s"),
    ),
    "ports": (Port(8080, name="http", service_type="None"), Port(53, protocol="UDP", service_type="None")),
    "volume_mounts": (
        VolumeMount("cache", "/cache", sub_path="a"),
        VolumeMount("tmp", "/tmp", read_only=True),
    ),
    "resources": Resources("100m", "500m", "64Mi", "1Gi"),
    "labels": {"team": "a"},
    "annotations": {"note": "x"},
    "spec": ContainerSpec(
        command=("serve",),
        args=("--port", "8080"),
        empty_dirs=(EmptyDir("cache", size_limit="1Gi"), EmptyDir("tmp", "Memory")),
        pod_volumes=(
            OwnVolume("tls", SecretFiles("tls", default_mode=0, items=(KeyFile("crt", "a/crt", 0o400),))),
            OwnVolume("conf", ConfigMapFiles("conf", optional=True, default_mode=0o755)),
            OwnVolume("podinfo", DownwardFiles((DownwardFile("labels", "field_ref", "metadata.labels"),))),
            OwnVolume(
                "identity",
                ProjectedFiles(
                    (
                        ProjectedSource(ServiceAccountToken("token", "vault", 7200)),
                        ProjectedSource(ProjectedSecret("tls", items=(KeyFile("crt", "a/crt", 0o400),))),
                        ProjectedSource(ProjectedConfigMap("kube-root-ca.crt")),
                        ProjectedSource(
                            ProjectedFields(
                                (
                                    DownwardFile(
                                        "cpu", "resource_field_ref", "limits.cpu", "server", "1m", 0o444
                                    ),
                                )
                            )
                        ),
                    ),
                    default_mode=0o440,
                ),
            ),
        ),
        probes=Probes(
            liveness=Probe(
                HttpGet(path="/live", port_name="http", http_headers=(HttpHeader("X", "y"),)),
                period_seconds=3,
            ),
            readiness=Probe(TcpSocket(port=8080), success_threshold=2),
            startup=Probe(Exec(("true",)), failure_threshold=30),
        ),
        security_context=SecurityContext(
            run_as_user=1000,
            run_as_non_root=True,
            capabilities_drop=("ALL",),
            allow_privilege_escalation=False,
            seccomp_profile=SeccompProfile("Localhost", "profiles/web.json"),
        ),
        pod_security_context=PodSecurityContext(
            fs_group=2000, seccomp_profile=SeccompProfile("RuntimeDefault")
        ),
        lifecycle=Lifecycle(
            LifecycleHandler(HttpGet(path="/warm", port_name="http")), LifecycleHandler(Sleep(5))
        ),
        sidecars=(
            Program(
                "exporter",
                "exporter:1",
                env=(EnvVar("E", "1"),),
                volume_mounts=(VolumeMount("cache", "/cache", read_only=True),),
                resources=Resources("10m", "", "32Mi", ""),
                ports=(ProgramPort(9113, "metrics"), ProgramPort(53, protocol="UDP")),
                probes=Probes(readiness=Probe(HttpGet(path="/metrics", port_name="metrics"))),
                lifecycle=Lifecycle(pre_stop=LifecycleHandler(Exec(("flush",)))),
            ),
            Program("proxy", "envoy:1", args=("--quiet",)),
        ),
        init_containers=(
            InitContainer("prepare", "busybox:1", command=("true",), env=(EnvVar("I", "1"),)),
            InitContainer(
                "mesh",
                "mesh:1",
                probes=Probes(startup=Probe(TcpSocket(port=15021))),
                restart_policy="Always",
            ),
        ),
        service_account="robot",
        image_pull_secrets=("registry", "mirror"),
        node_selector={"disk": "ssd"},
        tolerations=(Toleration("gpu", "Exists", effect="NoExecute", toleration_seconds=60),),
        termination_grace_seconds=10,
        image_pull_policy="Always",
        pod_container_name="server",
    ),
}


@pytest_asyncio.fixture(loop_scope="session")
async def client() -> AsyncIterator[ClusterClient]:
    async with SimulatedCluster(speed=10, nodes=1) as simulated:
        client = await ClusterClient.from_kubeconfig(simulated.kubeconfig(), name="local")
        await client.apply(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        )
        yield client
        await client.close()


def theirs(subject: Container) -> Manifest:
    """Returns the Deployment as created by another tool, without Pilothouse's labels."""
    manifest = manifests.workload(subject)
    pods = {"app": "web"}
    manifest["metadata"]["labels"] = dict(subject.labels)
    manifest["spec"]["selector"] = {"matchLabels": pods}
    manifest["spec"]["template"]["metadata"] = {"labels": pods}
    return manifest


@pytest.mark.parametrize("fields", [RICH, {}], ids=["rich", "smallest"])
async def test_a_container_survives_a_round_trip_unchanged(
    client: ClusterClient, fields: dict[str, Any]
) -> None:
    subject = container(**fields)
    await client.apply(DEPLOYMENTS, theirs(subject))
    live = await client.read(DEPLOYMENTS, "shop", "web")
    converted = convert(live)
    assert converted.problems == ()
    found = converted.container
    for name in ("image", "env", "ports", "volume_mounts", "resources", "labels", "annotations", "replicas"):
        assert getattr(found, name) == getattr(subject, name), name
    assert found.spec.pod_labels == found.spec.selector == {"app": "web"}
    assert msgspec.structs.replace(found.spec, taken_over=None, pod_labels={}, selector={}) == subject.spec
    # Writing a default explicitly does not change the pods.
    again = rules.checked(msgspec.structs.replace(found, uid=subject.uid))
    after = await client.dry_run(DEPLOYMENTS, manifests.workload(again), force=True)
    assert after["spec"] == live["spec"]


def bare(**pod: Any) -> Manifest:
    return {
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "uid": "d-1"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "nginx:1.27"}], **pod},
            },
        },
    }


def changed(path: tuple[str | int, ...], value: Any) -> Manifest:
    manifest = bare()
    place: Any = manifest
    for step in path[:-1]:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
    place[path[-1]] = value
    return manifest


POD = ("spec", "template", "spec")
MAIN = (*POD, "containers", 0)


def find(document: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def with_volumes(*sources: dict[str, Any]) -> Manifest:
    """Returns a manifest with volumes `v0`, `v1` ..., each mounted."""
    manifest = changed((*POD, "volumes"), [{"name": f"v{i}"} | each for i, each in enumerate(sources)])
    mounts = [{"name": f"v{i}", "mountPath": f"/{i}"} for i in range(len(sources))]
    manifest["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = mounts
    return manifest


CLAIM = {"persistentVolumeClaim": {"claimName": "data"}}


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (
            changed((*MAIN, "lifecycle"), {"postStart": {"tcpSocket": {"port": 1}}}),
            "containers[main].lifecycle.postStart",
        ),
        (
            changed((*POD, "containers"), [{"name": "main", "image": "a:1"}, {"name": "b", "image": "B"}]),
            "containers[b].image",
        ),
        (changed((*MAIN, "resources"), {"limits": {"gpu": "1"}}), "resources.limits.gpu"),
        (
            changed((*MAIN, "env"), [{"name": "X", "valueFrom": {"fileKeyRef": {"key": "k"}}}]),
            "env[X].valueFrom.fileKeyRef",
        ),
        (changed((*MAIN, "ports"), [{"containerPort": 1, "protocol": "SCTP"}]), "ports[1].protocol"),
        (changed((*MAIN, "image"), "UPPER"), "containers[main].image"),
        (
            with_volumes({"projected": {"sources": [{"clusterTrustBundle": {"path": "a"}}]}}),
            ".clusterTrustBundle",
        ),
        (with_volumes({"hostPath": {"path": "/"}}), "volumes[v0].hostPath"),
        (with_volumes(CLAIM, CLAIM), "volumes[v1]: its name on the platform would be that of volume v0"),
        (
            with_volumes(CLAIM, {"name": "data", "emptyDir": {}}),
            "but another volume of the pods has that name",
        ),
        (changed((*POD, "volumes"), [{"name": "v", **CLAIM}]), "volumes[v]: no container mounts it"),
        (changed(("metadata", "deletionTimestamp"), "now"), "it is being deleted"),
        (
            changed(("metadata", "ownerReferences"), [{"kind": "Operator", "name": "x", "controller": True}]),
            "Operator x controls it",
        ),
        (changed(("metadata", "labels"), {CONTAINER_UID: "u"}), "belongs to a container already"),
        (changed(("metadata", "name"), "a" * 64), "is not a container name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_that_cannot_be_represented_prevents_the_import(manifest: Manifest, told: str) -> None:
    assert any(told in problem for problem in convert(manifest).problems)
    assert convert(bare()).problems == ()


# Fields that the model lacks, with their paths as extra fields.
KEPT: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "spec.fieldOfALaterRelease": (("spec", "fieldOfALaterRelease"), 5),
    "spec.template.spec.affinity": ((*POD, "affinity"), {"podAntiAffinity": {"a": 1}}),
    "spec.template.spec.dnsPolicy": ((*POD, "dnsPolicy"), "None"),
    "spec.template.spec.enableServiceLinks": ((*POD, "enableServiceLinks"), False),
    "spec.template.spec.shareProcessNamespace": ((*POD, "shareProcessNamespace"), False),
    "spec.template.spec.hostUsers": ((*POD, "hostUsers"), False),
    "spec.template.spec.initContainers[name=i].tty": (
        (*POD, "initContainers"),
        [{"name": "i", "image": "a:1", "tty": True}],
    ),
    "spec.template.spec.securityContext.sysctls": (
        (*POD, "securityContext"),
        {"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]},
    ),
    "spec.template.spec.containers[name=main].workingDir": ((*MAIN, "workingDir"), "/srv"),
    "spec.template.spec.containers[name=main].lifecycle.stopSignal": (
        (*MAIN, "lifecycle"),
        {"stopSignal": "SIGUSR1"},
    ),
    "spec.template.spec.containers[name=main].ports[containerPort=80,protocol=TCP].hostIP": (
        (*MAIN, "ports"),
        [{"containerPort": 80, "protocol": "TCP", "hostIP": "10.0.0.1"}],
    ),
    "spec.template.spec.containers[name=main].readinessProbe.odd": (
        (*MAIN, "readinessProbe"),
        {"exec": {"command": ["true"]}, "odd": 1},
    ),
}


@pytest.mark.parametrize("path", KEPT)
def test_a_field_that_the_model_lacks_is_stored_in_extra_fields(path: str) -> None:
    place, value = KEPT[path]
    converted = convert(changed(place, value))
    assert converted.problems == ()
    assert list(converted.container.spec.extra_fields) == [path]
    assert find(manifests.workload(rules.checked(converted.container)), place) == find(
        changed(place, value), place
    )


def test_an_import_and_a_written_manifest_have_the_same_extra_fields() -> None:
    for place, value in KEPT.values():
        live = changed(place, value)
        written = {"apiVersion": "apps/v1", "kind": "Deployment", **live, "metadata": {"name": "web"}}
        (said,) = wanted(json.dumps(written))
        assert said.values["extra_fields"] == convert(live).container.spec.extra_fields


def test_fields_without_effect_on_pods_stay_on_the_cluster_and_are_named() -> None:
    manifest = bare()
    manifest["metadata"]["finalizers"] = ["example.com/hold"]
    manifest["spec"]["template"]["metadata"] |= {"name": "web", "creationTimestamp": None}
    converted = convert(manifest)
    assert converted.problems == ()
    assert converted.left_there == ("metadata.finalizers", "spec.template.metadata.name")


@pytest.mark.parametrize(
    "path",
    [
        *((*POD, key) for key in ("hostNetwork", "hostPID", "hostIPC")),
        *((*MAIN, key) for key in ("stdin", "stdinOnce", "tty")),
    ],
    ids=str,
)
def test_a_false_that_is_the_default_is_ignored(path: tuple[str | int, ...]) -> None:
    converted = convert(changed(path, False))
    assert converted.problems == ()
    assert converted.container.spec.extra_fields == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("allocateLoadBalancerNodePorts", False),
        ("sessionAffinity", "ClientIP"),
        ("externalTrafficPolicy", "Local"),
        ("publishNotReadyAddresses", True),
        ("ipFamilyPolicy", "PreferDualStack"),
        ("externalIPs", ["192.0.2.1"]),
    ],
)
def test_a_service_with_fields_that_ports_lack_is_not_imported(key: str, value: Any) -> None:
    service: Manifest = {
        "metadata": {"name": "front", "namespace": "shop"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    assert convert(bare(), [service]).left_alone == ()
    service["spec"][key] = value
    converted = convert(bare(), [service])
    (told,) = converted.left_alone
    assert told.startswith(f"Service front: spec.{key}: ")
    assert converted.container.ports == ()


def test_optional_volumes_become_separate_volumes() -> None:
    shown = {"configMap": {"name": "c", "optional": True}}, {"secret": {"secretName": "s", "optional": True}}
    converted = convert(with_volumes(*shown, {"configMap": {"name": "c", "optional": False}}))
    assert converted.problems == ()
    volumes = {volume.name: volume for volume in converted.container.volumes}
    assert {name: volume.optional for name, volume in volumes.items()} == {
        "configmap-c": False,
        "optional-configmap-c": True,
        "optional-secret-s": True,
    }
    written = manifests.workload(converted.container)["spec"]["template"]["spec"]["volumes"]
    assert [each["configMap"] for each in written if "configMap" in each] == [
        {"name": "c", "optional": True},
        {"name": "c"},
    ]


def test_deployments_at_zero_are_stopped_and_paused_ones_hold_the_rollout() -> None:
    assert convert(bare()).container.desired_state == "running"
    stopped = convert(changed(("spec", "replicas"), 0)).container
    assert (stopped.desired_state, stopped.replicas, stopped.wanted_replicas) == ("stopped", 1, 0)
    assert convert(changed(("spec", "paused"), True)).container.hold_rollout


def test_a_grpc_probe_and_a_name_with_dots_are_converted() -> None:
    manifest = changed((*MAIN, "livenessProbe"), {"grpc": {"port": 9, "service": "s"}})
    manifest["metadata"]["name"] = "web.v1"
    found = convert(manifest).container
    assert found.spec.probes.liveness == Probe(Grpc(9, "s"))
    assert (found.name, found.kubernetes_name) == ("web-v1", "web.v1")


async def test_services_keep_their_selectors_names_and_targets(client: ClusterClient) -> None:
    subject = container(ports=(Port(8080, name="http", service_type="None"),))
    await client.apply(DEPLOYMENTS, theirs(subject))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "front", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    other = msgspec.json.decode(msgspec.json.encode(service))
    other["metadata"]["name"], other["spec"]["selector"] = "other", {"app": "else"}
    for each in (service, other):
        await client.apply(SERVICES, each)
    there = [await client.read(SERVICES, "shop", name) for name in ("front", "other")]
    converted = convert(await client.read(DEPLOYMENTS, "shop", "web"), there)
    found = msgspec.structs.replace(
        converted.container, uid=subject.uid, namespace_ref=NamespaceRef(uid="u", kubernetes_name="shop")
    )
    (manifest,) = manifests.services(found)
    after = await client.dry_run(SERVICES, manifest, force=True)
    assert after["spec"] == there[0]["spec"]
    (owned,) = owned_services(found)
    assert after["metadata"]["labels"] == {
        CONTAINER_UID: subject.uid,
        NAMESPACE_UID: "u",
        SERVICE_UID: owned.uid,
    }
    # A port that is added later selects the same pods.
    added = Port(9090, name="admin", service_name="admin", service_port=9090)
    more = manifests.services(msgspec.structs.replace(found, ports=(*found.ports, added)))
    assert more[1]["spec"]["selector"] == {"app": "web"}
    alone = without_services(converted, {"front": "because"})
    assert manifests.services(alone.container) == []
    assert alone.left_alone == ("Service front: because",)


def test_adoption_stores_fields_that_the_model_lacks_in_extra_fields() -> None:
    main, affinity = "spec.template.spec.containers[name=main]", "spec.template.spec.affinity"
    before = {f"{main}.tty": "true", f"{affinity}.podAffinity": "{}", "spec.template.spec.hostname": '"a"'}
    subject = container(spec=ContainerSpec(extra_fields=before))
    live = msgspec.json.decode(msgspec.json.encode(manifests.workload(subject)))
    pod = live["spec"]["template"]["spec"]
    pod["dnsConfig"], pod["hostNetwork"] = {"nameservers": ["192.0.2.1"]}, True
    term = {"topologyKey": "zone"}
    pod["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    pod["containers"].append({"name": "miner", "image": "busybox:1", "tty": True})
    del pod["containers"][0]["tty"]
    paths = [
        ".spec.template.spec.dnsConfig.nameservers",
        ".spec.template.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution",
        '.spec.template.spec.containers[name="main"].tty',
        '.spec.template.spec.containers[name="miner"]',
        ".spec.template.spec.hostNetwork",
    ]
    found = drift_adoption.adopt_allowed(subject, live, paths, KeyPatterns(""))
    assert {path: json.loads(text) for path, text in found.spec.extra_fields.items()} == {
        "spec.template.spec.hostname": "a",
        "spec.template.spec.dnsConfig": {"nameservers": ["192.0.2.1"]},
        affinity: pod["affinity"],
    }
    adopted = [path for path in paths if drift_adoption.is_adopted(found, live, path)]
    assert adopted == paths[:3]


def test_adoption_takes_over_only_the_named_fields() -> None:
    subject = container(env=(EnvVar("A", "1"), EnvVar("B", "2")), labels={"team": "a"})
    live = msgspec.json.decode(msgspec.json.encode(manifests.workload(subject)))
    main = live["spec"]["template"]["spec"]["containers"][0]
    main["image"], main["env"] = "nginx:2", [{"name": "B", "value": "3"}]
    live["spec"]["strategy"] = {"type": "Recreate"}
    at = '.spec.template.spec.containers[name="main"]'
    found = drift_adoption.adopt(subject, live, [f'{at}.env[name="A"]', f'{at}.env[name="B"].value'])
    assert found.env == (EnvVar("B", "3"),)
    assert found.image == subject.image
    assert drift_adoption.is_adopted(found, live, f'{at}.env[name="B"].value')
    assert not drift_adoption.is_adopted(found, live, f"{at}.image")
    assert drift_adoption.adopt(subject, live, [".metadata.labels.pilothouse.dev/x"]) == subject
    recreated = drift_adoption.adopt(subject, live, [".spec.strategy.type"])
    assert recreated.spec.workload == DeploymentSettings(strategy="Recreate")
    assert drift_adoption.is_adopted(recreated, live, ".spec.strategy.type")


@pytest.mark.parametrize("key", ["name", "generateName"])
def test_a_name_in_the_template_is_not_drift(key: str) -> None:
    subject = container()
    manifest, live = manifests.workload(subject), manifests.workload(subject)
    live["spec"]["template"]["metadata"][key] = "web"
    assert additions.candidates(manifest, live, PermittedAdditions("")) == []
    live["spec"]["template"]["spec"]["hostname"] = "web"
    assert additions.candidates(manifest, live, PermittedAdditions("")) == [".spec.template.spec.hostname"]
