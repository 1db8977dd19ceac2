"""Promises 9 and 13 against third parties.

These are a cluster that hangs, a cluster that sends too much, and kubeconfigs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse.namespace.v1 import namespace_pb2 as pb
from tests.clusters import hostile
from tests.clusters.hostile import Answer, Asked, hostile_server
from tests.conftest import Database
from tests.promises.hostile.attacker import Attack, attacking
from tests.promises.hostile.environment import Environment
from tests.promises.hostile.environment import environment as made_environment
from tests.waiting import poll_until

ATTACKS = "tests.promises.hostile.cluster_attacks"
_WAITING = 120
pytestmark = pytest.mark.soak(part="hostile")


async def test_calls_that_wait_for_a_cluster_that_hangs_delay_no_others(environment: Environment) -> None:
    await environment.populate("waiting")
    token = await environment.user("waiter", "developer", "waiting")

    @asynccontextmanager
    async def hanging() -> AsyncIterator[Attack]:
        environment.cluster.faults.latency_seconds = 3600.0
        try:
            async with attacking(
                ATTACKS,
                "waits",
                address=environment.address,
                token=token,
                namespace="waiting",
                count=_WAITING,
            ) as attack:
                yield attack
        finally:
            environment.cluster.faults.latency_seconds = 0.0

    verdict = await environment.attacked(hanging)
    assert verdict.faults() == []
    assert all(report["at_once"] == _WAITING for report in verdict.reports)
    # No call succeeded, so each call either reached the cluster that hangs or was refused by a bound.
    ended = {code for report in verdict.reports for code in report["ended"]}
    assert ended <= {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


async def test_large_kubeconfigs_delay_no_others(environment: Environment) -> None:
    token = await environment.user("registrar", "admin", "")
    verdict = await environment.attacked(
        lambda: attacking(ATTACKS, "kubeconfigs", address=environment.address, token=token, count=8)
    )
    assert verdict.faults() == []
    assert all(report["ended"].get("INVALID_ARGUMENT", 0) > 10 for report in verdict.reports), verdict.reports


_BOOKMARK = b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "1"}}}\n'


def _attack(way: str) -> Answer:
    """Returns a hostile cluster's response to every list and watch."""
    quiet = hostile.saying(b'{"metadata": {"resourceVersion": "1"}, "items": []}')
    lines = hostile.endless(_BOOKMARK * 500 + b"\n" * 30_000)
    if way == "bomb":
        return hostile.exploding(hostile.bomb(400))
    if way == "endless":
        return hostile.endless(b" " * 65536)
    if way == "pieces":
        return hostile.in_pieces
    if way == "dense":
        # Each is within the bound of bytes. One has very many objects, the other has one object of very many
        # values.
        many, one = b",".join([b"{}"] * 2_500_000), b",".join([b"[]"] * 2_500_000)
        head = b'{"metadata": {"resourceVersion": "1"}, "items": ['
        objects, values = (hostile.saying(head + each + b"]}") for each in (many, b'{"x": [%s]}' % one))

        async def dense(asked: Asked) -> None:
            await (objects if "/pods" in asked.path else values)(asked)

        return dense

    async def answer(asked: Asked) -> None:
        await (lines if "watch=true" in asked.target else quiet)(asked)

    return answer


@pytest.mark.parametrize("way", ["bomb", "endless", "lines", "dense", "pieces"])
async def test_a_cluster_that_sends_too_much_delays_no_calls(
    database: Database, tmp_path: Path, way: str
) -> None:
    quiet = hostile.saying(b'{"metadata": {"resourceVersion": "1"}, "items": []}')
    lets_us = hostile.saying(b'{"status": {"allowed": true}}')
    loud = _attack(way)
    attacking_now: list[bool] = []
    asked_for = 0

    async def answer(asked: Asked) -> None:
        nonlocal asked_for
        if "accessreviews" in asked.path:
            await lets_us(asked)
        else:
            asked_for += 1
            await hostile.alive_but(loud if attacking_now else quiet)(asked)

    variables = {"PILOTHOUSE_OUTBOUND_NETWORKS": "127.0.0.0/8"}
    async with (
        hostile_server(answer) as server,
        made_environment(database, tmp_path, variables=variables) as environment,
    ):
        credentials = pb.ClusterCredentials(address=pb.ClusterAddress(api_server=server.url, token="t"))
        asked_by_windows: list[int] = []

        @asynccontextmanager
        async def sending() -> AsyncIterator[None]:
            # A cluster that is known to send too much is not contacted for a while, but a new cluster is
            # contacted immediately.
            name = f"stranger-{len(asked_by_windows)}"
            attacking_now.append(True)
            await environment.admin.namespaces.register_cluster(
                cluster=pb.Cluster(name=name), credentials=credentials
            )
            before = asked_for
            try:
                yield
            finally:
                attacking_now.clear()
            asked_by_windows.append(asked_for - before)

        verdict = await environment.attacked(sending)
        assert verdict.faults() == []
        # The server requested each observed kind in each window.
        assert min(asked_by_windows) >= 8, asked_by_windows
        if way in ("lines", "pieces"):
            return

        async def reason() -> str:
            return str((await environment.admin.namespaces.get_cluster(name="stranger-0")).reason)

        await poll_until(reason, lambda found: found == "AnswerTooLarge", seconds=60.0)
