"""Writes the events of volumes that containers began or ceased to mount: which ones do is a part of a volume.

The change of the container leaves a row of `mount_changes` for each such volume. Soon after its commit a server writes
the events in a short transaction of its own and removes the rows in it, as observed changes are written. So no change
of a container waits for the lock of a volume that many containers mount.

The server that has committed the change is woken by it. If its process dies before the events are written, the rows
are still there: every server looks for them every few seconds, and when it starts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from pilothouse_server.errors import PilothouseError
from pilothouse_server.storage import repository
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.operations import event
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

POLL_SECONDS = 5.0
_BATCH_ROWS = 100


class MountEvents:
    """Writes the events that a server has left, shared by all servers on the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                while await write_mount_events(self._store):
                    pass
            except PilothouseError as error:
                # The rows stay.
                log.warning("the events of mounted volumes are written later", reason=error.reason)
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._store.follow_ups.wait()
        self._store.follow_ups.clear()


async def write_mount_events(store: Store) -> Sequence[Volume]:
    """Writes the events of some volumes; returns these volumes, none where nothing is left."""
    async with store.system_look() as transaction:
        if not await repository.has_mount_changes(transaction):
            return ()
    async with store.system_write() as transaction:
        volumes = await repository.take_mount_changes(transaction, _BATCH_ROWS)
        for volume in volumes:
            transaction.emit(event(volume, "modified", volume))
    return volumes
