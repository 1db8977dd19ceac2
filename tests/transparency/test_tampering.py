"""Every change of the log by a superuser is found, with its place (promise 2).

Some changes are found only with a head from outside.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse_server.app import Application
from pilothouse_server.audit import notes
from pilothouse_server.audit.log_identity import LogIdentity, name_of
from pilothouse_server.audit.notes import Signer
from pilothouse_server.audit.policy import Policy
from pilothouse_server.audit.sealing import Sealer
from pilothouse_server.audit.verification import Fault
from pilothouse_server.errors import FailedPrecondition
from pilothouse_server.store import audit_tree
from pilothouse_server.store.audit_tree import Seal
from tests.conftest import Database, connection, new_database
from tests.harness import running_server
from tests.transparency.logs import (
    detached,
    fill,
    idle_application,
    last_month,
    rebuild,
    superuser,
    verified,
)

N = 300


# The changes, and their findings: faults with their ranges.
TAMPERINGS = {
    "a character": (
        ["UPDATE operation_logs SET username = 'somebodx' WHERE sequence = 300"],
        {(Fault.ALTERED, N, N)},
    ),
    "a microsecond": (
        [
            "UPDATE operation_logs SET completed_at = completed_at + interval '1 microsecond' WHERE sequence = 300"
        ],
        {(Fault.ALTERED, N, N)},
    ),
    "a number in a body": (
        ["UPDATE operation_logs SET request_body = request_body || '{\"big\": 1}' WHERE sequence = 300"],
        {(Fault.ALTERED, N, N)},
    ),
    "a record with its hash": (
        [
            "UPDATE operation_logs SET username = 'x', record_hash = sha256('x') WHERE sequence = 300",
        ],
        {(Fault.ALTERED, N, N)},
    ),
    "deletion": (["DELETE FROM operation_logs WHERE sequence IN (300, 301)"], {(Fault.MISSING, N, N + 1)}),
    "a swap": (
        ["UPDATE operation_logs SET sequence = 601 - sequence WHERE sequence IN (300, 301)"],
        {(Fault.ALTERED, N, N + 1)},
    ),
    "an insertion": (
        [
            "INSERT INTO operation_logs SELECT (jsonb_populate_record(l, jsonb_build_object('id', 999999, "
            "'started_at', started_at + interval '1 second'))).* FROM operation_logs AS l WHERE sequence = 300"
        ],
        {(Fault.INSERTED, N, N)},
    ),
    "a record beyond the end": (
        ["UPDATE operation_logs SET sequence = sequence + 100000 WHERE sequence = 300"],
        {(Fault.MISSING, N, N), (Fault.INSERTED, N + 100_000, N + 100_000)},
    ),
    "a tile": (
        ["UPDATE audit_tiles SET hashes = set_byte(hashes, 0, 255 - get_byte(hashes, 0)) WHERE level = 0"],
        {(Fault.TREE, 0, 0)},
    ),
    "a tile that is gone": (["DELETE FROM audit_tiles WHERE level = 0"], {(Fault.TREE, 0, 0)}),
    "a head": (
        ["UPDATE audit_seals SET root = sha256('x') WHERE size = (SELECT max(size) FROM audit_seals)"],
        {(Fault.SEAL, 0, 0)},
    ),
    "a note": (
        [
            "UPDATE audit_seals SET note = replace(note, '/', '+') WHERE size = (SELECT max(size) FROM audit_seals)"
        ],
        {(Fault.SEAL, 0, 0)},
    ),
    "the end of the records": (
        ["DELETE FROM operation_logs WHERE sequence > (SELECT audit_sequence - 5 FROM stream_head)"],
        {(Fault.MISSING, 0, 0)},
    ),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def log(postgres, template_database, tmp_path_factory) -> AsyncIterator[tuple[Database, Application]]:  # type: ignore[no-untyped-def]
    """Yields a log of several heads that no server writes to any more.

    Some records are of the previous month.
    """
    directory: Path = tmp_path_factory.mktemp("log")
    async with new_database(postgres, template_database.name) as database:
        async with running_server(database, directory, with_cluster=False, audit_seal_seconds=60.0) as server:
            await fill(server, 40, age=last_month())
            await server.application.sealer.seal()
            await fill(server, 600)
            await server.application.sealer.seal()
            await fill(server, 50)
        async with idle_application(database, directory) as application:
            await application.sealer.seal()
            yield database, application


async def test_an_unchanged_log_is_intact(log: tuple[Database, Application]) -> None:
    report = await verified(log[1])
    assert report.findings == []
    assert report.verified == report.total > 690


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_found_at_its_place(log: tuple[Database, Application], name: str) -> None:
    database, application = log
    statements, expected = TAMPERINGS[name]
    async with superuser(database) as sql:
        for statement in statements:
            assert not (await sql.execute(statement)).endswith(" 0"), "nothing was done"
        found = {(each.fault, each.first, each.last) for each in (await verified(application)).findings}
    for fault, first, last in expected:
        if first == 0:
            assert fault in {each[0] for each in found}, found
        else:
            assert (fault, first, last) in found, found
    assert (await verified(application)).findings == []


async def test_a_detached_partition_is_reported_missing(log: tuple[Database, Application]) -> None:
    database, application = log
    async with connection(database.admin_dsn) as sql, detached(sql, 1) as (first, last):
        findings = (await verified(application)).findings
    assert [(each.fault, each.first, each.last) for each in findings] == [(Fault.MISSING, first, last)]
    assert last - first == 39


async def test_records_and_tree_altered_alike_contradict_the_next_head(
    log: tuple[Database, Application],
) -> None:
    database, application = log
    async with superuser(database) as sql:
        heads = [row["size"] for row in await sql.fetch("SELECT size FROM audit_seals ORDER BY size")]
        await sql.execute("UPDATE operation_logs SET username = 'x' WHERE sequence = 300")
        await rebuild(application, sql)
        findings = (await verified(application)).findings
    (first,) = [each for each in findings if each.fault is Fault.TREE]
    before = max(size for size in heads if size < N)
    assert before < first.first <= N <= first.last <= min(size for size in heads if size >= N)


async def test_heads_of_former_keys_are_compared_with_the_tree(log: tuple[Database, Application]) -> None:
    database, application = log
    new = LogIdentity([bytes(range(32))], [], "", Policy())
    async with application.store.system_read() as transaction:
        state = await audit_tree.read(transaction)
        heads = list(await audit_tree.newest_seals(transaction, most=100))[::-1]
    (old,) = application.sealer.identity.signers(name_of(state))

    async def sign(sql, seal: Seal, *signers: Signer) -> None:  # type: ignore[no-untyped-def]
        note = notes.signed(notes.parse(seal.note)[0], signers)
        await sql.execute("UPDATE audit_seals SET note = $2 WHERE size = $1", seal.size, note)

    nobody = await verified(application, identity=new)
    assert [(each.fault, each.first, each.last) for each in nobody.findings] == [
        (Fault.SEAL, 1, heads[-1].size)
    ]
    async with superuser(database) as sql:
        # The heads do not belong to a log that was given another name.
        await sql.execute("UPDATE audit_tree SET origin = 'another/log'")
        assert {each.fault for each in (await verified(application)).findings} == {Fault.SEAL}
        await sql.execute("UPDATE audit_tree SET origin = NULL")
        (added,) = new.signers(name_of(state))
        await sign(sql, heads[-1], added, old)
        report = await verified(application, identity=new)
        assert (report.findings, report.former_heads) == ([], len(heads) - 1)
        # A verifier with the former key also verifies those heads.
        named = LogIdentity([bytes(range(32))], [], "", Policy(), [old.verifier])
        report = await verified(application, identity=named)
        assert (report.findings, report.former_heads) == ([], 0)
        # A key that was never handed over does not belong to the log, so a head with an altered key is found.
        stranger = Signer(name_of(state), bytes(range(1, 33)))
        await sign(sql, heads[0], stranger)
        found = (await verified(application, identity=new)).findings
        assert [(each.fault, each.last) for each in found] == [(Fault.SEAL, heads[0].size)]
        await sign(sql, heads[0], old)
        await sign(sql, heads[-1], added)
        found = (await verified(application, identity=new)).findings
        assert [(each.fault, each.last) for each in found] == [(Fault.SEAL, heads[-2].size)]
        await sign(sql, heads[-1], added, old)
        # The content is compared whichever key signed.
        await sql.execute("UPDATE audit_seals SET root = sha256('x') WHERE size = $1", heads[0].size)
        assert [each.fault for each in (await verified(application, identity=new)).findings] == [Fault.SEAL]
        await sql.execute("UPDATE audit_seals SET root = $2 WHERE size = $1", heads[0].size, heads[0].root)
        # If a known key has signed an earlier head, every later head must be signed by a known key.
        await sign(sql, heads[0], added)
        found = (await verified(application, identity=new)).findings
        assert [(each.fault, each.last) for each in found] == [
            (Fault.SEAL, seal.size) for seal in heads[1:-1]
        ]
        assert len(heads) > 2


async def test_an_attacker_who_can_sign_is_found_only_by_an_outside_checkpoint(
    log: tuple[Database, Application],
) -> None:
    database, application = log
    async with application.store.system_read() as transaction:
        seal = await audit_tree.newest_seal(transaction)
    assert seal is not None
    kept, _ = notes.parse(seal.note)
    async with superuser(database) as sql:
        await sql.execute("UPDATE operation_logs SET username = 'x' WHERE sequence = 300")
        await sql.execute("DELETE FROM audit_seals")
        await rebuild(application, sql)
        with pytest.raises(FailedPrecondition, match="is gone"):
            await application.sealer.seal()
        await sql.execute("UPDATE audit_tree SET stopped_history = NULL")
        # A server that has not seen the heads signs the log again: it uses its own key, so none has to be stolen.
        restarted = Sealer(application.store, application.sealer.identity, lambda: 0, period_seconds=60.0)
        await restarted.seal()
        assert (await verified(application)).findings == [], "nothing inside tells of it"
        found = (await verified(application, kept)).findings
        assert [each.fault for each in found] == [Fault.CHECKPOINT]
        assert found[0].first <= N <= found[0].last
        # The log is cut back to an older head, and the heads after that are removed.
        await sql.execute("DELETE FROM operation_logs WHERE sequence > 500")
        await sql.execute(
            "UPDATE stream_head SET audit_sequence = 500, "
            "record_mark = (SELECT mark FROM operation_logs WHERE sequence = 500)"
        )
        await sql.execute("DELETE FROM audit_seals")
        await rebuild(application, sql)
        assert (await verified(application)).findings == []
        cut = (await verified(application, kept)).findings
        assert [(each.fault, each.last) for each in cut] == [(Fault.CHECKPOINT, kept.size)]
