"""Documents become objects of their nouns; each fault is a problem of its document, and no value is repeated."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.applications.translating import given, lines, read_documents, read_texts, wanted_of
from tests.translator.manifests import SERVICE, WEB, web

from pilothouse_server.applications.documents import PresentObjects
from pilothouse_server.applications.model import GivenDocument, MemberKey
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.containers.model import Container, Port

CANARY = "canary-3f9"
SECRET = f"""\
apiVersion: v1
kind: Secret
metadata:
  name: db
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{{"stringData":{{"password":"{CANARY}"}}}}'
stringData: {{password: {CANARY}}}
data: {{user: YWRtaW4=}}
"""
CLAIM = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
CONFIG_MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {LOG: debug}\n"
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""
MOUNTS = """\
volumes:
- name: settings
  configMap: {name: settings}
- name: files
  persistentVolumeClaim: {claimName: data}
"""
MOUNTED = "volumeMounts:\n- {name: settings, mountPath: /settings}\n- {name: files, mountPath: /data}\n"


async def test_each_kind_becomes_an_object_of_its_noun() -> None:
    texts = (web(pod=MOUNTS, container=MOUNTED), SERVICE, SECRET, CLAIM, CONFIG_MAP, POLICY)
    wanted = await wanted_of("---\n".join(texts))
    assert sorted(wanted) == [
        "config_map/settings",
        "container/web",
        "object/closed",
        "secret/db",
        "service/web",
        "volume/configmap-settings",
        "volume/data",
    ]
    container = wanted["container/web"]
    assert isinstance(container.value, Container)
    assert (container.api_version, container.kind, container.document) == ("apps/v1", "Deployment", 0)
    assert {each.volume for each in container.value.volume_mounts} == {"configmap-settings", "data"}
    assert "replicas" not in (container.fields or ())
    policy = wanted["object/closed"]
    assert policy.key == MemberKey("object", "closed", "networking.k8s.io", "NetworkPolicy")
    asked = wanted["secret/db"].value
    assert isinstance(asked, Asked)
    assert asked.data == {"user": b"admin", "password": CANARY.encode()}
    assert asked.secret.annotations == {}


async def test_an_annotation_that_repeats_the_document_is_dropped_with_a_note() -> None:
    read = await read_texts(SECRET)
    (note,) = read.warnings
    assert note.reason == "LEFT_OUT"
    assert "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]" in note.message
    assert CANARY not in note.message


async def test_a_service_becomes_ports_of_the_container_that_owns_it() -> None:
    owner = (await wanted_of(WEB))["container/web"].value
    port = Port(name="http", container_port=8080, service_name="web", service_port=80)
    owner = msgspec.structs.replace(owner, ports=(port,))
    wanted = await wanted_of(SERVICE.replace("port: 80", "port: 81"), present=PresentObjects((owner,)))
    (container,) = wanted.values()
    assert container.key == MemberKey("container", "web")
    assert container.fields == frozenset({"ports"})
    assert [each.service_port for each in container.value.ports] == [81]
    assert container.value.image == owner.image


async def test_a_claim_is_existing_unless_the_namespace_has_its_volume() -> None:
    text = web(pod=MOUNTS, container=MOUNTED)
    alone = await read_texts(text)
    container = next(each.value for each in alone.wanted if each.key.noun == "container")
    assert [each.name for each in container.spec.pod_volumes] == ["data"]
    assert [each.reason for each in alone.warnings] == ["EXISTING_CLAIM"]
    there = await wanted_of(text, present=PresentObjects(volumes={"data": "imported"}))
    mounts = there["container/web"].value.volume_mounts
    assert {each.volume for each in mounts} == {"configmap-settings", "imported"}


async def test_a_missing_source_that_the_namespace_allows_is_external() -> None:
    text = web(container="envFrom:\n- secretRef: {name: shared-db}\n")
    allowed = PresentObjects(external_sources=("shared-*",))
    (source,) = (await wanted_of(text, present=allowed))["container/web"].value.spec.env_from
    assert source.external
    present = PresentObjects(external_sources=("shared-*",), sources=frozenset({("secret", "shared-db")}))
    (source,) = (await wanted_of(text, present=present))["container/web"].value.spec.env_from
    assert not source.external


async def test_each_problem_has_document_path_and_weight() -> None:
    read = await read_texts(
        CONFIG_MAP,
        web("paused: true"),
        web(container="imagePullPolicy: Sometimes", name="other").replace("nginx:1.27", "'not an image'"),
        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: old}\n",
    )
    found = [
        (each.document, each.kind, each.name, each.path, each.reason, each.weight) for each in read.problems
    ]
    assert found[0] == (1, "Deployment", "web", "spec.paused", "UNSUPPORTED", "behaviour")
    assert (found[-1][0], found[-1][4]) == (3, "UNSUPPORTED_DOCUMENT")
    assert {each[0] for each in found} == {1, 2, 3}
    assert all(each.source.startswith("web.yaml:") for each in read.problems)
    assert [each.key.name for each in read.wanted] == ["settings", "web"]


@pytest.mark.parametrize(
    "text",
    [
        f'{{"a": "{CANARY}"',
        f'"{CANARY}"',
        f'["{CANARY}"]',
        f'{{"{CANARY}": 1, "{CANARY}": 2}}',
        f'{{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": "a"}}, "data": "{CANARY}"}}',
        f'{{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": "a"}}, "data": {{"k": "{CANARY}"}}}}',
        f'{{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": "a"}}, "stringData": ["{CANARY}"]}}',
        f'{{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": "a"}}, "data": {{"{CANARY}": 7}}}}',
        f'{{"apiVersion": "v1", "kind": "Secret", "metadata": {{"name": "a", "labels": "{CANARY}"}}}}',
        f'{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": "{CANARY}"}}',
        f'{{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {{"name": "a"}}, "data": {{"a": ["{CANARY}"]}}}}',
        '{"a": ' * 70 + f'"{CANARY}"' + "}" * 70,
        '{"a": ' * 100_000 + f'"{CANARY}"',
        f'{{"a": "{CANARY}\\u0000"}}',
        f'{{"a": "{CANARY}\\ud800"}}',
        '{"a": 1' + "0" * 5000 + "}",
    ],
)
async def test_a_problem_repeats_nothing_of_a_broken_document(text: str) -> None:
    read = await read_documents([GivenDocument(text, "db.json")])
    assert read.problems
    assert not read.wanted
    assert all(each.document == 0 and each.source == "db.json" for each in read.problems)
    assert CANARY not in repr(read.problems)
    assert CANARY not in repr(read.warnings)


async def test_a_variable_of_a_wrong_type_is_not_repeated() -> None:
    read = await read_texts(web(container="env:\n- {name: PIN, value: 4711}\n"))
    (problem,) = read.problems
    assert problem.message == "expected a text, found an integer; put it in quotes"


async def test_a_list_is_equivalent_to_its_items() -> None:
    items = [json.loads(each.json) for each in given(CONFIG_MAP + "---\n" + CLAIM)]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    read = await read_documents([GivenDocument(text)])
    assert not read.problems
    assert [str(each.key) for each in read.wanted] == ["config map settings", "volume data"]


async def test_a_duplicate_object_is_a_problem_that_names_the_first() -> None:
    read = await read_documents([*given(WEB, "a.yaml"), *given(WEB, "b.yaml")])
    assert lines(read.problems) == [
        "b.yaml:1: Deployment/web: expected each object once, found it again; first at a.yaml:1"
    ]
