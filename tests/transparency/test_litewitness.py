"""Another project's witness cosigns heads of the product.

It refuses a head that contradicts its earlier signature.
"""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from pilothouse.audit.v1.audit_pb2 import AuditHead
from pilothouse_client import audit_verifier
from tests.conftest import Database
from tests.harness import Server, running_server
from tests.transparency.go import needs_go, run
from tests.transparency.litewitness import built, litewitness, needs_litewitness
from tests.transparency.logs import fill, witnessed
from tests.waiting import poll_until

ORIGIN = "example.com/pilothouse"
NAME = "debian.example/litewitness"

pytestmark = [pytest.mark.full, needs_go, needs_litewitness]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the built witness."""
    return await built(tmp_path_factory.mktemp("litewitness"))


def failures() -> float:
    """Returns how often the witness refused to sign."""
    return (
        REGISTRY.get_sample_value(
            "pilothouse_audit_witness_failures_total", {"witness": NAME, "reason": "EQUIVOCATION"}
        )
        or 0.0
    )


async def further(server: Server, size: int) -> AuditHead | None:
    """Returns a head beyond a size that enough witnesses have signed."""
    head = await witnessed(server)
    return head if head is not None and head.size > size else None


async def test_litewitness_signs_heads_and_refuses_a_contradiction(
    database: Database, tmp_path: Path, program: Path, verify: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False, audit_origin=ORIGIN) as server:
        key = (await server.admin.audit.get_audit_head()).verifier_keys[0]
    async with (
        litewitness(program, NAME, ORIGIN, key) as witness,
        running_server(
            database,
            tmp_path,
            with_cluster=False,
            audit_origin=ORIGIN,
            audit_seal_seconds=0.2,
            audit_witnesses=f"1 of {witness.key}@{witness.address}",
        ) as server,
    ):
        first = await poll_until(partial(further, server, 0), what="a cosignature")
        assert first is not None
        await fill(server, 600)
        # The witness signs another head only with a proof that the log continues the previous one.
        head = await poll_until(partial(further, server, first.size + 600), what="another one")
        assert head is not None
        assert list(head.witnesses) == [NAME]
        assert "error" not in witness.said.read_text().lower()
        file = tmp_path / "head"
        file.write_text(head.checkpoint)
        good = await run(verify, "--cosigned", file, ORIGIN, key, witness.key)
        assert good.returncode == 0, good.stderr
        assert good.stdout.split()[::2] == [NAME, str(head.size)]
        _, size, root = audit_verifier.head(head.checkpoint, key)
        known, known_root = witness.knows(ORIGIN)
        assert known >= size
        assert known > size or known_root == base64.b64encode(root).decode()
        # This has the same effect as if the log had shown the witness another tree.
        before, other = failures(), base64.b64encode(bytes(32)).decode()
        await fill(server, 10)

        async def refused() -> bool:
            # Set it again, because the witness may have signed a head since.
            witness.believes(ORIGIN, other)
            await fill(server, 1)
            return failures() >= before + 3

        await poll_until(refused, what="a witness that refuses")
        signed = witness.knows(ORIGIN)
        await fill(server, 10)
        later = await server.application.sealer.seal()
        assert later.size > signed[0]
        assert witness.knows(ORIGIN) == (signed[0], other)
        assert NAME not in later.note
