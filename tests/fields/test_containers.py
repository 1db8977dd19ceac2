"""Every field of a container survives create, get, the manifest, an import, an apply and an update.

Each field that a caller may set gets a value generated from its descriptor. It has its own container, or shares one
with a field of another program of the pod and a field of the pod itself (see `bundles`). Then the Deployments and
Services are copied to another namespace of the cluster as foreign objects, and taken over from there by an import and
by `apply`. A field that is accepted and then dropped fails here with its name.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_client.apply.documents import parse
from pilothouse_client.apply.messages import message
from pilothouse_manifests.fields import Field, FieldPart
from pilothouse_manifests.table import POD
from pilothouse_manifests.translator.attach import attach
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.problems import Problems
from pilothouse_manifests.writing import writer
from pilothouse_server.containers import pod_manifests
from tests.fields.exceptions import EXCEPTIONS
from tests.fields.generated import NEEDS, Leaf, choices, filled, has, leaves
from tests.harness import Server
from tests.main_job.legacy import DEPLOYMENTS, SERVICES, Kubectl, legacy
from tests.waiting import poll_until

OURS = "pilothouse.dev/"
NODE_PORT = next(each.values[0] for each in NEEDS if each.ends == "ports.node_port" and each.values)
EXCEPT = EXCEPTIONS[pb.Container.DESCRIPTOR.full_name]
# The fields of a Service that the cluster sets.
CHOSEN = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
LEAVES = [leaf for leaf in leaves(pb.Container.DESCRIPTOR) if leaf.name not in EXCEPT["everywhere"]]
CHOICES = choices()


# Fields whose values are unique among the programs of a pod, that other parts refer to, or that limit the programs.
_ALONE = ("port", "mount", "pod_resources", "selector", "deployment")
_OF_THE_MAIN_PROGRAM = (
    "command",
    "args",
    "probes",
    "lifecycle",
    "env",
    "env_from",
    "resources",
    "security_context",
)


def stands_alone(leaf: Leaf) -> bool:
    """Returns whether a field may conflict with another field in the same container."""
    unlike = leaf.immutable or leaf.name == "name" or leaf.name in EXCEPT["import"]
    return unlike or any(part in leaf.name for part in _ALONE)


def bundles(examined: Sequence[Leaf]) -> list[list[Leaf]]:
    """Groups the fields by container: one of each program and one of the pod, or one field alone."""
    together: dict[str, list[Leaf]] = defaultdict(list)
    for leaf in examined:
        if not stands_alone(leaf):
            top = leaf.fields[0].name
            part = top if top in ("init_containers", "sidecars") else str(top in _OF_THE_MAIN_PROGRAM)
            together[part].append(leaf)
    # Both kinds of programs have the same fields in the same order; equal values in one pod would conflict.
    together["sidecars"].reverse()
    joined = [[leaf for leaf in each if leaf] for each in zip_longest(*together.values())]
    return [*joined, *([leaf] for leaf in examined if stands_alone(leaf))]


@dataclass
class Case:
    """The container for some fields: its create request, and the value of each field in that request."""

    values: list[tuple[Leaf, Any]]
    container: pb.Container

    @property
    def name(self) -> str:
        return self.container.name

    def lost(self, shown: pb.Container | None) -> list[Leaf]:
        """Returns the fields that a container does not have."""
        return [leaf for leaf, value in self.values if shown is None or not has(shown, leaf, value)]


def case(number: int, bundle: Sequence[Leaf], variant: int = 0) -> Case:
    # No case needs a running pod.
    container = pb.Container(name=f"c{number:03}", image="ghcr.io/alpha/base:1", replicas=0)
    values = []
    for leaf in bundle:
        text = CHOICES.get(leaf.name)
        choice = None if text is None else (text.choices[0], text.choices[-1])
        value = filled(container, leaf, variant, choice=choice)
        if leaf.name == "name":
            value = container.name = f"c{number:03}-name"
        values.append((leaf, value))
    for kind in ("sidecars", "init_containers"):
        if f"{kind}.name" not in {leaf.name for leaf in bundle}:
            for program in getattr(container, kind):
                program.name = kind.replace("_", "-")
    programs: list[Any] = [container, *container.sidecars, *container.init_containers]
    mounts = [mount for program in programs for mount in program.volume_mounts]
    mounted = sorted({mount.volume for mount in mounts})
    container.empty_dirs.extend(pb.EmptyDir(name=name) for name in mounted)
    return Case(values, container)


async def populate(server: Server, namespace: str) -> None:
    """Creates the objects that the generated values refer to."""
    config = server.admin.config
    for name in ("alpha", "beta"):
        await config.create_config_map(
            namespace=namespace, config_map=config_pb2.ConfigMap(name=name, data={"alpha": "1", "beta": "2"})
        )
        await config.create_secret(
            namespace=namespace, secret=config_pb2.Secret(name=name, string_data={"alpha": "1", "beta": "2"})
        )
    for name in ("registry", "mirror"):
        secret = config_pb2.Secret(
            name=name, type="kubernetes.io/dockerconfigjson", string_data={".dockerconfigjson": "{}"}
        )
        await config.create_secret(namespace=namespace, secret=secret)


async def lost(server: Server, examined: list[Leaf]) -> dict[str, str]:
    """Returns the fields that do not survive, with the first step that loses each."""
    # All fields are tested, including those that reach the node.
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    await server.admin.namespaces.create(
        namespace=namespace_pb2.Namespace(name="demo", labels=labels, external_sources=["*"])
    )
    kubectl = await legacy(server)
    for namespace in ("demo", "legacy"):
        await populate(server, namespace)
    together = bundles(examined)
    cases = [case(number, bundle) for number, bundle in enumerate(together)]
    found: dict[str, str] = {}
    for each in cases:
        found |= await created(server, each)
    await applied(server)
    objects = await copies(kubectl)
    for number, bundle in enumerate(together):
        if not bundle[0].immutable:
            found = {**await updated(server, case(number, bundle, 1)), **found}
    # The node port of the replaced container has been released.
    await applied(server)
    for step, containers in (
        ("import", await imported(server, kubectl, objects)),
        ("apply", converted(objects)),
    ):
        for each in cases:
            for leaf in each.lost(containers.get(each.name)):
                found.setdefault(leaf.name, step)
    return found


async def created(server: Server, asked: Case) -> dict[str, str]:
    """Returns the fields that cannot be set or are not returned, with the reason."""
    try:
        made = await server.admin.containers.create(namespace="demo", container=asked.container)
    except PilothouseError as error:
        return {leaf.name: f"create: {error}" for leaf, _ in asked.values}
    got = await server.admin.containers.get(namespace="demo", name=asked.name)
    return {
        **{leaf.name: "get" for leaf in asked.lost(got)},
        **{leaf.name: "create" for leaf in asked.lost(made)},
    }


async def applied(server: Server) -> None:
    """Waits until the cluster has the desired state of all containers."""

    async def done() -> bool:
        containers = [each async for each in server.admin.containers.list(namespace="demo")]
        return all(each.observed_generation >= each.generation for each in containers)

    await poll_until(done)


async def updated(server: Server, after: Case) -> dict[str, str]:
    """Returns the fields that an update with a mask cannot change, with the reason."""
    given = [field.name for field, _ in after.container.ListFields() if field.name not in ("name", "image")]
    mask = sorted({*given, *(leaf.fields[0].name for leaf, _ in after.values)})
    try:
        changed = await server.admin.containers.update(
            namespace="demo",
            name=after.name,
            container=after.container,
            update_mask=FieldMask(paths=mask),
        )
    except PilothouseError as error:
        return {leaf.name: f"update: {error}" for leaf, _ in after.values}
    return {leaf.name: "update" for leaf in after.lost(changed)}


async def imported(
    server: Server, kubectl: Kubectl, objects: list[tuple[str, dict[str, Any]]]
) -> dict[str, pb.Container]:
    """Returns the containers that an import creates from the objects, by the names of their Deployments."""
    for path, each in objects:
        await kubectl.ask("POST", path, each)
    names = [each["metadata"]["name"] for path, each in objects if path == DEPLOYMENTS]
    results: list[pb.ImportedContainer] = []
    # A call accepts at most 100 names.
    for first in range(0, len(names), 50):
        answer = await server.admin.containers.import_(namespace="legacy", names=names[first : first + 50])
        results += answer.results
    # A Deployment with a problem is not imported, so its field counts as lost.
    return {each.deployment: each.container for each in results if not each.problems}


def converted(objects: list[tuple[str, dict[str, Any]]]) -> dict[str, pb.Container]:
    """Returns the containers that `apply` creates from the objects."""
    kinds = {DEPLOYMENTS: ("apps/v1", "Deployment"), SERVICES: ("v1", "Service")}
    problems = Problems()
    documents = [
        document
        for path, each in objects
        for document in parse(
            json.dumps({"apiVersion": kinds[path][0], "kind": kinds[path][1], **each}), "there.json", problems
        )
    ]
    wanted = attach(convert(documents, "legacy", problems), [])
    assert [str(problem) for problem in problems.all] == []
    return {each.name: message(pb.Container, each.values) for each in wanted}


async def copies(kubectl: Kubectl) -> list[tuple[str, dict[str, Any]]]:
    """Returns copies of the platform's objects, as foreign objects in the namespace `legacy`, with their POST paths."""
    made: list[tuple[str, dict[str, Any]]] = []
    owners: dict[str, str] = {}
    for item in (await kubectl.ask("GET", DEPLOYMENTS.replace("legacy", "demo")))["items"]:
        name = item["metadata"]["name"]
        owners[item["metadata"]["labels"][f"{OURS}container-uid"]] = name
        spec = item["spec"]
        selected = spec["selector"]["matchLabels"]
        selected = {key: text for key, text in selected.items() if not key.startswith(OURS)}
        spec["selector"] = {"matchLabels": {**selected, "app": name}}
        pods = theirs({"metadata": {"name": name, **spec["template"]["metadata"]}})
        labels = {**pods["labels"], "app": name}
        spec["template"]["metadata"] = {"labels": labels, "annotations": pods["annotations"]}
        made.append((DEPLOYMENTS, {**item, "metadata": theirs(item), "spec": spec, "status": {}}))
    for item in (await kubectl.ask("GET", SERVICES.replace("legacy", "demo")))["items"]:
        owner = owners[item["metadata"]["labels"][f"{OURS}container-uid"]]
        spec = {key: value for key, value in item["spec"].items() if key not in CHOSEN} | {
            "selector": {"app": owner}
        }
        if item["spec"].get("clusterIP") == "None":
            spec["clusterIP"] = "None"
        for port in spec["ports"]:
            if port.get("nodePort") != NODE_PORT:
                # The cluster chose it, and chooses another for the copy.
                port.pop("nodePort", None)
        made.append((SERVICES, {**item, "metadata": theirs(item), "spec": spec, "status": {}}))
    return made


def theirs(item: dict[str, Any]) -> dict[str, Any]:
    """Returns metadata without the fields that the platform and the cluster set."""
    kept: dict[str, Any] = {"name": item["metadata"]["name"]}
    for part in ("labels", "annotations"):
        kept[part] = {
            key: value
            for key, value in item["metadata"].get(part, {}).items()
            if not key.startswith((OURS, "app.kubernetes.io/", "deployment.kubernetes.io/"))
        }
    return kept


@pytest.mark.full(minutes=4)
async def test_every_field_survives(server: Server) -> None:
    found = await lost(server, LEAVES)
    assert found == dict.fromkeys(EXCEPT["import"], "import")


def test_every_exception_is_a_field() -> None:
    known = {leaf.name for leaf in leaves(pb.Container.DESCRIPTOR)}
    assert known >= {name for names in EXCEPT.values() for name in names}


@pytest.mark.full
async def test_a_field_missing_from_the_table_is_detected(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tuple(
        each for each in POD.entries if not (isinstance(each, Field) and each.name == "priority_class")
    )
    without = writer(FieldPart("pod", entries), place=pod_manifests._place, choose=pod_manifests._handler)
    monkeypatch.setattr(pod_manifests, "_write_pod", without)
    examined = [leaf for leaf in LEAVES if leaf.name in ("priority_class", "service_account")]
    assert await lost(server, examined) == {"priority_class": "import"}
