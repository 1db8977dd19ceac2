"""`pilothouse audit` for users who trust witnesses and kept checkpoints: online, offline, and after a drop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.harness import PASSWORD, running_server
from tests.main_job.command import Shell
from tests.transparency.logs import fill, last_month, this_month, witnessed
from tests.transparency.test_retention import retention
from tests.transparency.witness import witness
from tests.waiting import poll_until

ORIGIN = "example.com/pilothouse"

pytestmark = pytest.mark.full


async def log_in(shell: Shell, address: str) -> None:
    await shell.succeed(
        "login", "--server", address, "--user", "admin", "--password-stdin", given=f"{PASSWORD}\n"
    )


async def test_a_verified_head_has_the_wanted_number_of_witnesses(database: Database, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    kept, export = tmp_path / "kept", tmp_path / "export"
    settings = {"with_cluster": False, "audit_origin": ORIGIN, "audit_seal_seconds": 0.2}
    async with running_server(database, tmp_path / "server", **settings) as server:  # type: ignore[arg-type]
        head = await server.admin.audit.get_audit_head()
    key = head.verifier_keys[0]
    kept.write_text(head.checkpoint)
    logs = {ORIGIN: key}
    async with (
        witness("one.example/w", logs) as one,
        witness("two.example/w", logs) as two,
        witness("three.example/w", {}) as three,
    ):
        policy = f"2 of {one.key}@{one.address}, {two.key}@{two.address}"
        async with running_server(
            database,
            tmp_path / "server",
            **settings,  # type: ignore[arg-type]
            audit_witnesses=policy,
        ) as server:
            await fill(server, 50)
            await poll_until(lambda: witnessed(server), what="two cosignatures")
            await log_in(shell, server.address)
            trusted = ["--witness", one.key, "--witness", two.key, "--witness", three.key]
            for options in ([], ["--from-checkpoint", str(kept)]):
                said = await shell.succeed("audit", "verify", *trusted, "--quorum", "2", *options)
                assert "by one.example/w, two.example/w" in said
                refused = await shell.run("audit", "verify", *trusted, "--quorum", "3", *options)
                assert (refused.code, "2 of the witnesses" in refused.errors) == (1, True), refused
            unclear = await shell.run("audit", "verify", "--quorum", "1")
            assert unclear.code == 2
            said = await shell.succeed("audit", "head", "--size", str((await witnessed(server)).size))  # type: ignore[union-attr]
            assert "one.example/w two.example/w" in said
            assert key in said
            await shell.succeed("audit", "export", str(export), "--witnessed")
    offline = ["audit", "verify", "--offline", str(export), "--key", key]
    found = json.loads(await shell.succeed(*offline, *trusted, "--quorum", "2"))
    assert found["witnesses"] == ["one.example/w", "two.example/w"]
    assert (await shell.run(*offline, *trusted)).code == 1


async def test_a_checkpoint_that_is_not_compared_has_its_own_exit_code(
    database: Database, tmp_path: Path
) -> None:
    """Retention has dropped records before the checkpoint's end, so the records alone do not lead to it."""
    shell = Shell(tmp_path)
    kept, plain, proven = (tmp_path / name for name in ("kept", "plain", "proven"))
    async with running_server(
        database, tmp_path / "server", with_cluster=False, audit_seal_seconds=60.0
    ) as server:
        await fill(server, 30, age=last_month())
        await fill(server, 5)
        size = (await server.application.sealer.seal()).size
        head = await server.admin.audit.get_audit_head(size=size)
        kept.write_text(head.checkpoint)
        assert await retention(server).drop_older(this_month())
        await log_in(shell, server.address)
        await shell.succeed("audit", "export", str(plain))
        await shell.succeed("audit", "export", str(proven), "--from-checkpoint", str(kept))
        assert plain.stat().st_mode & 0o777 == 0o600
    options = ["--key", head.verifier_keys[0], "--from-checkpoint", str(kept)]
    not_compared = await shell.run("audit", "verify", "--offline", str(plain), *options)
    assert not_compared.code == 3, not_compared
    assert json.loads(not_compared.output)["checkpoint"].startswith("not compared")
    found = json.loads(await shell.succeed("audit", "verify", "--offline", str(proven), *options))
    assert (found["checkpoint"], found["complete"], found["dropped"] >= 30) == ("matches", True, True)
    # A proof with other hashes is refused.
    lines = proven.read_text().splitlines()
    end = json.loads(lines[-1])
    end["consistency"]["hashes"] = end["consistency"]["hashes"][::-1]
    proven.write_text("\n".join([*lines[:-1], json.dumps(end)]))
    wrong = await shell.run("audit", "verify", "--offline", str(proven), *options)
    assert (wrong.code, "not those of the checkpoint" in wrong.errors) == (1, True), wrong
