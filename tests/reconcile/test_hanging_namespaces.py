"""Applies that hang in one namespace leave workers of the cluster to the others."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pilothouse_server.reconcile.apply.container_reconciler import ContainerReconciler
from pilothouse_server.reconcile.repository import work_queue
from tests.reconcile.environment import QUICK, Environment
from tests.waiting import patient, poll_until

FEW = msgspec.structs.replace(QUICK, worker=msgspec.structs.replace(QUICK.worker, workers_per_cluster=4))


async def runs_beside_what_hangs(
    here: Environment, monkeypatch: pytest.MonkeyPatch, seconds: float, *, least: int
) -> bool:
    """Returns whether a container runs while applies of another namespace hang.

    That namespace has more work than the cluster has workers, and at least `least` of its applies hang.
    """
    act = ContainerReconciler.act
    hanging: set[str] = set()

    async def hang(self: ContainerReconciler, client: Any, loaded: Any) -> Any:
        if loaded.container.namespace == "busy":
            hanging.add(loaded.container.name)
            await asyncio.Event().wait()
        return await act(self, client, loaded)

    monkeypatch.setattr(ContainerReconciler, "act", hang)
    await here.namespace("busy")
    await here.namespace("shop")
    async with here.reconciling(FEW):
        for number in range(8):
            await here.create(f"stuck-{number}", "busy")
        await poll_until(lambda: _soon(len(hanging)), lambda count: count >= least)
        await here.create()
        try:
            async with asyncio.timeout(seconds):
                await here.running()
        except TimeoutError:
            return False
    return True


async def _soon(value: int) -> int:
    return value


async def test_hanging_applies_do_not_block_a_container_of_another_namespace(
    here: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await runs_beside_what_hangs(here, monkeypatch, patient(30.0), least=3)


@pytest.mark.full
async def test_ignoring_held_work_is_detected(here: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the lease does not learn how much work of each namespace is held."""
    lease = work_queue.lease

    async def of_nobody(connection: Any, *, held: Any, **how: Any) -> Any:
        return await lease(connection, **how)

    monkeypatch.setattr(work_queue, "lease", of_nobody)
    assert not await runs_beside_what_hangs(here, monkeypatch, 3.0, least=4)
