"""A create uses the namespace facts that an earlier create of the same caller has just read.

Changes since that read are not missed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.containers import facts_cache
from pilothouse_server.containers.facts_cache import MOST_KEPT, FactsCache
from pilothouse_server.containers.namespace_facts import CreationFacts, NamespaceFacts, Needs, NewContainer
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.store.draft import Draft
from pilothouse_server.values.resources import ContainerId, NamespaceId
from tests.conftest import Database, connection
from tests.harness import Server, running_server
from tests.main_job.test_created_at_once import (
    _ANOTHER,
    _NAMESPACE,
    _NO_CHECK,
    by_sql,
    container,
    outcome,
    port,
)
from tests.waiting import poll_until


class Looks:
    """Counts how often drafts read the facts, and how often a draft was sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read = self.sent = 0
        read, send = Draft.read, Draft._send

        async def counted(draft: Draft, statement: Any, parameters: Mapping[str, Any]) -> Any:
            self.read += any(name in str(statement) for name in ("admit_container", "service_limits"))
            return await read(draft, statement, parameters)

        async def counted_too(draft: Draft, statement: Any, parameters: Mapping[str, Any]) -> None:
            self.sent += 1
            await send(draft, statement, parameters)

        monkeypatch.setattr(Draft, "read", counted)
        monkeypatch.setattr(Draft, "_send", counted_too)

    def taken(self) -> tuple[int, int]:
        """Returns the numbers of reads and sent drafts since the last call."""
        found, self.read, self.sent = (self.read, self.sent), 0, 0
        return found


def plain(name: str, **fields: Any) -> Any:
    return container(name, env=[], **fields)


@pytest.fixture(autouse=True)
def cached_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches facts for so long that the result does not depend on how busy the machine is."""
    monkeypatch.setattr(facts_cache, "KEPT_SECONDS", 600.0)


async def with_first(server: Server, name: str = "shared") -> None:
    """Makes a namespace with a quota of 50 containers and one container."""
    quota = namespace_pb2.ResourceQuota(containers=50)
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name, resource_quota=quota))

    async def namespace() -> namespace_pb2.Namespace:
        return await server.admin.namespaces.get(name=name)

    # Until the cluster has the namespace, its row is written, which outdates cached facts.
    await poll_until(namespace, lambda found: found.phase == "Active" and not found.reconciling)
    assert await outcome(server, plain("first", ports=[port("first")]), name) == "created"


# For each change: the SQL, the outcome of a later create of `web` with a service `web`, and the messages of that
# create: reads, and sent drafts.
_CHANGES = {
    "nothing": ("SELECT", "created", (0, 1)),
    "name taken": (_ANOTHER.format(name="web", service="other"), "CONTAINER_ALREADY_EXISTS", (1, 1)),
    "service taken": (_ANOTHER.format(name="other", service="web"), "SERVICE_ALREADY_EXISTS", (1, 1)),
    "less quota": (_NAMESPACE.format("""resource_quota = '{"containers": 1}'"""), "QUOTA_EXCEEDED", (1, 1)),
    "more quota": (_NAMESPACE.format("""resource_quota = '{"containers": 99}'"""), "created", (2, 2)),
    "quota used": (
        "".join(_ANOTHER.format(name=f"o{i}", service=f"o{i}") + ";" for i in range(49)),
        "QUOTA_EXCEEDED",
        (1, 1),
    ),
    "no such services": (
        _NAMESPACE.format("service_types = '{NodePort}'"),
        "SERVICE_TYPE_NOT_ALLOWED",
        (2, 1),
    ),
    "more services": (
        _NAMESPACE.format("""resource_quota = '{"containers": 50, "services": 2}'"""),
        "created",
        (2, 2),
    ),
    "fewer services": (
        _NAMESPACE.format("""resource_quota = '{"containers": 50, "services": 1}'"""),
        "QUOTA_EXCEEDED",
        (2, 1),
    ),
    "inactive": (_NAMESPACE.format("status = 'inactive'"), "NAMESPACE_INACTIVE", (1, 1)),
    "being deleted": (_NAMESPACE.format("deletion_requested_at = now()"), "NAMESPACE_TERMINATING", (1, 1)),
    "deleted": (_NAMESPACE.format("deleted_at = now()"), "NAMESPACE_NOT_FOUND", (1, 1)),
}


async def test_changes_since_the_cached_read_have_the_same_result_as_if_read(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    async with running_server(database, tmp_path) as server:
        for number, (change, (statement, _, _)) in enumerate(_CHANGES.items()):
            name = f"shared-{number}"
            await with_first(server, name)
            await by_sql(database, statement, name)()
            with monkeypatch.context() as patched:
                looks = Looks(patched)
                found[change] = await outcome(server, plain("web", ports=[port("web")]), name), looks.taken()
    assert found == {change: (expected, messages) for change, (_, expected, messages) in _CHANGES.items()}


@pytest.mark.full
async def test_without_the_comparison_the_change_would_be_missed(database: Database, tmp_path: Path) -> None:
    """The positive control."""
    async with running_server(database, tmp_path) as server:
        await with_first(server)
        await by_sql(database, _NO_CHECK)()
        await by_sql(database, _CHANGES["quota used"][0])()
        assert await outcome(server, plain("web")) == "created"


async def test_a_replay_is_found_although_cached_facts_skip_its_lookup(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(database, tmp_path) as server:
        await with_first(server)
        looks, request = Looks(monkeypatch), str(uuid4())
        create = server.admin.containers.create
        made = await create(namespace="shared", container=plain("web"), request_id=request)
        again = await create(namespace="shared", container=plain("web"), request_id=request)
        async with connection(database.admin_dsn) as sql:
            await sql.execute("DELETE FROM containers WHERE name = 'web'")
            assert await outcome(server, plain("other")) == "created"
            once_more = await create(namespace="shared", container=plain("web"), request_id=request)
            assert await sql.fetchval("SELECT count(*) FROM containers WHERE name = 'web'") == 0
        assert made.uid == again.uid == once_more.uid
        # The database finds the first replay; after that, facts are read for a while, which finds the other.
        assert looks.taken() == (3, 3)


async def test_needed_sources_are_read_and_each_id_is_of_one_container(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_server(database, tmp_path) as server:
        await with_first(server)
        looks = Looks(monkeypatch)
        assert await outcome(server, container("reads")) == "INVALID_CONTAINER"
        assert looks.taken() == (1, 0)
        before = datetime.now(UTC)
        made = [
            await server.admin.containers.create(namespace="shared", container=plain(f"w{i}"))
            for i in range(40)
        ]
        assert looks.taken()[0] <= 1
        # Creation times come from the clock of the database, which runs on this machine.
        times = [item.create_time.ToDatetime(tzinfo=UTC) for item in made]
        assert times == sorted(times)
        assert (
            before - timedelta(seconds=1) < times[0] <= times[-1] < datetime.now(UTC) + timedelta(seconds=1)
        )
        async with connection(database.admin_dsn) as sql:
            ids = await sql.fetch("SELECT id FROM containers WHERE name LIKE 'w_%'")
        assert len({row["id"] for row in ids}) == 40


def _facts(name: str) -> CreationFacts:
    return CreationFacts(
        namespace=Namespace(id=NamespaceId(1), uid="u", name=name, kubernetes_name=name, cluster_name="c"),
        used=(0, 0, 0),
        name_taken=None,
        found=NamespaceFacts(),
        volume_definitions=None,
        container_id=ContainerId(10),
        moment=datetime.now(UTC),
    )


def _cache(*ids: int) -> FactsCache:
    cache = FactsCache()
    for each in ids:
        cache.add_id(NewContainer(ContainerId(each), datetime.now(UTC)))
    return cache


async def test_facts_are_cached_per_caller_and_each_id_is_used_once() -> None:
    cache = _cache(11, 12)
    cache.learn(1, _facts("shared"))
    assert cache.find(2, "shared", Needs()) is None
    assert cache.find(1, "other", Needs()) is None
    assert cache.find(1, "shared", Needs(secrets=frozenset({"s"}))) is None
    found = [cache.find(1, "shared", Needs()) for _ in range(3)]
    assert [each and each.container_id for each in found] == [12, 11, None]


async def test_outdated_facts_are_not_cached_again_for_a_while() -> None:
    cache = _cache(11)
    cache.forget(1, "shared")
    cache.learn(1, _facts("shared"))
    assert cache.find(1, "shared", Needs()) is None


async def test_the_cache_is_bounded() -> None:
    cache = _cache(11, 12)
    for number in range(MOST_KEPT + 1):
        cache.learn(1, _facts(f"n{number}"))
    assert cache.find(1, "n0", Needs()) is None
    assert cache.find(1, "n1", Needs()) is not None
