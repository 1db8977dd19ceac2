"""Promise 9 over the HTTP port: unfinished sockets delay no calls.

A thousand sockets begin a request and stop. The calls on both ports continue.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import Database
from tests.promises.hostile.attacker import Attack, attacking
from tests.promises.hostile.environment import Environment
from tests.promises.hostile.environment import environment as made_environment
from tests.promises.hostile.http_attacks import KINDS
from tests.waiting import patient, runs_out

# The number of sockets of each kind (1,000 in total), and of their addresses, which may have 512 sockets each.
_COUNT, _ADDRESSES = 200, 5
_LIST = "/pilothouse.container.v1.ContainerService/ListContainers"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Bystander:
    """A program that makes JSON calls all the time, from its own address."""

    def __init__(self, address: str, token: str) -> None:
        self.calls = 0
        self.errors: list[str] = []
        self._over: asyncio.Future[None]
        self._url = f"http://{address}"
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    @asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Makes calls until the end of the block."""
        self._over = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._call())
        try:
            yield
        finally:
            self._over.set_result(None)
            await task

    async def _call(self) -> None:
        own = aiohttp.TCPConnector(local_addr=("127.0.0.7", 0), force_close=True)
        limit = aiohttp.ClientTimeout(patient(10.0))
        async with aiohttp.ClientSession(self._url, connector=own, timeout=limit) as session:
            while not self._over.done():
                await self._call_once(session)
                await asyncio.wait([self._over], timeout=runs_out(0.1))

    async def _call_once(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(
                _LIST, data=json.dumps({"namespace": "own-1"}), headers=self._headers
            ) as response:
                if response.status != 200:
                    self.errors.append(await response.text())
        except (aiohttp.ClientError, TimeoutError) as error:
            self.errors.append(repr(error))
        self.calls += 1


async def _largest_file(address: str) -> str:
    async with (
        aiohttp.ClientSession(f"http://{address}") as session,
        session.get("/") as page,
    ):
        found = re.search(r'src="\.?(/assets/[^"]+\.js)"', await page.text())
    assert found is not None
    return found[1]


@pytest.mark.soak(part="hostile")
async def test_unfinished_sockets_delay_no_calls(database: Database, tmp_path: Path) -> None:
    address = f"127.0.0.1:{_free_port()}"
    async with made_environment(
        database, tmp_path, variables={"PILOTHOUSE_HTTP_LISTEN": address}
    ) as environment:
        token = await environment.user("somebody", "viewer", "own-1")
        bystander = _Bystander(address, await environment.user("program", "viewer", "own-1"))
        verdict = await _attacked(environment, address, token, bystander)
    assert verdict == []


async def _attacked(environment: Environment, address: str, token: str, bystander: _Bystander) -> list[str]:
    options = {"addresses": _ADDRESSES, "file": await _largest_file(address)}

    @asynccontextmanager
    async def attack() -> AsyncIterator[Attack]:
        order = {"address": address, "count": _COUNT, "token": token, "options": options}
        async with (
            attacking("tests.promises.hostile.http_attacks", "left_open", **order) as begun,
            bystander.calling(),
        ):
            yield begun

    verdict = await environment.attacked(attack)
    faults = verdict.faults(strangers=False)
    faults += [f"a program failed: {error}" for error in bystander.errors]
    if bystander.calls < 10:
        faults.append(f"a program made {bystander.calls} calls")
    for report in verdict.reports:
        faults += [
            f"{kind}: {report.get(f'{kind} begun', 0)} were begun"
            for kind in KINDS
            if report.get(f"{kind} begun", 0) < _COUNT
        ]
    return faults
