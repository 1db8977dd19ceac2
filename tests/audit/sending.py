"""A runner of sinks in a separate process, to be killed.

Its arguments are the system role's address, a folder, and seconds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from pilothouse_server.audit.sinks.making import SenderMaker
from pilothouse_server.audit.sinks.runner import SinkRunner
from pilothouse_server.audit.sinks.senders.http import HttpSender
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.outbound.destinations import LOOPBACK, Reach
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.engine import Database
from pilothouse_server.store.unit_of_work import Store
from tests.waiting import runs_out


async def soon(_position: int, _seconds: float) -> bool:
    """Checks again almost immediately: no feed announces new records here."""
    with suppress(TimeoutError):
        async with asyncio.timeout(runs_out(0.02)):
            await asyncio.Event().wait()
    return True


def send_without_waiting() -> None:
    """Breaks the promise, for the control: a batch counts as acknowledged before it is sent."""
    send, sending = HttpSender.send, set()

    async def careless(self: HttpSender, items: Sequence[bytes]) -> None:
        sending.add(asyncio.create_task(send(self, items)))

    HttpSender.send = careless  # type: ignore[method-assign]


async def send(dsn: str, folder: Path, lease_seconds: float) -> None:
    """Sends records until the process is killed."""
    settings = Settings(
        database_url=dsn, system_database_url=dsn, maintenance_database_url=dsn, data_dir=folder
    )
    store = Store(Database.connect(msgspec.structs.replace(settings, pool_open_connections=4)))
    envelopes = Envelopes(KeyRing.load(folder / "keys", create=True))
    maker = SenderMaker(folder, Reach(LOOPBACK))
    await SinkRunner(store, envelopes, maker, soon, lease_seconds=lease_seconds).run()


if __name__ == "__main__":
    if "careless" in sys.argv:
        send_without_waiting()
    asyncio.run(send(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
