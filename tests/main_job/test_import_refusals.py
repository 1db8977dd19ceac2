"""What an import does not take over is told by name; who may not make it does not; and no value of a secret is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.transport import Transport
from tests.config.canaries import found_in
from tests.harness import PASSWORD, Server
from tests.main_job.legacy import DEPLOYMENTS, deployment, legacy
from tests.main_job.legacy_shop import CANARY, CORE, OURS, claim, furnished, settled, shop, source


@pytest.mark.parametrize(
    ("kind", "manifest", "words"),
    [
        ("secrets", source("Secret", "x", type="helm.sh/release.v1"), "Helm's record of a release"),
        ("secrets", None, "there is none on the cluster"),
        ("configmaps", "kube-root-ca.crt", "Kubernetes makes it"),
        (
            "persistentvolumeclaims",
            claim("x", accessModes=["ReadWriteOnce", "ReadOnlyMany"]),
            "spec.accessModes",
        ),
        ("persistentvolumeclaims", claim("x", volumeMode="Block"), "spec.volumeMode"),
        ("persistentvolumeclaims", None, "there is none on the cluster"),
    ],
)
async def test_what_is_not_taken_over_is_told_and_nothing_is_made(
    server: Server, kind: str, manifest: dict[str, Any] | str | None, words: str
) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    wanted = shop()
    spec = wanted["spec"]["template"]["spec"]
    name = manifest if isinstance(manifest, str) else "x"
    if isinstance(manifest, dict):
        await kubectl.ask("POST", f"{CORE}/{kind}", manifest)
    match kind:
        case "secrets":
            spec["volumes"][3]["secret"]["secretName"] = name
        case "configmaps":
            spec["volumes"][2]["configMap"]["name"] = name
        case _:
            spec["volumes"][1]["persistentVolumeClaim"]["claimName"] = name
    await kubectl.ask("POST", DEPLOYMENTS, wanted)
    answer = await server.admin.containers.import_(namespace="legacy", names=["shop"])
    (result,) = answer.results
    assert not result.HasField("container")
    assert any(f" {name}: " in each and words in each for each in result.problems), result.problems
    assert [item.name async for item in server.admin.storage.list_volumes(namespace="legacy")] == []
    assert [item.name async for item in server.admin.config.list_secrets(namespace="legacy")] == []
    assert [item.name async for item in server.admin.config.list_config_maps(namespace="legacy")] == []


async def test_who_may_not_make_them_does_not_by_an_import(server: Server) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="importer", permissions=["container.*", "namespace.get", "config.use"])
    )
    importer = await server.user("importer", {"legacy": "importer"})
    answer = await importer.containers.import_(namespace="legacy")
    told = " ".join(answer.results[0].problems)
    assert (
        'PersistentVolumeClaim shop.data: permission storage.create is needed in namespace "legacy"' in told
    )
    assert 'Secret shop-db: permission config.create is needed in namespace "legacy"' in told
    assert not answer.results[0].HasField("container")
    developer = await server.user("developer", {"legacy": "developer"})
    answer = await developer.containers.import_(namespace="legacy")
    assert list(answer.results[0].problems) == []
    # What is made already needs no more than to be mounted.
    await kubectl.ask("POST", DEPLOYMENTS, shop("second"))
    answer = await importer.containers.import_(namespace="legacy", names=["second"])
    assert list(answer.results[0].problems) == []


async def test_the_values_of_a_secret_are_nowhere_but_encrypted(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    kubectl = await legacy(server)
    await furnished(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    for validate_only in (True, False):
        answer = await server.admin.containers.import_(
            namespace="legacy", names=["shop"], validate_only=validate_only
        )
        assert not found_in(answer.SerializeToString(), [CANARY])
    await settled(server)
    revealed = await server.admin.config.reveal_secret(namespace="legacy", name="shop-db")
    assert revealed.data["password"].decode() == CANARY
    async with server.database.owner() as owner:
        tables = await owner.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')"
        )
        rows = 0
        for table in tables:
            for row in await owner.fetch(f"SELECT t::text AS row FROM {table['name']} AS t"):
                rows += 1
                assert not found_in(row["row"].encode(), [CANARY]), table["name"]
        assert rows
        (record,) = await owner.fetch(
            "SELECT metadata FROM operation_logs WHERE action = 'import' ORDER BY id DESC LIMIT 1"
        )
    assert "shop-db" in str(record["metadata"])
    out, err = capfd.readouterr()
    assert not found_in((out + err).encode(), [CANARY])
    assert PASSWORD not in str(record["metadata"])


async def test_one_that_does_not_fit_leaves_nothing_behind_and_the_others_come(server: Server) -> None:
    """Its claim and its secrets are made before its share of the quota is counted."""
    kubectl = await legacy(server)
    await furnished(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, deployment("greedy", replicas=1))
    wanted = shop()
    wanted["spec"]["replicas"] = 3
    await kubectl.ask("POST", DEPLOYMENTS, wanted)
    await server.admin.namespaces.update(
        name="legacy",
        namespace=namespace_pb2.Namespace(resource_quota=namespace_pb2.ResourceQuota(cpu="200m")),
        update_mask=FieldMask(paths=["resource_quota"]),
    )
    answer = await server.admin.containers.import_(namespace="legacy")
    refused = next(item for item in answer.results if item.deployment == "shop")
    assert "quota of namespace" in refused.problems[0]
    assert [*refused.volumes, *refused.config_maps, *refused.secrets] == []
    assert [item.name async for item in server.admin.containers.list(namespace="legacy")] == ["greedy"]
    assert [item.name async for item in server.admin.storage.list_volumes(namespace="legacy")] == []
    assert [item.name async for item in server.admin.config.list_secrets(namespace="legacy")] == []
    untouched = await kubectl.ask("GET", f"{CORE}/secrets/shop-db")
    assert not any(key.startswith(OURS) for key in untouched["metadata"]["labels"])


@pytest.mark.parametrize("shape", [5, [None]])
async def test_a_deployment_that_is_none_is_told_and_others_are_taken_over(
    server: Server, monkeypatch: pytest.MonkeyPatch, shape: object
) -> None:
    """As a cluster answers that is none of Kubernetes."""
    kubectl = await legacy(server)
    for name in ("odd", "good"):
        await kubectl.ask("POST", DEPLOYMENTS, deployment(name))
    read = ClusterClient.read

    async def shapeless(self: ClusterClient, resource: Any, namespace: str | None, name: str) -> Any:
        found = await read(self, resource, namespace, name)
        if name == "odd":
            found["spec"]["template"]["spec"]["containers"] = shape
        return found

    monkeypatch.setattr(ClusterClient, "read", shapeless)
    answer = await server.admin.containers.import_(namespace="legacy", names=["odd", "good"])
    odd, good = answer.results
    assert list(odd.problems) == ["the cluster describes it in a way that cannot be read"]
    assert good.container.name == "good"


async def _tampered(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Any], None]) -> None:
    """Has what the cluster says of a Deployment changed on its way, in lists and when it is read."""
    request = Transport.request

    async def requested(self: Transport, method: str, path: str, *arguments: Any, **named: Any) -> bytes:
        body = await request(self, method, path, *arguments, **named)
        if method != "GET" or "/deployments" not in path:
            return body
        found = json.loads(body)
        for each in found.get("items") or (found,):
            if each.get("metadata", {}).get("name") == name:
                change(each)
        return json.dumps(found).encode()

    monkeypatch.setattr(Transport, "request", requested)


def _uid(live: Any) -> None:
    live["metadata"]["uid"] = "a\0b"


def _replicas(live: Any) -> None:
    live["spec"]["replicas"] = 2**70


def _many(live: Any) -> None:
    live["spec"]["replicas"] = 2**31


def _argument(live: Any) -> None:
    live["spec"]["template"]["spec"]["containers"][0]["args"] = ["good", "half \ud800"]


def _variable(live: Any) -> None:
    live["spec"]["template"]["spec"]["containers"][0]["env"][0]["name"] = "x" * 300


def _grace(live: Any) -> None:
    live["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 2**64


def _label(live: Any) -> None:
    live["metadata"]["labels"]["a\0b"] = "c"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_uid, "metadata.uid: holds NUL"),
        (_replicas, "spec.replicas: holds a number beyond 64 bits"),
        (_many, "spec.replicas: more than 2147483647"),
        (_argument, "the cluster describes it in a way that cannot be read"),
        (_variable, "longer, than can be kept"),
        (_grace, "spec.template.spec.terminationGracePeriodSeconds: holds a number beyond 64 bits"),
        (_label, "metadata.labels: the name of a field holds NUL"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
async def test_what_no_row_can_hold_is_told_by_its_place_and_others_are_taken_over(
    server: Server, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], None], words: str
) -> None:
    kubectl = await legacy(server)
    for name in ("odd", "good"):
        await kubectl.ask("POST", DEPLOYMENTS, deployment(name))
    await _tampered(monkeypatch, "odd", change)
    by_name = await server.admin.containers.import_(namespace="legacy", names=["odd"])
    all_of_them = await server.admin.containers.import_(namespace="legacy")
    for answer in (by_name, all_of_them):
        (problems,) = (list(each.problems) for each in answer.results if each.deployment == "odd")
        assert len(problems) == 1
        assert words in problems[0]
    taken = [each.container.name for each in all_of_them.results if each.deployment == "good"]
    assert taken == ["good"]


@pytest.mark.parametrize("kind", ["ConfigMap", "Secret"])
async def test_what_it_reads_is_told_likewise(
    server: Server, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    kubectl = await legacy(server)
    await kubectl.ask(
        "POST", f"{CORE}/{kind.lower()}s", {"metadata": {"name": "odd"}, "data": {"key": "YQ=="}}
    )
    live = deployment("reads")
    key = "configMapKeyRef" if kind == "ConfigMap" else "secretKeyRef"
    variable = {"name": "A", "valueFrom": {key: {"name": "odd", "key": "key"}}}
    live["spec"]["template"]["spec"]["containers"][0]["env"] = [variable]
    await kubectl.ask("POST", DEPLOYMENTS, live)
    read = ClusterClient.read

    async def odd(self: ClusterClient, resource: Any, namespace: str | None, name: str) -> Any:
        found = await read(self, resource, namespace, name)
        if name == "odd":
            found["metadata"]["annotations"] = {"note": "canary\0"}
        return found

    monkeypatch.setattr(ClusterClient, "read", odd)
    answer = await server.admin.containers.import_(namespace="legacy", names=["reads"])
    (result,) = answer.results
    assert list(result.problems) == [
        f"{kind} odd: metadata.annotations.note: holds NUL, a character that no text here may hold"
    ]
