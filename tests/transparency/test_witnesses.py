"""Heads are cosigned by as many witnesses as the settings require.

A log that contradicts itself gets no cosignature.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog.testing
from prometheus_client import REGISTRY

from pilothouse.audit.v1.audit_pb2 import AuditHead
from pilothouse_client import audit_verifier
from pilothouse_server.audit.notes import Verifier
from pilothouse_server.audit.policy import Policy
from pilothouse_server.settings.model import SettingsError
from tests.conftest import Database
from tests.harness import running_server
from tests.transparency.logs import fill, witnessed
from tests.transparency.witness import witness
from tests.waiting import poll_until

ORIGIN = "example.com/pilothouse"


@pytest.mark.full
async def test_heads_are_cosigned_and_contradictions_are_not(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False, audit_origin=ORIGIN) as before:
        key = (await before.admin.audit.get_audit_head()).verifier_keys[0]
    logs = {ORIGIN: key}
    async with (
        witness("one.example/w", logs) as one,
        witness("two.example/w", logs) as two,
        witness("talks.example/w", logs) as talks,
    ):
        two.in_parts, talks.endless = True, True
        third = Verifier("away.example/w", bytes(range(32)), witness=True)
        async with running_server(
            database,
            tmp_path,
            with_cluster=False,
            audit_origin=ORIGIN,
            audit_seal_seconds=0.2,
            audit_witnesses=f"2 of {one.key}@{one.address}, {two.key}@{two.address}, {third}@http://127.0.0.1:1, "
            f"{talks.key}@{talks.address}",
        ) as server:
            first = await poll_until(lambda: witnessed(server), what="two cosignatures")
            assert first is not None
            await fill(server, 300)

            async def further() -> AuditHead | None:
                head = await witnessed(server)
                return head if head is not None and head.size > first.size + 300 else None

            head = await poll_until(further, what="cosignatures of a head that continues")
            assert head is not None
            assert (sorted(head.witnesses), head.witnessed) == (["one.example/w", "two.example/w"], True)
            # The witnesses' additions leave the log's own signature as it was.
            assert audit_verifier.head(head.checkpoint, key)[0] == ORIGIN
            # The server sends the size that the witness has reported, so 409 is the only refusal that can occur.
            assert set(one.refused) <= {409}
            assert talks.cut_off > 0
            assert server.application.sealer.identity.policy.met_by(head.checkpoint)


# The head that the witness has signed before: its size relative to the log's head, and the status of the witness's
# refusal.
FORKS = {"another tree": (-5, 422), "a head beyond the log": (10_000, 409)}


@pytest.mark.parametrize("fork", FORKS)
async def test_a_witness_that_has_signed_another_tree_proves_equivocation(
    database: Database, tmp_path: Path, fork: str
) -> None:
    async with running_server(database, tmp_path, with_cluster=False, audit_origin=ORIGIN) as before:
        await fill(before, 20)
        head = await before.admin.audit.get_audit_head(size=(await before.application.sealer.seal()).size)
    beyond, status = FORKS[fork]
    async with witness("one.example/w", {ORIGIN: head.verifier_keys[0]}) as other:
        other.signed[ORIGIN] = (head.size + beyond, bytes(32))
        labels = {"witness": "one.example/w", "reason": "EQUIVOCATION"}

        def counted() -> float:
            return REGISTRY.get_sample_value("pilothouse_audit_witness_failures_total", labels) or 0.0

        known = counted()
        with structlog.testing.capture_logs() as lines:
            async with running_server(
                database,
                tmp_path,
                with_cluster=False,
                audit_origin=ORIGIN,
                audit_seal_seconds=0.2,
                audit_witnesses=f"1 of {other.key}@{other.address}",
            ) as server:

                async def refused_again() -> bool:
                    await fill(server, 1)
                    return counted() >= known + 2

                await poll_until(refused_again, what="a witness that refuses", seconds=20)
                assert await witnessed(server) is None
                await server.application.feed.settled()
                alarms = [
                    each
                    async for each in server.admin.audit.list_operations(filter='error_code = "DATA_LOSS"')
                ]
        assert status in other.refused
        told = [line for line in lines if line.get("reason") == "EQUIVOCATION"]
        assert [(line["log_level"], line["witness"], line["status"]) for line in told] == [
            ("error", "one.example/w", status)
        ]
        assert [each.metadata["reason"] for each in alarms] == ["EQUIVOCATION"]
        assert not [line for line in lines if "witness of the audit log is away" in line["event"]]


@pytest.mark.parametrize(
    "text",
    [
        "KEY@http://a",
        "0 of {key}@http://a",
        "2 of {key}@http://a",
        "1 of {key}@ftp://a",
        "1 of {log}@http://a",
        "1 of {key}",
        "1 of nonsense@http://a",
    ],
)
def test_invalid_witness_policies_are_refused(text: str) -> None:
    key = Verifier("w.example", bytes(range(32)), witness=True)
    log = Verifier("w.example", bytes(range(32)))
    with pytest.raises(SettingsError, match="PILOTHOUSE_AUDIT_WITNESSES"):
        Policy.parse(text.format(key=key, log=log))
