"""Every carried kind × every guarded path × four callers × create, update, apply, import, as calls.

The callers are an operator and an administrator of a namespace, an administrator of the platform, and a holder of
`object.privileged`. ADOPT has no caller: `tests/guard/` tests it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Iterator
from copy import deepcopy
from itertools import groupby
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.application.v1 import application_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.object.v1 import object_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import AsyncClient
from pilothouse_client.errors import FailedPreconditionError, InvalidArgumentError, PermissionDeniedError
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_simulator import gateway_definitions
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.resources import ResourceType, find_kind
from tests.conftest import Database, new_database
from tests.guard.carried import GUARDED, HOST, NEVER, OPENED, ORDINARY, PRIVILEGED, Carried, document
from tests.guard.test_carried import HOLDS
from tests.guard.test_hosts import ALLOWED, MINE, REFUSED, with_host
from tests.harness import Server, running_server

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]
SHOP = "shop"
# Two of the fields that contain hosts; `tests/guard/test_hosts.py` has all of them.
SPELLED = ("Ingress spec.rules.0.host", "HTTPRoute metadata.annotations")
# Values of a type that no cluster stores.
_OF_NO_TYPE = {("spec.rules.0.host", list), ("subjects.0", str)}
# Paths that depend on settings of the namespace or the cluster are tested in `tests/guard/`.
TRIED = [each for each in GUARDED if not each.facts and each.path != "kind"]


class Shop:
    """The namespace of the documents, with the objects that they refer to, and the four callers."""

    def __init__(self, server: Server, callers: dict[str, AsyncClient]) -> None:
        self.cluster, self.callers = server.cluster, callers

    async def make(self, client: AsyncClient, wanted: JsonObject) -> pb.Object:
        carried = pb.Object(document=json.dumps(wanted))
        return await client.objects.create(namespace=SHOP, object=carried)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def shop(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """Uses no cluster: hundreds of objects are allowed, and none needs to be applied."""
    async with (
        new_database(postgres, template_database.name) as cloned,
        running_server(cloned, tmp_path_factory.mktemp("server"), with_cluster=False) as server,
    ):
        yield await _shop(server)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def shop_on_a_cluster(shared_server: Server) -> Shop:
    return await _shop(shared_server)


async def _shop(server: Server) -> Shop:
    admin = server.admin
    opened = namespace_pb2.ObjectKind(
        api_version=OPENED.api_version,
        kind=OPENED.kind,
        open_to=namespace_pb2.KIND_OPEN_TO_TENANTS,
        refused_paths=["spec.serviceAccountTemplate"],
    )
    await admin.namespaces.update_cluster(
        name="local",
        cluster=namespace_pb2.Cluster(object_kinds=[opened], shared_gateways=["infra/public"]),
        update_mask=FieldMask(paths=["object_kinds", "shared_gateways"]),
    )
    hosts = ["*.shop.example", "shop.example"]
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=SHOP, allowed_hosts=hosts))
    await admin.containers.create(
        namespace=SHOP, container=container_pb2.Container(name="web", image="nginx:1.27")
    )
    await admin.identity.create_role(role=identity_pb2.Role(name="privileged", permissions=[PRIVILEGED]))
    callers = {
        "operator": await server.user("olga", {SHOP: "operator"}),
        "administrator": await server.user("anna", {SHOP: "admin"}),
        "platform": admin,
        "privileged": await server.user("paul", {SHOP: "operator", "": "privileged"}),
    }
    found = Shop(server, callers)
    roles: JsonObject = {
        "web": ORDINARY["Role"]["rules"],
        "powerful": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}],
    }
    for name, rules in roles.items():
        await found.make(admin, {**_named(ORDINARY["Role"], name), "rules": rules})
    return found


def _named(found: JsonObject, name: str) -> JsonObject:
    return {**deepcopy(found), "metadata": {**deepcopy(found["metadata"]), "name": name}}


async def _refusal(call: Awaitable[Any]) -> str | None:
    """Returns the missing permission or a reason, "" for parts that are never sent, or None if the call was allowed."""
    try:
        await call
    except PermissionDeniedError as denied:
        return str(denied.metadata["permission"])
    except FailedPreconditionError as denied:
        return str(denied.reason)
    except InvalidArgumentError:
        return NEVER
    return None


def _needed(guarded: Carried, caller: str) -> str | None:
    return None if guarded.needs in HOLDS[caller] else guarded.needs


# The two callers whose permissions end where the guard begins; `tests/guard/test_carried.py` tests all four without
# calls.
@pytest.mark.parametrize("caller", ["operator", "privileged"])
async def test_no_create_and_no_update_gains_a_guarded_path(shop: Shop, caller: str) -> None:
    client = shop.callers[caller]
    stored: dict[str, pb.Object] = {}
    for number, guarded in enumerate(TRIED):
        wanted = _named(document(guarded), f"{caller}-{number}")
        assert await _refusal(shop.make(client, wanted)) == _needed(guarded, caller), guarded
        if guarded.kind not in stored:
            stored[guarded.kind] = await shop.make(client, _named(ORDINARY[guarded.kind], caller))
        own = stored[guarded.kind]
        change = client.objects.update(
            namespace=SHOP,
            name=own.name,
            api_version=own.api_version,
            kind=own.kind,
            object=pb.Object(document=json.dumps(_named(document(guarded), caller))),
            update_mask=FieldMask(paths=["document"]),
        )
        refused = await _refusal(change)
        # The Role of a binding is immutable.
        if guarded.path.startswith("roleRef") and refused == NEVER:
            continue
        assert refused == _needed(guarded, caller), guarded


@pytest.mark.parametrize("caller", HOLDS)
async def test_no_apply_gains_a_guarded_path(shop: Shop, caller: str) -> None:
    tried = [_named(document(guarded), f"applied-{number}") for number, guarded in enumerate(TRIED)]
    found: dict[int, list[application_pb2.ApplicationProblem]] = {}
    for first in range(0, len(tried), 20):
        answer = await shop.callers[caller].applications.apply(
            namespace=SHOP,
            documents=[
                application_pb2.ApplicationDocument(json=json.dumps(each))
                for each in tried[first : first + 20]
            ],
            validate_only=True,
        )
        assert answer.problem_count == len(answer.problems)
        for problem in answer.problems:
            found.setdefault(first + problem.document, []).append(problem)
    for number, guarded in enumerate(TRIED):
        problems, needed = found.get(number, []), _needed(guarded, caller)
        if needed is None:
            assert not problems, (guarded, problems)
        elif needed == HOST:
            assert HOST in {each.reason for each in problems}, guarded
        elif needed:
            assert needed in {each.permission for each in problems}, guarded
        elif guarded.path != "status":
            # The status is left out, because the cluster reports it.
            assert problems, guarded


async def test_no_apply_gains_a_host_of_another_tenant_by_any_spelling(shop: Shop) -> None:
    client = shop.callers["platform"]
    await client.namespaces.create(namespace=namespace_pb2.Namespace(name="mine", allowed_hosts=MINE))
    tried = [(where, host) for where in SPELLED for host in (*ALLOWED, *REFUSED)]
    documents = []
    for number, (where, host) in enumerate(tried):
        wanted = _named(with_host(where, host), f"host-{number}")
        del wanted["metadata"]["namespace"]
        text = json.dumps(wanted).replace(".shop.example", ".mine.example")
        documents.append(application_pb2.ApplicationDocument(json=text))
    problems: set[int] = set()
    for first in range(0, len(documents), 250):
        answer = await client.applications.apply(
            namespace="mine", documents=documents[first : first + 250], validate_only=True
        )
        problems |= {first + each.document for each in answer.problems}
    assert len(ALLOWED) + len(REFUSED) >= 40
    for number, (where, host) in enumerate(tried):
        assert (number in problems) == (host in REFUSED), (where, host)


def _on_the_cluster(shop: Shop) -> Iterator[tuple[ResourceType, str, Carried]]:
    """Makes the guarded documents that a cluster accepts, as another client, and yields them."""
    assert shop.cluster is not None
    for number, guarded in enumerate(TRIED):
        if (guarded.path, type(guarded.value)) in _OF_NO_TYPE or guarded.needs == NEVER:
            continue
        if guarded.kind in ("Cluster", "Gateway", "HTTPRoute"):
            continue
        wanted = _named(document(guarded), f"theirs-{number}")
        resource = find_kind(wanted["apiVersion"], wanted["kind"])
        assert resource is not None
        try:
            shop.cluster.store.create(resource, wanted)
        except ApiError:
            continue
        yield resource, f"theirs-{number}", guarded


async def test_no_import_gains_a_guarded_path(shop_on_a_cluster: Shop) -> None:
    there = list(_on_the_cluster(shop_on_a_cluster))
    assert len(there) > 30
    for resource, those in groupby(there, key=lambda each: each[0]):
        named = {name: guarded for _, name, guarded in those}
        for caller, client in shop_on_a_cluster.callers.items():
            answer = await client.objects.import_(
                namespace=SHOP,
                names=named,
                api_version=resource.api_version,
                kind=resource.kind,
                validate_only=True,
            )
            for result in answer.results:
                guarded = named[result.name]
                needed, problems = _needed(guarded, caller), " ".join(result.problems)
                if needed is None:
                    # Only the cluster refuses fields that it does not know.
                    assert not problems or problems.startswith("the cluster refuses it"), (
                        guarded,
                        problems,
                    )
                elif guarded.path.startswith("metadata.") and not problems:
                    # It stays on the cluster as a value of others.
                    assert not set(guarded.value) & {*result.object.annotations, *result.object.labels}
                else:
                    assert (guarded.needs if needed != HOST else "host") in problems, (guarded, problems)


async def test_an_import_accepts_each_kind_that_an_apply_accepts(shop_on_a_cluster: Shop) -> None:
    shop, client = shop_on_a_cluster, shop_on_a_cluster.callers["platform"]
    assert shop.cluster is not None
    shop.cluster.install(*gateway_definitions())
    # The operator's kind is in test_operator.py.
    written = {kind: _named(each, "ordinary") for kind, each in ORDINARY.items() if kind != "Cluster"}
    documents = [application_pb2.ApplicationDocument(json=json.dumps(each)) for each in written.values()]
    applied = await client.applications.apply(namespace=SHOP, documents=documents, validate_only=True)
    assert not applied.problems
    for kind, wanted in written.items():
        resource = shop.cluster.store.types.find_kind(wanted["apiVersion"], kind)
        assert resource is not None
        shop.cluster.store.create(resource, wanted)
        named: dict[str, Any] = {"api_version": wanted["apiVersion"], "kind": kind, "names": ["ordinary"]}
        [result] = (await client.objects.import_(namespace=SHOP, validate_only=True, **named)).results
        assert (list(result.problems), list(result.notes)) == ([], []), kind
        assert result.object.drift_policy == resource_pb2.DRIFT_POLICY_REPAIR, kind
