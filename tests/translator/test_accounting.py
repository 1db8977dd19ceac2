"""Nothing in the input is dropped silently.

Two exhaustive searches over real applications check that an unknown key, put into any mapping, is reported at its line,
and that a change of any value changes the desired state or causes a problem. A third test generates manifests and
checks that the result of each can be written out as the same manifest again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.translator.manifests import EXAMPLE, NAMESPACE, SAMPLE, container
from tests.translator.writing import manifest_of

from pilothouse_client.apply.documents import load
from pilothouse_manifests.translator.attach import attach
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.nodes import (
    Document,
    InputPosition,
    Mapping,
    MappingEntry,
    Node,
    ScalarNode,
    SequenceNode,
)
from pilothouse_manifests.translator.problems import Problems

# Mappings whose keys are chosen by the user.
FREE = ("labels", "annotations", "matchLabels", "selector", "nodeSelector")
STRANGE = InputPosition("strange.yaml", 7, 3)

applications = pytest.mark.parametrize(
    "file",
    [
        pytest.param(EXAMPLE, id="example"),
        pytest.param(
            SAMPLE,
            id="sample",
            marks=pytest.mark.skipif(
                not SAMPLE.exists(), reason="the sample application is not beside the checkout"
            ),
        ),
    ],
)


def groups(file: Path) -> list[list[Document]]:
    """Returns the documents in groups: a Deployment with its Services and account, matched by label or name."""
    problems = Problems()
    together: dict[str, list[Document]] = {}
    for document in load([str(file)], problems):
        raw = plain(document.root)
        selector = raw.get("spec", {}).get("selector", {})
        name = selector.get("matchLabels", selector).get("app") or raw["metadata"]["name"]
        together.setdefault(name, []).append(document)
    assert not problems.all
    return list(together.values())


def plain(node: Node) -> Any:
    if isinstance(node, Mapping):
        return {key: plain(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.items]
    return node.text


def outcome(documents: list[Document]) -> tuple[list[str], list[str]]:
    """Returns the desired containers and carried objects, and the problems."""
    problems = Problems()
    manifest = convert(documents, NAMESPACE, problems)
    wanted = [str(each.values) for each in attach(manifest, [])]
    wanted += [str(each.document) for each in manifest.objects]
    return wanted, [str(problem) for problem in problems.all]


def variants(node: Node, change: Callable[[Node], Node | None], key: str = "") -> Iterator[tuple[str, Node]]:
    """Yields the tree with one node changed, for each node that `change` changes, and the path of that node."""
    changed = change(node) if key not in FREE or isinstance(node, ScalarNode) else None
    if changed is not None:
        yield "", changed
    if isinstance(node, Mapping):
        for name, entry in node.entries.items():
            for path, value in variants(entry.value, change, name):
                entries = {**node.entries, name: MappingEntry(entry.place, value)}
                yield f".{name}{path}", Mapping(node.place, entries)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.items):
            for path, value in variants(item, change, key):
                items = (*node.items[:index], value, *node.items[index + 1 :])
                yield f"[{index}]{path}", SequenceNode(node.place, items)


def with_strange_key(node: Node) -> Node | None:
    if not isinstance(node, Mapping):
        return None
    entry = MappingEntry(STRANGE, ScalarNode(STRANGE, "1", "integer"))
    return Mapping(node.place, {**node.entries, "strangeThing": entry})


def with_other_value(node: Node) -> Node | None:
    if not isinstance(node, ScalarNode):
        return None
    if node.kind == "boolean":
        return replace(node, text="false" if node.text == "true" else "true")
    if node.kind == "integer":
        return replace(node, text=str(int(node.text) + 1))
    return replace(node, text=node.text + "x")


@applications
def test_an_unknown_key_anywhere_is_reported_at_its_line(file: Path) -> None:
    tried = 0
    for documents in groups(file):
        assert outcome(documents)[1] == []
        for index, document in enumerate(documents):
            for path, root in variants(document.root, with_strange_key):
                if path.rpartition(".")[2] in FREE:
                    continue
                changed = [*documents[:index], Document(document.place, root), *documents[index + 1 :]]
                wanted, problems = outcome(changed)
                tried += 1
                if any("strangeThing" in each for each in wanted):
                    # A workload field that the API does not name is carried.
                    assert problems == []
                    continue
                expected = f"{path.removeprefix('.')}.strangeThing".removeprefix(".")
                # An unrepresentable volume causes another problem for each of its mounts.
                told = [problem.split(": ")[::2] for problem in problems if "volumeMounts[" not in problem]
                told += [problem.split(": ")[::2] for problem in problems if "volumeMounts[" in expected]
                assert told == [["strange.yaml:7", expected]]
    assert tried > 250


@applications
def test_every_changed_value_changes_the_outcome(file: Path) -> None:
    tried = 0
    for documents in groups(file):
        before = outcome(documents)
        for index, document in enumerate(documents):
            for path, root in variants(document.root, with_other_value):
                changed = [*documents[:index], Document(document.place, root), *documents[index + 1 :]]
                assert outcome(changed) != before, f"{document.place}: {path} is dropped"
                tried += 1
    assert tried > 400


names = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
texts = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff\ufffe\uffff"), max_size=12
)
words = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)
ports = st.integers(1, 65535)
small = st.integers(1, 600)
quantities = st.sampled_from(["1", "250m", "64Mi", "1.5Gi", "2e3", "0.5"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Returns a strategy for mappings that may lack any of the fields, but not all."""
    return st.fixed_dictionaries({}, optional=fields).filter(bool)


def labels(minimum: int = 1) -> st.SearchStrategy[dict[str, str]]:
    return st.dictionaries(names, words, min_size=minimum, max_size=3)


seccomp = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["RuntimeDefault", "Unconfined"])}),
    st.fixed_dictionaries({"type": st.just("Localhost"), "localhostProfile": words}),
)
rights = some(
    runAsUser=st.integers(0, 2**31 - 1),
    runAsGroup=st.integers(0, 2**31 - 1),
    runAsNonRoot=st.booleans(),
    allowPrivilegeEscalation=st.booleans(),
    privileged=st.booleans(),
    readOnlyRootFilesystem=st.booleans(),
    capabilities=some(
        add=st.lists(words, min_size=1, max_size=2), drop=st.lists(words, min_size=1, max_size=2)
    ),
    seccompProfile=seccomp,
)
pod_rights = some(
    runAsUser=st.integers(0, 2**31 - 1),
    runAsGroup=st.integers(0, 2**31 - 1),
    runAsNonRoot=st.booleans(),
    fsGroup=st.integers(0, 2**31 - 1),
    fsGroupChangePolicy=st.sampled_from(["OnRootMismatch", "Always"]),
    supplementalGroups=st.lists(st.integers(0, 9999), min_size=1, max_size=3),
    seccompProfile=seccomp,
)
handlers = st.one_of(
    st.fixed_dictionaries(
        {
            "httpGet": st.fixed_dictionaries(
                {"port": st.one_of(ports, names)},
                optional={
                    "path": words.map("/".__add__),
                    "scheme": st.sampled_from(["HTTP", "HTTPS"]),
                    "host": names,
                    "httpHeaders": st.lists(
                        st.fixed_dictionaries({"name": words, "value": words}), min_size=1, max_size=2
                    ),
                },
            )
        }
    ),
    st.fixed_dictionaries(
        {"tcpSocket": st.fixed_dictionaries({"port": st.one_of(ports, names)}, optional={"host": names})}
    ),
    st.fixed_dictionaries(
        {"exec": st.fixed_dictionaries({"command": st.lists(texts, min_size=1, max_size=3)})}
    ),
    st.fixed_dictionaries({"grpc": st.fixed_dictionaries({"port": ports}, optional={"service": words})}),
)
numbers = st.fixed_dictionaries(
    {},
    optional={
        "initialDelaySeconds": small,
        "periodSeconds": small,
        "timeoutSeconds": small,
        "successThreshold": small,
        "failureThreshold": small,
        "terminationGracePeriodSeconds": small,
    },
)
probes = st.builds(lambda handler, rest: handler | rest, handlers, numbers)


def reference(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    optional = {"optional": st.just(True)}
    return st.fixed_dictionaries(
        {kind: st.fixed_dictionaries({"name": names, "key": words}, optional=optional)}
    )


variables = st.lists(
    st.one_of(
        st.fixed_dictionaries({"name": words, "value": texts.filter(bool)}),
        st.fixed_dictionaries(
            {
                "name": words,
                "valueFrom": st.one_of(
                    st.just({"fieldRef": {"fieldPath": "status.podIP"}}),
                    reference("configMapKeyRef"),
                    reference("secretKeyRef"),
                ),
            }
        ),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda variable: variable["name"],
)
common: dict[str, st.SearchStrategy[Any]] = {
    "command": st.lists(texts, min_size=1, max_size=3),
    "args": st.lists(texts, min_size=1, max_size=3),
    "imagePullPolicy": st.sampled_from(["Always", "IfNotPresent", "Never"]),
    "env": variables,
    "resources": some(
        requests=some(cpu=quantities, memory=quantities), limits=some(cpu=quantities, memory=quantities)
    ),
    "securityContext": rights,
    "volumeMounts": st.lists(
        st.fixed_dictionaries(
            {"name": st.sampled_from(["data", "cache"]), "mountPath": words.map("/".__add__)},
            optional={"readOnly": st.just(True), "subPath": words},
        ),
        min_size=1,
        max_size=2,
    ),
}
hooks = st.one_of(
    handlers.filter(lambda handler: "httpGet" in handler or "exec" in handler),
    st.fixed_dictionaries({"sleep": st.fixed_dictionaries({"seconds": st.integers(0, 30)})}),
)
programs = st.fixed_dictionaries(
    {"name": names, "image": names},
    optional=common
    | {
        "livenessProbe": probes,
        "readinessProbe": probes,
        "startupProbe": probes,
        "lifecycle": some(postStart=hooks, preStop=hooks),
        "ports": st.lists(
            st.fixed_dictionaries(
                {"containerPort": ports, "protocol": st.sampled_from(["TCP", "UDP"])},
                optional={"name": names, "hostPort": ports},
            ),
            min_size=1,
            max_size=3,
            unique_by=(
                lambda port: (port["containerPort"], port["protocol"]),
                lambda port: port.get("name", port["containerPort"]),
            ),
        ),
    },
)
inits = st.builds(
    lambda program, rest: program | rest, programs, st.sampled_from([{}, {"restartPolicy": "Always"}])
)
pods = st.fixed_dictionaries(
    {
        "containers": st.lists(programs, min_size=1, max_size=3),
        "volumes": st.tuples(
            st.fixed_dictionaries(
                {
                    "emptyDir": st.fixed_dictionaries(
                        {}, optional={"medium": st.just("Memory"), "sizeLimit": quantities}
                    )
                }
            ),
            st.just({"emptyDir": {}}),
        ).map(lambda pair: [{"name": "data", **pair[0]}, {"name": "cache", **pair[1]}]),
    },
    optional={
        "initContainers": st.lists(inits, min_size=1, max_size=2),
        "serviceAccountName": names,
        "priorityClassName": names,
        "imagePullSecrets": st.lists(
            st.fixed_dictionaries({"name": names}),
            min_size=1,
            max_size=2,
            unique_by=lambda each: each["name"],
        ),
        "nodeSelector": labels(),
        "tolerations": st.lists(
            some(
                key=words,
                operator=st.sampled_from(["Equal", "Exists"]),
                value=words,
                effect=st.sampled_from(["NoSchedule", "NoExecute"]),
                tolerationSeconds=st.integers(0, 10**6),
            ),
            min_size=1,
            max_size=2,
        ),
        "terminationGracePeriodSeconds": st.integers(0, 3600),
        "securityContext": pod_rights,
    },
)


@st.composite
def deployments(draw: st.DrawFn) -> dict[str, Any]:
    own = draw(labels())
    spec: dict[str, Any] = {
        "selector": {"matchLabels": own},
        "template": {"metadata": {"labels": own}, "spec": draw(pods)},
    }
    if draw(st.booleans()):
        spec["replicas"] = draw(st.integers(0, 50))
    metadata: dict[str, Any] = {"name": draw(names), "labels": own}
    if draw(st.booleans()):
        metadata["annotations"] = draw(labels())
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


@pytest.mark.full
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(deployments())
def test_a_translated_manifest_can_be_written_out_unchanged(manifest: dict[str, Any]) -> None:
    made = container(json.dumps(manifest, ensure_ascii=False))
    expected = manifest
    expected["spec"]["template"]["metadata"] = dict(manifest["metadata"])
    expected["spec"]["template"]["metadata"].pop("name")
    assert manifest_of(made) == expected
