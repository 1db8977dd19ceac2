"""Receives the notifications of writers of samples on a separate connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import asyncpg

from pilothouse_server.errors import Unavailable
from pilothouse_server.metrics.repository.samples import CHANNEL
from pilothouse_server.store.errors import CONNECTION_LOST, database_unavailable

_CHECK_SECONDS: Final = 5.0


async def listen(dsn: str, connected: Callable[[], None], announced: Callable[[int], None]) -> None:
    """Calls `connected` once, then `announced` with the lowest id of each committed batch, until cancelled.

    Raises:
        Unavailable: the connection is lost, or does not respond to a check.
    """
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=5.0,
            command_timeout=5.0,
            server_settings={"application_name": "pilothouse-usage-listener"},
        )
    except CONNECTION_LOST:
        raise _lost() from None
    gone = asyncio.Event()
    connection.add_termination_listener(lambda _connection: gone.set())

    def heard(_connection: Any, _process: int, _channel: str, payload: object) -> None:
        announced(int(str(payload)))

    try:
        await connection.add_listener(CHANNEL, heard)
        connected()
        while not gone.is_set():
            try:
                async with asyncio.timeout(_CHECK_SECONDS):
                    await gone.wait()
            except TimeoutError:
                await connection.execute("SELECT 1")
    except CONNECTION_LOST:
        raise _lost() from None
    finally:
        connection.terminate()
    raise _lost()


def _lost() -> Unavailable:
    return database_unavailable()
