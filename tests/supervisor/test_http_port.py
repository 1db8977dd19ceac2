"""The HTTP port of several processes.

All of them listen on it, and the others serve after one was killed.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.conftest import Database
from tests.supervisor.group import group, variables
from tests.waiting import patient, poll_until


def _listening(children: set[int], port: int) -> set[int]:
    return {
        child
        for child in children
        for each in psutil.Process(child).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }


@pytest.mark.full
async def test_processes_share_the_http_port(database: Database, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    of = variables(database, tmp_path) | {"PILOTHOUSE_HTTP_LISTEN": f"127.0.0.1:{port}"}
    limit = aiohttp.ClientTimeout(patient(10.0))
    async with (
        group(tmp_path, of) as made,
        aiohttp.ClientSession(
            f"http://127.0.0.1:{port}", connector=aiohttp.TCPConnector(force_close=True), timeout=limit
        ) as session,
    ):

        async def lives() -> bool:
            try:
                async with session.get("/livez") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        children = made.children()
        assert len(children) == 2

        async def listening() -> set[int]:
            return _listening(children, port)

        await poll_until(listening, children.__eq__, what="both listen")
        assert await lives()
        os.kill(min(children), signal.SIGKILL)
        await poll_until(lives, what="the other process serves")
