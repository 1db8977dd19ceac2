"""Writers, sequencers and a checker for the order that `put_changes` and `sequence_changes` promise.

`Environment` has objects in its own table. A writer locks some, raises their versions, and puts one event for each,
with `object:version` as its message. `faults` then reads the events and returns the faults of their order.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import asyncpg

from tests.conftest import Database, connection

PUT = "SELECT put_changes($1::jsonb, $2::bytea[], $3::jsonb, $4::bytea[])"


def record(number: int = 0, **columns: Any) -> dict[str, Any]:
    """Returns an audit record as the application sends it, without its hash."""
    return {"action": "update", "resource_type": "container", "resource_id": number, **columns}


def record_hash(one: dict[str, Any]) -> bytes:
    """Returns a hash in place of the record's; the database does not check its content."""
    return hashlib.sha256(json.dumps(one, sort_keys=True).encode()).digest()


def event(number: int = 0, **columns: Any) -> dict[str, Any]:
    """Returns an event without its message."""
    return {
        "resource_type": "container",
        "resource_id": number,
        "resource_name": f"object-{number}",
        "namespace_id": None,
        "kind": "modified",
        **columns,
    }


async def put(
    opened: asyncpg.Connection,
    records: list[dict[str, Any]],
    events: list[tuple[dict[str, Any], bytes]],
    *,
    operation: dict[str, Any] | None = None,
    idempotency: dict[str, Any] | None = None,
) -> int:
    """Puts one row of pending changes; returns its id."""
    put_id: int = await opened.fetchval(
        f"{PUT.removesuffix(')')}, $5::jsonb, $6::jsonb)",
        json.dumps(records),
        [record_hash(one) for one in records],
        json.dumps([one for one, _ in events]),
        [message for _, message in events],
        None if operation is None else json.dumps(operation),
        None if idempotency is None else json.dumps(idempotency),
    )
    return put_id


async def sequence(opened: asyncpg.Connection, limit: int = 200) -> list[asyncpg.Record]:
    """Calls the sequencer once; returns the events that it numbered, and last the head."""
    rows: list[asyncpg.Record] = await opened.fetch("SELECT * FROM sequence_changes($1)", limit)
    return rows


async def drain(opened: asyncpg.Connection) -> None:
    """Numbers changes until nothing is pending."""
    while (await sequence(opened))[-1]["more"]:
        pass


@dataclass
class Environment:
    """Objects that writers change.

    `committed` contains the acknowledged operations, in that order.
    """

    database: Database
    objects: int = 5
    committed: list[str] = field(default_factory=list)
    # Operation → an operation that its writer knew to be committed before it began.
    after: dict[str, str] = field(default_factory=dict)
    returned: list[asyncpg.Record] = field(default_factory=list)

    async def prepare(self) -> None:
        """Creates the table of objects."""
        async with connection(self.database.admin_dsn) as admin:
            await admin.execute(
                "CREATE TABLE counted (id integer PRIMARY KEY, version integer NOT NULL DEFAULT 0);"
                f"INSERT INTO counted (id) SELECT generate_series(1, {self.objects});"
                "GRANT SELECT, UPDATE ON counted TO pilothouse_system"
            )

    async def change(self, opened: asyncpg.Connection, choose: random.Random) -> None:
        """Makes one mutation of some objects, perhaps with a savepoint that is rolled back, perhaps with a rollback."""
        operation = str(uuid4())
        known = self.committed[-1] if self.committed else None
        transaction = opened.transaction()
        await transaction.start()
        events = []
        for number in sorted(choose.sample(range(1, self.objects + 1), choose.randint(1, 3))):
            if choose.random() < 0.2:
                inner = opened.transaction()
                await inner.start()
                await opened.execute("UPDATE counted SET version = version + 7 WHERE id = $1", number)
                await inner.rollback()
            version = await opened.fetchval(
                "UPDATE counted SET version = version + 1 WHERE id = $1 RETURNING version", number
            )
            events.append((event(number, operation_id=operation), f"{number}:{version}".encode()))
        await put(opened, [record(operation_id=operation)], events)
        if choose.random() < 0.15:
            await transaction.rollback()
            return
        await transaction.commit()
        self.committed.append(operation)
        if known is not None:
            self.after[operation] = known

    async def write(self, seed: int, count: int) -> None:
        """Makes `count` changes; reconnects if its connection is killed."""
        choose = random.Random(seed)
        left = count
        while left:
            try:
                async with connection(self.database.system_dsn) as opened:
                    while left:
                        left -= 1
                        await self.change(opened, choose)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                continue

    async def number(self, seed: int, done: asyncio.Event) -> None:
        """Runs one server's sequencer: calls with batches of any size until `done`."""
        choose = random.Random(seed)
        while not done.is_set():
            try:
                async with connection(self.database.system_dsn) as opened:
                    while not done.is_set():
                        self.returned += (await sequence(opened, choose.choice((1, 2, 5, 200))))[:-1]
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                continue

    async def faults(self) -> list[str]:
        """Returns the faults of the order, once everything is numbered."""
        async with connection(self.database.admin_dsn) as admin:
            rows = await admin.fetch("SELECT * FROM events ORDER BY revision")
            found = await numbering_faults(admin)
            if pending := await admin.fetchval("SELECT count(*) FROM pending_changes"):
                found.append(f"{pending} rows were never numbered")
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        versions: dict[int, int] = {}
        previous = None
        for expected, row in enumerate(rows, 1):
            operation = str(row["operation_id"])
            number, version = map(int, bytes(row["message"]).split(b":"))
            if row["revision"] != expected:
                found.append(f"revision {expected} is missing")
            if version != versions.get(number, 0) + 1:
                found.append(f"object {number} goes from {versions.get(number, 0)} to {version}")
            versions[number] = version
            if operation in first and previous != operation:
                found.append(f"operation {operation} is not in one piece")
            first.setdefault(operation, expected)
            last[operation] = expected
            previous = operation
        found += [f"{each} was acknowledged and has no event" for each in self.committed if each not in first]
        for later, earlier in self.after.items():
            if later in first and earlier in last and first[later] < last[earlier]:
                found.append(f"{later} began after {earlier} and is numbered before it")
        return found


async def numbering_faults(opened: asyncpg.Connection) -> list[str]:
    """Returns the faults in the places and marks of the audit log; `opened` may read all of it."""
    found = []
    marks, expected = [bytes(8)], 0
    for row in await opened.fetch("SELECT sequence, mark FROM operation_logs ORDER BY sequence"):
        expected += 1
        if row["sequence"] != expected:
            found.append(f"sequence {expected} is missing or double")
            expected = row["sequence"]
        if row["mark"] in marks:
            found.append(f"record {row['sequence']} has the mark of another one")
        marks.append(row["mark"])
    head = await opened.fetchrow("SELECT audit_sequence, record_mark FROM stream_head")
    assert head is not None
    if (head[0], head[1]) != (expected, marks[-1]):
        found.append("the head is not the last record's")
    return found
