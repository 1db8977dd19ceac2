"""Recent proofs in the command: with a terminal it prompts and continues, without one it prints the command to run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from tests.client.command import Command
from tests.conftest import Database
from tests.identity.factors import enrolled
from tests.identity.server import PASSWORD, Caller, IdentityServer, running
from tests.identity.test_api_keys import listed, make
from tests.identity.test_reauthentication import grow_old
from tests.main_job.terminal import Terminal

_CREATE = ("api-keys", "create", "ci", "--quiet")


@pytest_asyncio.fixture(loop_scope="session")
async def server(database: Database) -> AsyncIterator[IdentityServer]:
    async with running(database) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def anna(server: IdentityServer, pilothouse: Command) -> Caller:
    """Returns a user whose session in the command is older than ten minutes."""
    caller = await server.user(await server.admin(), "anna")
    login = ("login", "--server", server.address, "--insecure", "--user", "anna", "--password-stdin")
    assert (await pilothouse(*login, stdin=PASSWORD + "\n")).code == 0
    await grow_old(server.database, "anna")
    return caller


@pytest_asyncio.fixture(loop_scope="session")
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal(rows=30, columns=200)
    yield made
    made.close()


async def _names(caller: Caller) -> list[str]:
    return sorted(key.name for key in await listed(caller))


async def test_on_a_terminal_the_command_prompts_for_the_password_and_continues(
    anna: Caller, terminal: Terminal, tmp_path: Path
) -> None:
    environment = os.environ | {"PILOTHOUSE_CONFIG": str(tmp_path / "config.json")}
    command = (sys.executable, "-m", "pilothouse_client", *_CREATE)
    async with terminal.running(*command, env=environment) as process:
        await terminal.shows(b"recent proof of your identity")
        await terminal.shows(b"Password: ")
        terminal.type(b"not my password\n")
        await terminal.shows(b"the current password is wrong")
        await terminal.shows(b"Password: ")
        terminal.type(PASSWORD.encode() + b"\n")
        await terminal.shows(b"phk_")
        assert await process.wait() == 0
    assert await _names(anna) == ["ci"]


async def test_on_a_terminal_the_command_prompts_enrolled_users_for_a_code(
    server: IdentityServer, anna: Caller, terminal: Terminal, pilothouse: Command, tmp_path: Path
) -> None:
    anna = await server.log_in("anna")
    phone = await enrolled(server, anna)
    login = ("login", "--server", server.address, "--insecure", "--user", "anna", "--password-stdin")
    typed = f"{PASSWORD}\n{await phone.code()}\n"
    assert (await pilothouse(*login, stdin=typed)).code == 0
    await grow_old(server.database, "anna")
    environment = os.environ | {"PILOTHOUSE_CONFIG": str(tmp_path / "config.json")}
    command = (sys.executable, "-m", "pilothouse_client", *_CREATE)
    async with terminal.running(*command, env=environment) as process:
        await terminal.shows(b"Code: ")
        terminal.type((await phone.code()).encode() + b"\n")
        await terminal.shows(b"phk_")
        assert await process.wait() == 0
    assert await _names(anna) == ["ci"]


async def test_without_a_terminal_the_command_prints_what_to_run(
    server: IdentityServer, anna: Caller, pilothouse: Command
) -> None:
    said: list[str] = []
    for words in (_CREATE, ("totp", "enrol"), ("totp", "confirm", "--code", "123456")):
        ended = await pilothouse(*words, stdin=f"{PASSWORD}\n")
        assert ended.code == 5, ended.err
        assert (ended.out, "recent proof" in ended.err) == ("", True)
        said = shlex.split(ended.err.rstrip().rpartition(": ")[2])
    assert await _names(anna) == []
    # The suggested command works.
    assert said[:2] == ["pilothouse", "login"]
    assert (await pilothouse(*said[1:], "--password-stdin", stdin=f"{PASSWORD}\n")).code == 0
    assert (await pilothouse(*_CREATE)).out.startswith("phk_")


async def test_a_password_change_reports_the_remaining_keys(
    server: IdentityServer, anna: Caller, pilothouse: Command
) -> None:
    anna = await server.log_in("anna")
    await make(anna, "first")
    await make(anna, "second")
    both = f"{PASSWORD}\n{PASSWORD} 2\n"
    ended = await pilothouse("passwd", "--password-stdin", stdin=both)
    assert ended.code == 0, ended.err
    assert "remain valid: 2" in ended.err
    ended = await pilothouse("passwd", "--password-stdin", "--end-keys", stdin=f"{PASSWORD} 2\n{PASSWORD}\n")
    assert (ended.code, ended.err) == (0, "")
    root = await server.admin()
    assert not (await root.ListApiKeys(keys_pb.ListApiKeysRequest(username="anna"))).api_keys
