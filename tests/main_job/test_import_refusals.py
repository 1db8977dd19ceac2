"""A refused import names the object, a caller without the permission is refused, and no secret value is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import TooManyValues
from pilothouse_server.kubernetes.transport import ClusterTransport
from tests.config.canaries import found_in
from tests.conftest import connection, number_changes
from tests.harness import PASSWORD, Server
from tests.main_job.legacy import DEPLOYMENTS, SERVICES, deployment, legacy, service
from tests.main_job.legacy_shop import CANARY, CORE, OURS, claim, prepare, settled, shop, source


async def test_refused_objects_are_reported_and_nothing_is_made(server: Server) -> None:
    kubectl = await legacy(server)
    await prepare(kubectl)
    cases: dict[str, tuple[str, dict[str, Any] | None, str]] = {
        "of-helm": (
            "secrets",
            source("Secret", "of-helm", type="helm.sh/release.v1"),
            "Helm's record of a release",
        ),
        "no-secret": ("secrets", None, "it does not exist on the cluster"),
        "openshift-service-ca.crt": ("configmaps", None, "the cluster makes it"),
        "no-claim": ("persistentvolumeclaims", None, "it does not exist on the cluster"),
    }
    for number, (name, (kind, manifest, words)) in enumerate(cases.items()):
        wanted = shop(f"shop-{number}")
        volumes = wanted["spec"]["template"]["spec"]["volumes"]
        if manifest is not None:
            await kubectl.ask("POST", f"{CORE}/{kind}", manifest)
        match kind:
            case "secrets":
                volumes[3]["secret"]["secretName"] = name
            case "configmaps":
                volumes[2]["configMap"]["name"] = name
            case _:
                volumes[1]["persistentVolumeClaim"]["claimName"] = name
        await kubectl.ask("POST", DEPLOYMENTS, wanted)
        answer = await server.admin.containers.import_(namespace="legacy", names=[f"shop-{number}"])
        (result,) = answer.results
        assert not result.HasField("container")
        assert any(f" {name}: " in each and words in each for each in result.problems), result.problems
    assert [item.name async for item in server.admin.storage.list_volumes(namespace="legacy")] == []
    assert [item.name async for item in server.admin.config.list_secrets(namespace="legacy")] == []
    assert [item.name async for item in server.admin.config.list_config_maps(namespace="legacy")] == []


async def test_an_import_needs_the_permissions_to_create_its_objects(server: Server) -> None:
    kubectl = await legacy(server)
    await prepare(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="importer", permissions=["container.*", "namespace.get", "config.use"])
    )
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name="taker", permissions=["container.import", "namespace.get", "config.*"])
    )
    taker = await server.user("taker", {"legacy": "taker"})
    with pytest.raises(PilothouseError) as refused:
        await taker.containers.import_(namespace="legacy")
    assert 'permission container.create is needed in namespace "legacy"' in str(refused.value)
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
    # An object that already exists needs only the permission to use it.
    await kubectl.ask("POST", DEPLOYMENTS, shop("second"))
    answer = await importer.containers.import_(namespace="legacy", names=["second"])
    assert list(answer.results[0].problems) == []


async def test_secret_values_are_stored_only_encrypted(
    server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    kubectl = await legacy(server)
    await prepare(kubectl)
    await kubectl.ask("POST", DEPLOYMENTS, shop())
    for validate_only in (True, False):
        answer = await server.admin.containers.import_(
            namespace="legacy", names=["shop"], validate_only=validate_only
        )
        assert not found_in(answer.SerializeToString(), [CANARY])
    await settled(server)
    revealed = await server.admin.config.reveal_secret(namespace="legacy", name="shop-db")
    assert revealed.data["password"].decode() == CANARY
    async with connection(server.database.admin_dsn) as sql:
        await number_changes(sql)
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


async def test_an_import_over_quota_leaves_nothing_behind_and_others_succeed(server: Server) -> None:
    """Its claim and its secrets are made before its share of the quota is counted."""
    kubectl = await legacy(server)
    await prepare(kubectl)
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
async def test_a_malformed_deployment_is_reported_and_others_are_taken_over(
    server: Server, monkeypatch: pytest.MonkeyPatch, shape: object
) -> None:
    """The response is one that no Kubernetes API server sends."""
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
    assert list(odd.problems) == ["the cluster's description of it cannot be read"]
    assert good.container.name == "good"


def _tampered(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Any], None], kind: str = "deployments"
) -> None:
    """Changes the cluster's responses about an object, in lists and in single reads."""
    request = ClusterTransport.request

    async def requested(
        self: ClusterTransport, method: str, path: str, *arguments: Any, **named: Any
    ) -> bytes:
        body = await request(self, method, path, *arguments, **named)
        if method != "GET" or f"/{kind}" not in path:
            return body
        found = json.loads(body)
        for each in found.get("items") or (found,):
            if each.get("metadata", {}).get("name") == name:
                change(each)
        return json.dumps(found).encode()

    monkeypatch.setattr(ClusterTransport, "request", requested)


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


def _note(live: Any) -> None:
    live["metadata"]["annotations"] = {"note": "a\0b"}


def _half(live: Any) -> None:
    live["metadata"]["annotations"] = {"note": "half \ud800"}


def _spec(live: Any) -> None:
    live["spec"] = 5


def _selector(live: Any) -> None:
    live["spec"]["selector"] = ["app"]


def _ports(live: Any) -> None:
    live["spec"]["ports"] = [{"port": "web"}]


def _numbers(live: Any) -> None:
    live["spec"]["ports"] = [5]


def _labelled(live: Any) -> None:
    live["metadata"]["labels"] = "app"


def _nameless(live: Any) -> None:
    live["metadata"] = None


def _grace(live: Any) -> None:
    live["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 2**64


def _label(live: Any) -> None:
    live["metadata"]["labels"]["a\0b"] = "c"


def _status(live: Any) -> None:
    live["status"]["readyReplicas"] = 2**70


def _probe(live: Any) -> None:
    live["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["periodSeconds"] = 2**40


_UNFIT: dict[Callable[[Any], None], str] = {
    _uid: "metadata.uid: has NUL",
    _replicas: "spec.replicas: has a number beyond 64 bits",
    _many: "spec.replicas: more than 2147483647",
    _argument: "the cluster's description of it cannot be read",
    _variable: "too long, to be stored",
    _grace: "spec.template.spec.terminationGracePeriodSeconds: has a number beyond 64 bits",
    _label: "metadata.labels: the name of a field has NUL",
    _status: "the cluster's description of it cannot be read",
    _probe: "one of its numbers is outside the range that the API supports",
}


async def test_unstorable_values_are_reported_by_field_and_others_are_taken_over(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = await legacy(server)
    words = {f"odd{change.__name__.replace('_', '-')}": told for change, told in _UNFIT.items()}
    for name in (*words, "good"):
        await kubectl.ask("POST", DEPLOYMENTS, deployment(name))
    for name, change in zip(words, _UNFIT, strict=True):
        _tampered(monkeypatch, name, change)
    taken: list[str] = []
    for names in ([*words], []):
        answer = await server.admin.containers.import_(namespace="legacy", names=names)
        told = {each.deployment: [*each.problems] for each in answer.results if each.problems}
        assert told.keys() == words.keys()
        for name, problems in told.items():
            assert len(problems) == 1, name
            assert words[name] in problems[0]
        taken += [each.container.name for each in answer.results if each.HasField("container")]
    assert taken == ["good"]


async def test_a_malformed_service_hides_no_deployment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = await legacy(server)
    await kubectl.ask("POST", DEPLOYMENTS, deployment("good"))
    odd = {
        "half": _half,
        "labelled": _labelled,
        "nameless": _nameless,
        "note": _note,
        "numbers": _numbers,
        "ports": _ports,
        "selects": _selector,
        "spec": _spec,
    }
    for name in (*odd, "good"):
        await kubectl.ask("POST", SERVICES, service(name, selector={"app": "good"}))
    for name, change in odd.items():
        _tampered(monkeypatch, name, change, f"services/{name}")
    (result,) = (await server.admin.containers.import_(namespace="legacy")).results
    assert [*result.problems] == []
    assert [port.service_name for port in result.container.ports if port.service_name] == ["good"]
    assert [*result.notes] == [
        "Service labelled: a part of it cannot be represented",
        "Service note: metadata.annotations.note: has NUL, which no text may contain",
        "Service numbers: a part of it cannot be represented",
        "Service ports: a part of it cannot be represented",
        *(
            f"Service {name}: it cannot be read, but may select the pods"
            for name in ("half", "nameless", "selects", "spec")
        ),
    ]


async def test_services_that_the_list_leaves_out_are_reported(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = await legacy(server)
    await kubectl.ask("POST", DEPLOYMENTS, deployment("good"))
    await kubectl.ask("POST", SERVICES, service("gone", selector={"app": "good"}))
    list_ = ClusterClient.list

    async def without_names(self: ClusterClient, resource: Any, *arguments: Any, **named: Any) -> Any:
        page = await list_(self, resource, *arguments, **named)
        if resource.kind != "Service":
            return page
        assert [each.metadata.name for each in page.items] == ["gone"]
        await kubectl.ask("DELETE", f"{SERVICES}/gone")
        odd = [f"odd-{number}" if number else "" for number in range(12)]
        # A Service that is deleted before it is read is not reported, malformed or not.
        return msgspec.structs.replace(
            page, left_out=tuple(("legacy", name) for name in [*odd, "odd-and-gone"])
        )

    read = ClusterClient.read

    async def odd(self: ClusterClient, resource: Any, namespace: str | None, name: str) -> Any:
        if name.startswith("odd-") and name != "odd-and-gone":
            raise TooManyValues("it holds too much")
        return await read(self, resource, namespace, name)

    monkeypatch.setattr(ClusterClient, "list", without_names)
    monkeypatch.setattr(ClusterClient, "read", odd)
    (result,) = (await server.admin.containers.import_(namespace="legacy", validate_only=True)).results
    assert [*result.notes] == [
        *(
            f"Service {name}: it cannot be read, but may select the pods"
            for name in ("without a name", *(f"odd-{number}" for number in range(1, 10)))
        ),
        "2 more Services cannot be read",
    ]


async def test_malformed_config_and_claims_are_reported_by_field(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubectl = await legacy(server)
    reads: dict[str, dict[str, Any]] = {
        "ConfigMap": {"configMapKeyRef": {"name": "odd", "key": "key"}},
        "Secret": {"secretKeyRef": {"name": "odd", "key": "key"}},
        "PersistentVolumeClaim": {"claimName": "odd"},
    }
    for kind, reference in reads.items():
        made = claim("odd") if kind == "PersistentVolumeClaim" else source(kind, "odd", data={"key": "YQ=="})
        await kubectl.ask("POST", f"{CORE}/{kind.lower()}s", made)
        live = deployment(f"reads-{kind.lower()}")
        spec = live["spec"]["template"]["spec"]
        (main,) = spec["containers"]
        if kind == "PersistentVolumeClaim":
            spec["volumes"] = [{"name": "data", "persistentVolumeClaim": reference}]
            main["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        else:
            main["env"] = [{"name": "A", "valueFrom": reference}]
        await kubectl.ask("POST", DEPLOYMENTS, live)
    read = ClusterClient.read

    async def odd(self: ClusterClient, resource: Any, namespace: str | None, name: str) -> Any:
        found = await read(self, resource, namespace, name)
        if name == "odd":
            found["metadata"]["annotations"] = {"note": "canary\0"}
        return found

    monkeypatch.setattr(ClusterClient, "read", odd)
    answer = await server.admin.containers.import_(namespace="legacy")
    assert {result.deployment: [*result.problems] for result in answer.results} == {
        f"reads-{kind.lower()}": [
            f"{kind} odd: metadata.annotations.note: has NUL, which no text may contain"
        ]
        for kind in reads
    }
