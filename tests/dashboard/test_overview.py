"""The overview and the search: correct counts, and pages without gaps.

Both cover only the caller's namespaces.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.watch.v1 import watch_pb2 as pb
from tests.dashboard.watching import RULES, caller_of, fields_of
from tests.harness import Server
from tests.promises.calling import Caller, Outcome
from tests.waiting import poll_until

STATUS = """
UPDATE containers SET status = $3, reason = $4
WHERE name = $2 AND namespace_id = (SELECT id FROM namespaces WHERE name = $1)
"""


async def ask(caller: Caller, method: str, **fields: Any) -> Outcome:
    """Returns the outcome of a call."""
    rule = RULES[method]
    return await caller.invoke(rule, rule.request_class(**fields))


async def populate(server: Server, name: str, containers: Collection[str]) -> None:
    """Creates a namespace with stopped containers, a quota and a config map."""
    await server.admin.namespaces.create(
        namespace=namespace_pb2.Namespace(
            name=name, resource_quota=namespace_pb2.ResourceQuota(containers=50, cpu="8")
        )
    )
    for each in containers:
        await server.admin.containers.create(
            namespace=name,
            container=container_pb2.Container(
                name=each, image="ghcr.io/shop/frontend:1.27", labels={"app": each}, replicas=0
            ),
        )
    await server.admin.config.create_config_map(
        namespace=name, config_map=config_pb2.ConfigMap(name="settings", data={"a": "b"})
    )


def counted(answer: pb.GetOverviewResponse, noun: str) -> dict[str, int]:
    """Returns the counts of a noun by status."""
    number = pb.Noun.Value(f"NOUN_{noun}")
    return {each.status: each.count for each in answer.counts if each.noun == number}


async def test_the_overview_counts_only_the_namespaces_of_its_caller(server: Server) -> None:
    wrong = {
        "web": ("crash_loop_back_off", "Error"),
        "api": ("pending", "ImagePullBackOff"),
        "job": ("running", ""),
    }
    await populate(server, "ours", wrong)
    await populate(server, "theirs", {"web": ("failed", "Error")})
    await server.user("tenant", {"ours": "viewer"})
    caller, admin = await caller_of(server, "tenant"), await caller_of(server)

    async def look(asking: Caller, **fields: int) -> pb.GetOverviewResponse:
        # The observer restores the true statuses at some point, so they are set before each call.
        async with server.database.owner() as owner:
            for name, (status, reason) in wrong.items():
                await owner.execute(STATUS, "ours", name, status, reason)
            await owner.execute(STATUS, "theirs", "web", "failed", "Error")
        found: pb.GetOverviewResponse = (await ask(asking, "GetOverview", **fields)).answer
        return found

    answer = await poll_until(lambda: look(caller), lambda found: len(found.wrong) == 2, seconds=10)
    assert [each.namespace for each in answer.namespaces] == ["ours"]
    assert sum(counted(answer, "CONTAINER").values()) == 3
    assert counted(answer, "CONFIG") == {"": 1}
    assert [(each.name, each.status, each.reason) for each in answer.wrong] == [
        ("web", "CRASH_LOOP_BACK_OFF", "Error"),
        ("api", "PENDING", "ImagePullBackOff"),
    ]
    (ours,) = answer.namespaces
    assert (ours.wrong, ours.quota.containers, ours.used.containers) == (2, 50, 3)
    assert [(each.cluster, each.namespaces) for each in answer.clusters] == [("local", 1)]
    everything = await poll_until(
        lambda: look(admin, most_wrong=1, most_namespaces=1), lambda found: found.more_wrong == 2, seconds=10
    )
    assert [each.namespace for each in everything.namespaces] == ["ours"]
    assert (everything.more_namespaces, len(everything.wrong)) == (1, 1)


async def test_usage_is_summed_and_downsampled(server: Server) -> None:
    await populate(server, "used", {"web": ("running", ""), "api": ("running", "")})
    async with server.database.owner() as owner:
        await owner.execute(
            "INSERT INTO container_usage_hourly (container_id, namespace_id, bucket, samples, cpu_cores_avg, "
            "memory_bytes_avg) "
            "SELECT c.id, c.namespace_id, date_trunc('hour', now()) - i * interval '1 hour', 1, 0.5, 100 "
            "FROM containers AS c, generate_series(0, 23) AS i"
        )
    answer = (await ask(await caller_of(server), "GetOverview", namespace="used", usage_points=6)).answer
    (used,) = answer.namespaces
    # Buckets begin at multiples of four hours, so the first and the last one may extend beyond the day.
    assert 6 <= len(used.usage) <= 7
    assert {each.cpu_cores for each in used.usage[1:-1]} == {1.0}
    assert {each.memory_bytes for each in used.usage[1:-1]} == {200.0}
    assert answer.clusters[0].usage == used.usage


async def test_a_search_matches_all_words_and_returns_pages(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own = server.namespace
    await populate(server, own, {"shop-web": ("", ""), "shop-api": ("", ""), "blog": ("", "")})
    caller = await caller_of(server)
    found = (await ask(caller, "Search", query="SHOP frontend", namespace=own)).answer.results
    # The containers' image contains both words.
    assert [each.name for each in found] == ["blog", "shop-api", "shop-web"]
    found = (await ask(caller, "Search", query="app=shop-web", namespace=own)).answer.results
    assert [(each.name, each.image) for each in found] == [("shop-web", "ghcr.io/shop/frontend:1.27")]
    found = (await ask(caller, "Search", query=own)).answer.results
    assert [(each.noun, each.namespace, each.name) for each in found] == [(pb.NOUN_NAMESPACE, "", own)]
    names: list[str] = []
    token = ""
    while True:
        page = (await ask(caller, "Search", query="s", namespace=own, page_size=2, page_token=token)).answer
        names += [each.name for each in page.results]
        token = page.next_page_token
        if not token:
            break
    assert names[:3] == ["blog", "shop-api", "shop-web"]
    assert "settings" in names
    assert len(names) == len(set(names))
    only = (await ask(caller, "Search", query="s", namespace=own, nouns=[pb.NOUN_CONFIG])).answer.results
    assert [(each.kind, each.name) for each in only] == [("ConfigMap", "settings")]
    another = await ask(caller, "Search", query="shop", namespace=own, page_size=2, page_token="nonsense")
    assert another.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("method", ["Search", "GetOverview"])
async def test_a_foreign_namespace_is_reported_as_missing(shared_server: Server, method: str) -> None:
    server = shared_server.for_one_test()
    own, foreign = server.namespace, f"{server.namespace}-foreign"
    await populate(server, own, {})
    await populate(server, foreign, {"secretive": ("", "")})
    await server.user("searcher", {own: "viewer"})
    caller = await caller_of(server, server.own("searcher"))
    more = {"query": "e"} if method == "Search" else {}
    outside = await ask(caller, method, namespace=foreign, **more)
    missing = await ask(caller, method, namespace=f"{own}-missing", **more)
    assert outside.code == missing.code == "NOT_FOUND"
    assert outside.message.replace("-foreign", "-missing") == missing.message
    answer = (await ask(caller, method, **more)).answer
    assert "secretive" not in str(answer)
    assert foreign not in str(answer)
    await server.user("without", {})
    nothing = (await ask(await caller_of(server, server.own("without")), method, **more)).answer
    assert not (nothing.results if method == "Search" else [*nothing.counts, *nothing.namespaces])


async def test_errors_name_the_wrong_fields(shared_server: Server) -> None:
    caller = await caller_of(shared_server)
    for method, fields, path in (
        ("Search", {}, "query"),
        ("Search", {"query": "  "}, "query"),
        ("Search", {"query": "a", "nouns": [pb.NOUN_RUN]}, "nouns[0]"),
        ("GetOverview", {"usage_points": 401}, "usage_points"),
    ):
        refused = await ask(caller, method, **fields)
        assert (refused.code, fields_of(refused)) == ("INVALID_ARGUMENT", [path])
