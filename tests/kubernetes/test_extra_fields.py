"""Extra fields: their allowed paths, and the resulting fields in the Deployment."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pilothouse_manifests.extra_fields import PathError, parse
from pilothouse_server.containers import manifests, rules
from pilothouse_server.containers.extra_fields import check_by_schema, schemas_of
from pilothouse_server.containers.findings import Findings
from pilothouse_server.containers.model import Container, ContainerSpec, InitContainer
from pilothouse_server.errors import InvalidArgument
from tests.kubernetes.containers import container

POD = "spec.template.spec"
MAIN = f"{POD}.containers[name=main]"


def with_fields(**spec: Any) -> Container:
    return container(spec=ContainerSpec(**spec))


def by_schema(found: Findings, checked: Container, version: str) -> None:
    known, complete = schemas_of(version)
    check_by_schema(found, checked, known, complete=complete)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.finalizers", "must begin with spec., and name a field below it"),
        ("spec", "must begin with spec., and name a field below it"),
        (
            "spec.selector.matchLabels",
            "is set by the platform; in a template, only fields below spec.template.spec are free",
        ),
        (
            "spec.template.metadata.name",
            "is set by the platform; in a template, only fields below spec.template.spec are free",
        ),
        (POD, "is set by the platform; in a template, only fields below spec.template.spec are free"),
        ("spec.replicas", "is set by a field of the API: replicas"),
        ("spec.paused", "is set by a field of the API: hold_rollout"),
        ("spec.strategy", "is set by a field of the API"),
        ("spec.strategy.type", "is set by a field of the API: deployment.strategy"),
        (f"{POD}.nodeSelector.disk", "is set by a field of the API: node_selector"),
        (f"{POD}.serviceAccount", "is set by a field of the API: service_account"),
        (f"{POD}.securityContext", "is set by a field of the API: pod_security_context"),
        (f"{POD}.tolerations", "is set by a field of the API: tolerations"),
        (f"{POD}.containers", "must name an item of containers by [name=…], and a field below it"),
        (MAIN, "must name an item of containers by [name=…], and a field below it"),
        (
            f"{POD}.containers[image=a].tty",
            "must name an item of containers by [name=…], and a field below it",
        ),
        (f"{MAIN}.image", "is set by a field of the API: image"),
        (f"{MAIN}.env[name=A].value", "is set by a field of the API: env"),
        (f"{MAIN}.envFrom", "is set by a field of the API: env_from"),
        (f"{MAIN}.resources.limits.gpu", "is set by a field of the API: resources"),
        (f"{POD}.resources", "is set by a field of the API: pod_resources"),
        (f"{POD}.resources.limits", "is set by a field of the API: pod_resources"),
        (f"{POD}.resources.requests.cpu", "is set by a field of the API: pod_resources.cpu_request"),
        (f"{MAIN}.livenessProbe.httpGet.port", "is set by a field of the API: probes.liveness.port"),
        *(
            (
                f"{POD}.volumes[name=a].{key}",
                f"is set by fields of the API: volumes, empty_dirs and pod_volumes set {key}",
            )
            for key in ("secret", "projected", "downwardAPI", "persistentVolumeClaim")
        ),
        (
            f"{POD}.topologySpreadConstraints[topologyKey=zone].maxSkew",
            "must set the whole list topologySpreadConstraints: its items cannot be set separately",
        ),
        (f"{POD}.nodeSelector[a", "must be a path such as spec.template.spec.containers[name=main].tty"),
        (f"{POD}.x[]", "must be a path such as spec.template.spec.containers[name=main].tty"),
    ],
)
def test_a_path_that_is_not_allowed_is_refused(path: str, expected: str) -> None:
    with pytest.raises(PathError) as refused:
        parse(path)
    assert str(refused.value) == expected


def test_fields_are_written_at_their_paths() -> None:
    affinity: dict[str, Any] = {
        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    }
    spread = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    subject = rules.checked(
        with_fields(
            init_containers=(InitContainer("init", "busybox:1"),),
            extra_fields={
                f".{POD}.affinity": msgspec.json.encode(affinity).decode(),
                f"{POD}.topologySpreadConstraints": msgspec.json.encode(spread).decode(),
                f'{POD}.containers[name="main"].tty': "true",
                f"{MAIN}.securityContext.procMount": '"Default"',
                f"{MAIN}.resources.claims": '[{"name": "a"}]',
                f"{POD}.initContainers[name=init].workingDir": '"/srv"',
                f"{POD}.volumes[name=scratch].ephemeral": '{"volumeClaimTemplate": {"spec": {}}}',
            },
        )
    )
    assert f"{POD}.affinity" in subject.spec.extra_fields
    assert f"{MAIN}.tty" in subject.spec.extra_fields
    pod = manifests.workload(subject)["spec"]["template"]["spec"]
    assert (pod["affinity"], pod["topologySpreadConstraints"]) == (affinity, spread)
    assert pod["containers"] == [
        {
            "name": "main",
            "image": "nginx:1.27",
            "tty": True,
            "securityContext": {"procMount": "Default"},
            "resources": {"claims": [{"name": "a"}]},
        }
    ]
    assert pod["initContainers"] == [{"name": "init", "image": "busybox:1", "workingDir": "/srv"}]
    assert pod["volumes"] == [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({f"{POD}.hostname": "web"}, f'container.extra_fields["{POD}.hostname"]: must be JSON'),
        (
            {f"{POD}.hostname": "null"},
            f'container.extra_fields["{POD}.hostname"]: must not be null; leave the field out',
        ),
        (
            {f"{POD}.affinity": "[" * 17 + "]" * 17},
            f'container.extra_fields["{POD}.affinity"]: must not be more than 16 levels deep',
        ),
        (
            {f"{POD}.initContainers[name=ghost].tty": "true"},
            f'container.extra_fields["{POD}.initContainers[name=ghost].tty"]: '
            "names an item that the pods do not have",
        ),
        (
            {f"{POD}.dnsConfig": "{}", f"{POD}.dnsConfig.options": "[]"},
            f'container.extra_fields["{POD}.dnsConfig.options"]: '
            "is the same as another path, or one contains the other",
        ),
        (
            {f"{POD}.hostname": '"web"', f".{POD}.hostname": '"web"'},
            f'container.extra_fields[".{POD}.hostname"]: is the same as another path, or one contains the other',
        ),
        (
            {f"{POD}.affinity": '"' + "x" * 40_000 + '"'},
            "container.extra_fields: must not be longer than 32768 characters in total",
        ),
        (
            {f"{POD}.{'x' * 600}": "1"},
            f'container.extra_fields["{POD}.{"x" * (512 - len(POD) - 1)}"]: '
            "must have a path of at most 512 characters",
        ),
    ],
)
def test_a_refused_extra_field_is_named_with_its_path(fields: dict[str, str], expected: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        rules.checked(with_fields(extra_fields=fields))
    assert refused.value.message == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {f"{POD}.hostAlias": "[]"},
            f'container.extra_fields["{POD}.hostAlias"]: "{POD}.hostAlias" is no field of Kubernetes; did you mean '
            '"hostAliases"?',
        ),
        (
            {f"{POD}.affinity": '{"podAfinity": {}}'},
            f'container.extra_fields["{POD}.affinity"]: "{POD}.affinity.podAfinity" is no field of Kubernetes; did '
            'you mean "podAffinity"?',
        ),
        (
            {f"{POD}.tty": "true"},
            f'container.extra_fields["{POD}.tty"]: "{POD}.tty" is no field of Kubernetes; did you mean '
            '"spec.template.spec.containers[].tty"?',
        ),
        (
            {f"{POD}.sidecarPolicy": "{}"},
            f'container.extra_fields["{POD}.sidecarPolicy"]: "{POD}.sidecarPolicy" is no field of Kubernetes in the '
            "version of the cluster",
        ),
        (
            {f"{MAIN}.tty": '"yes"'},
            f'container.extra_fields["{MAIN}.tty"]: "{MAIN}.tty" must be true or false, not a text',
        ),
    ],
)
def test_a_violation_of_the_kubernetes_schema_is_named(fields: dict[str, str], expected: str) -> None:
    def compare() -> None:
        found = Findings()
        by_schema(found, rules.checked(with_fields(extra_fields=fields)), "v1.36.2")
        found.raise_if_any()

    with pytest.raises(InvalidArgument) as refused:
        compare()
    assert refused.value.message == expected


@pytest.mark.parametrize(
    ("version", "is_known"),
    [
        ("v1.30.9", False),
        ("v1.33.0+k3s1", False),
        ("v1.34.1", True),
        ("1.36", True),
        ("v1.99.0", True),
        ("", True),
    ],
)
def test_the_schema_is_that_of_the_clusters_version(version: str, is_known: bool) -> None:
    found = Findings()
    # A field of Kubernetes 1.34.
    fields = {f"{POD}.hostnameOverride": "1"}
    checked = rules.checked(with_fields(extra_fields=fields))
    by_schema(found, checked, version)
    if is_known:
        with pytest.raises(InvalidArgument, match="must be a text, not a whole number"):
            found.raise_if_any()
    else:
        with pytest.raises(InvalidArgument, match="is no field of Kubernetes in the version of the cluster"):
            found.raise_if_any()
    found = Findings()
    checked = rules.checked(with_fields(extra_fields={f"{POD}.subdomain": "1"}))
    by_schema(found, checked, version)
    with pytest.raises(InvalidArgument):
        found.raise_if_any()


@pytest.mark.parametrize("version", ["v1.99.0", ""])
def test_an_unknown_field_passes_for_an_unknown_version(version: str) -> None:
    found = Findings()
    fields = {f"{POD}.sidecarPolicy": "{}"}
    by_schema(found, rules.checked(with_fields(extra_fields=fields)), version)
    found.raise_if_any()


def test_a_program_with_extra_fields_cannot_be_removed_alone() -> None:
    fields = {f"{POD}.initContainers[name=init].tty": "true"}
    subject = with_fields(init_containers=(InitContainer("init", "busybox:1"),), extra_fields=fields)
    assert rules.checked(subject).spec.extra_fields == fields
    without = msgspec.structs.replace(subject, spec=msgspec.structs.replace(subject.spec, init_containers=()))
    with pytest.raises(InvalidArgument, match="names an item that the pods do not have"):
        rules.checked(without)
