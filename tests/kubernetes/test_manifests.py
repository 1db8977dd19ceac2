"""Every value of a container appears in its manifest.

Values that are internal to Pilothouse do not.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse_server.containers import manifests, model, rules
from pilothouse_server.errors import InvalidArgument
from pilothouse_server.kubernetes.ownership import CONTAINER_UID, MANAGED_BY, NAMESPACE_UID
from pilothouse_server.namespaces.manifests import namespace_manifest
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.values.resources import NamespaceId
from pilothouse_server.values.volumes import VolumeMount
from tests.kubernetes.containers import container

# Whole containers are large, and the cost of the tests depends on the number of examples.
few = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

word = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
text = st.text(max_size=12)
said = st.text(min_size=1, max_size=12)
number = st.integers(1, 32767)
flag = st.none() | st.booleans()
identity = st.none() | st.integers(0, 2**31)

seccomp = st.none() | st.builds(model.SeccompProfile, type=said, localhost_profile=text)
handlers = st.one_of(
    st.builds(
        model.HttpGet,
        path=said,
        port=number,
        port_name=st.just("") | word,
        scheme=st.sampled_from(["HTTP", "HTTPS"]),
        host=text,
        http_headers=st.lists(st.builds(model.HttpHeader, name=said, value=text), max_size=2).map(tuple),
    ),
    st.builds(model.TcpSocket, port=number, port_name=st.just("") | word, host=text),
    st.builds(model.Exec, command=st.lists(said, min_size=1, max_size=3).map(tuple)),
    st.builds(model.Grpc, port=number, service=text),
)
probes = st.none() | st.builds(
    model.Probe,
    handler=handlers,
    initial_delay_seconds=st.integers(0, 99),
    period_seconds=st.integers(0, 99),
    timeout_seconds=st.integers(0, 99),
    success_threshold=st.integers(0, 9),
    failure_threshold=st.integers(0, 9),
    termination_grace_seconds=st.integers(0, 99),
)
resources = st.builds(
    model.Resources,
    cpu_request=st.sampled_from(["", "10m", "2"]),
    cpu_limit=st.sampled_from(["", "500m"]),
    memory_request=st.sampled_from(["", "64Mi"]),
    memory_limit=st.sampled_from(["", "1Gi"]),
)
variables = st.one_of(
    st.builds(model.EnvVar, name=said, value=text),
    st.builds(
        model.EnvVar,
        name=said,
        value_from=st.sampled_from(["config_map", "secret"]),
        source_name=word,
        source_key=word,
        optional=st.booleans(),
    ),
    st.builds(model.EnvVar, name=said, value_from=st.just("field_ref"), source_key=st.just("status.podIP")),
)
env = st.lists(variables, max_size=4, unique_by=lambda variable: variable.name).map(tuple)
mounts = st.lists(
    st.builds(VolumeMount, volume=word, mount_path=said, read_only=st.booleans(), sub_path=text),
    max_size=2,
).map(tuple)
container_security = st.none() | st.builds(
    model.SecurityContext,
    run_as_user=identity,
    run_as_group=identity,
    run_as_non_root=flag,
    allow_privilege_escalation=flag,
    privileged=flag,
    read_only_root_filesystem=flag,
    capabilities_add=st.lists(said, max_size=2).map(tuple),
    capabilities_drop=st.lists(said, max_size=2).map(tuple),
    seccomp_profile=seccomp,
)
pod_security = st.none() | st.builds(
    model.PodSecurityContext,
    run_as_user=identity,
    run_as_group=identity,
    run_as_non_root=flag,
    fs_group=identity,
    fs_group_change_policy=text,
    supplemental_groups=st.lists(st.integers(0, 99), max_size=2).map(tuple),
    seccomp_profile=seccomp,
)
hooks = st.none() | st.builds(
    model.LifecycleHandler,
    handler=st.one_of(
        st.builds(model.Exec, command=st.lists(said, min_size=1, max_size=2).map(tuple)),
        st.builds(model.HttpGet, path=said, port=number, host=text),
        st.builds(model.Sleep, seconds=st.integers(0, 9)),
    ),
)
lifecycles = st.builds(model.Lifecycle, post_start=hooks, pre_stop=hooks)
program = {
    "name": word,
    "image": said,
    "command": st.lists(said, max_size=2).map(tuple),
    "args": st.lists(said, max_size=2).map(tuple),
    "env": env,
    "volume_mounts": mounts,
    "resources": resources,
    "security_context": container_security,
    "image_pull_policy": st.sampled_from(["", "Always"]),
    "ports": st.lists(
        st.builds(
            model.ProgramPort, container_port=number, name=st.just("") | word, host_port=st.none() | number
        ),
        max_size=2,
    ).map(tuple),
    "probes": st.builds(model.Probes, liveness=probes, readiness=probes, startup=probes),
    "lifecycle": lifecycles,
}
init_containers = st.lists(
    st.builds(model.InitContainer, **program, restart_policy=st.sampled_from(["", "Always"])), max_size=2
).map(tuple)
specs = st.builds(
    model.ContainerSpec,
    command=st.lists(said, max_size=2).map(tuple),
    args=st.lists(said, max_size=2).map(tuple),
    empty_dirs=st.lists(
        st.builds(
            model.EmptyDir,
            name=word,
            medium=st.sampled_from(["", "Memory", "HugePages-2Mi"]),
            size_limit=st.just("") | said,
        ),
        max_size=2,
        unique_by=lambda empty_dir: empty_dir.name,
    ).map(tuple),
    probes=st.builds(model.Probes, liveness=probes, readiness=probes, startup=probes),
    security_context=container_security,
    pod_security_context=pod_security,
    lifecycle=lifecycles,
    sidecars=st.lists(st.builds(model.Program, **program), max_size=2).map(tuple),
    init_containers=init_containers,
    service_account=st.just("") | word,
    image_pull_secrets=st.lists(word, max_size=2, unique=True).map(tuple),
    node_selector=st.dictionaries(word, word, max_size=2),
    tolerations=st.lists(
        st.builds(
            model.Toleration,
            key=text,
            operator=text,
            value=text,
            effect=text,
            toleration_seconds=st.none() | st.integers(0, 9),
        ),
        max_size=2,
    ).map(tuple),
    termination_grace_seconds=st.none() | st.integers(0, 99),
    image_pull_policy=st.sampled_from(["", "IfNotPresent"]),
    pod_container_name=word,
    restarted_at=st.none() | st.just(datetime(2026, 11, 24, 14, 0, 0, 5, UTC)),
)
ports = st.lists(
    st.builds(
        model.Port,
        container_port=number,
        name=st.just("") | word,
        host_port=st.none() | number,
        protocol=st.sampled_from(["TCP", "UDP"]),
        service_name=word,
        service_port=number,
        node_port=st.none() | st.integers(30000, 32767),
        service_type=st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "Headless", "None"]),
        app_protocol=text,
    ),
    max_size=4,
    unique_by=lambda port: (port.container_port, port.protocol),
).map(tuple)
containers = st.builds(
    container,
    image=said,
    env=env,
    ports=ports,
    volume_mounts=mounts,
    resources=resources,
    labels=st.dictionaries(word, word, max_size=2),
    annotations=st.dictionaries(word, said, max_size=2),
    spec=specs,
    hold_rollout=st.booleans(),
)


def leaves(value: Any) -> list[Any]:
    """Returns every scalar of a JSON value of any shape, dictionary keys included."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in [key, *leaves(item)]]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


# The cluster's names for the words of the model.
TRANSLATED = {"config_map": "configMapKeyRef", "secret": "secretKeyRef", "field_ref": "fieldRef"}
# Values that other objects than the pod contain; separate tests check them.
ELSEWHERE = {
    *("type", "service_type", "service_name", "service_port", "node_port", "app_protocol", "protocol"),
    "run",
}


def statements(value: Any) -> list[Any]:
    """Returns the values that the manifest must contain; msgspec omits defaults."""
    if isinstance(value, model.Probe):
        counts = [n for n in msgspec.structs.astuple(value)[1:] if n]
        return counts + statements(value.handler)
    if isinstance(value, model.HttpGet | model.TcpSocket) and value.port_name:
        # A port's name replaces its number.
        value = msgspec.structs.replace(value, port=0)
    if isinstance(value, model.EnvVar):
        return [
            TRANSLATED.get(leaf, leaf) for leaf in leaves(msgspec.to_builtins(value)) if leaf not in FIELDS
        ]
    if isinstance(value, msgspec.Struct):
        return [
            leaf
            for name in value.__struct_fields__
            if name not in ELSEWHERE or isinstance(value, model.SeccompProfile)
            for leaf in statements(getattr(value, name))
        ]
    if isinstance(value, tuple):
        return [leaf for item in value for leaf in statements(item)]
    if isinstance(value, dict):
        return leaves(value)
    if isinstance(value, datetime):
        return [manifests.timestamp(value)]
    # An empty value is not sent.
    return [] if value is None or value == "" or value is False or value == 0 else [value]


FIELDS = set(model.EnvVar.__struct_fields__)


@few
@given(containers)
def test_every_value_of_a_container_is_sent(subject: model.Container) -> None:
    sent = leaves(manifests.workload(subject))
    wanted = [
        *statements(subject.spec),
        *statements(subject.env),
        *statements(subject.volume_mounts),
        *statements(subject.resources),
        *statements(subject.labels),
        *statements(subject.annotations),
        subject.image,
        *(port.container_port for port in subject.ports),
        *(port.host_port for port in subject.ports if port.host_port),
    ]
    for statement in wanted:
        assert statement in sent


@few
@given(containers)
def test_an_explicit_false_is_sent(subject: model.Container) -> None:
    main = manifests.workload(subject)["spec"]["template"]["spec"]["containers"][0]
    security = subject.spec.security_context
    for name, key in (
        ("run_as_non_root", "runAsNonRoot"),
        ("privileged", "privileged"),
        ("run_as_user", "runAsUser"),
    ):
        wanted = getattr(security, name) if security else None
        assert main.get("securityContext", {}).get(key) == wanted


@few
@given(containers)
def test_replicas_are_never_sent_and_nothing_is_null(subject: model.Container) -> None:
    manifest = manifests.workload(subject, replicas_set=3)
    assert "replicas" not in manifest["spec"]
    assert manifest["metadata"]["annotations"][manifests.REPLICAS_SET] == "3"
    assert None not in leaves(manifest)


@few
@given(containers)
def test_list_keys_of_server_side_apply_are_unique(subject: model.Container) -> None:
    main = manifests.workload(subject)["spec"]["template"]["spec"]["containers"][0]
    keys = [(port["containerPort"], port["protocol"]) for port in main.get("ports", [])]
    assert len(keys) == len(set(keys))
    names = [port["name"] for port in main.get("ports", []) if "name" in port]
    assert len(names) == len(set(names))


@few
@given(containers)
def test_pods_have_the_uid_label_and_are_selected_only_by_it(subject: model.Container) -> None:
    spec = manifests.workload(subject)["spec"]
    assert spec["selector"] == {"matchLabels": {CONTAINER_UID: subject.uid}}
    assert spec["template"]["metadata"]["labels"][CONTAINER_UID] == subject.uid


@few
@given(containers)
def test_every_port_with_a_service_appears_in_it(subject: model.Container) -> None:
    services = {service["metadata"]["name"]: service["spec"] for service in manifests.services(subject)}
    assert set(services) == {port.service_name for port in subject.ports if port.service_type != "None"}
    for port in subject.ports:
        if port.service_type == "None":
            continue
        spec = services[port.service_name]
        assert spec["selector"] == {CONTAINER_UID: subject.uid}
        found = [p for p in spec["ports"] if (p["port"], p["protocol"]) == (port.service_port, port.protocol)]
        assert port.container_port in [p["targetPort"] for p in found]
        assert port.app_protocol in [p.get("appProtocol", "") for p in found]
        assert port.node_port in [p.get("nodePort") for p in found]


def test_a_name_too_long_for_a_pod_port_is_used_only_by_the_service() -> None:
    name = "a" * 63
    subject = container(
        ports=(model.Port(8080, name=name, service_name="web", service_port=80, service_type="ClusterIP"),)
    )
    (service,) = manifests.services(rules.checked(subject))
    assert service["spec"]["ports"][0]["name"] == name
    (main,) = manifests.workload(subject)["spec"]["template"]["spec"]["containers"]
    assert main["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]


@pytest.mark.parametrize("name", ["a" * 16, "80", "a--b"])
def test_the_name_of_a_port_without_a_service_must_be_valid_for_pods(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        rules.checked(container(ports=(model.Port(8080, name=name, service_type="None"),)))
    (violation,) = refused.value.violations
    assert violation.field == "container.ports[0].name"
    assert "at most 15" in violation.description


def test_one_port_behind_two_services_is_one_port_of_the_pod() -> None:
    subject = container(
        ports=(
            model.Port(container_port=8080, name="http", service_name="front", service_port=80),
            model.Port(
                container_port=8080,
                name="http",
                service_name="front-external",
                service_port=80,
                service_type="LoadBalancer",
            ),
        )
    )
    main = manifests.workload(subject)["spec"]["template"]["spec"]["containers"][0]
    assert main["ports"] == [{"containerPort": 8080, "protocol": "TCP", "name": "http"}]
    front, external = manifests.services(subject)
    assert (front["spec"]["type"], external["spec"]["type"]) == ("ClusterIP", "LoadBalancer")


def test_a_headless_service_is_a_cluster_ip_service_without_an_address() -> None:
    port = model.Port(container_port=5432, service_name="db", service_port=5432, service_type="Headless")
    spec = manifests.services(container(ports=(port,)))[0]["spec"]
    assert (spec["type"], spec["clusterIP"]) == ("ClusterIP", "None")


def test_callers_may_set_managed_by_on_pods_but_not_on_objects() -> None:
    ports = (model.Port(container_port=80, service_name="web", service_port=80),)
    spec = model.ContainerSpec(pod_labels={MANAGED_BY: "Helm"})
    subject = container(labels={MANAGED_BY: "Helm"}, spec=spec, ports=ports)
    deployment = manifests.workload(subject)
    assert deployment["spec"]["template"]["metadata"]["labels"][MANAGED_BY] == "Helm"
    (service,) = manifests.services(subject)
    for made in (deployment, service):
        assert made["metadata"]["labels"][MANAGED_BY] == "pilothouse"
    plain = manifests.workload(container())
    assert plain["spec"]["template"]["metadata"]["labels"][MANAGED_BY] == "pilothouse"


def test_callers_cannot_override_labels_of_the_platform() -> None:
    stolen = {
        MANAGED_BY: "helm",
        CONTAINER_UID: "other",
        "app.kubernetes.io/name": "mine",
    }
    spec = model.ContainerSpec(pod_labels=stolen)
    made = manifests.workload(container(labels=stolen, spec=spec))
    assert made["spec"]["template"]["metadata"]["labels"][CONTAINER_UID] == container().uid
    labels = made["metadata"]["labels"]
    assert labels[MANAGED_BY] == "pilothouse"
    assert labels[CONTAINER_UID] == container().uid
    assert labels["app.kubernetes.io/name"] == "mine"


def test_a_deployment_that_must_not_start_is_created_paused() -> None:
    assert manifests.workload(container(), held=True)["spec"]["paused"] is True
    # The field is sent, because other managers could set it otherwise.
    assert manifests.workload(container())["spec"]["paused"] is False
    assert manifests.workload(container(hold_rollout=True))["spec"]["paused"] is True


def test_a_service_account_belongs_to_the_namespace() -> None:
    assert manifests.service_account(container()) is None
    account = manifests.service_account(container(spec=model.ContainerSpec(service_account="web")))
    assert account is not None
    assert CONTAINER_UID not in account["metadata"]["labels"]


def test_a_namespace_has_the_label_of_its_uid() -> None:
    value = Namespace(
        id=NamespaceId(1),
        uid="u",
        name="shop",
        kubernetes_name="team-shop",
        cluster_name="local",
        labels={"team": "a"},
        annotations={"note": "b"},
    )
    metadata = namespace_manifest(value)["metadata"]
    assert metadata["name"] == "team-shop"
    assert metadata["labels"]["team"] == "a"
    assert metadata["labels"][NAMESPACE_UID] == "u"
    assert metadata["annotations"] == {"note": "b"}
