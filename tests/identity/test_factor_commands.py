"""Second factors and one-time reset codes, in the command and the Python client."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from pathlib import Path

import pytest

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import second_factor_pb2 as factor_pb
from pilothouse_client import AsyncClient, Client, UnauthenticatedError
from tests.conftest import Database, connection
from tests.harness import PASSWORD, Server, running_server
from tests.identity.factors import authenticator_code
from tests.main_job.command import Shell, logged_in
from tests.waiting import patient

pytestmark = pytest.mark.full

NEW = "a password of her own"


async def code_of(server: Server, secret: str) -> str:
    """Returns the current code, as if no code had been used yet."""
    async with connection(server.database.admin_dsn) as sql:
        await sql.execute("UPDATE users SET totp_last_step = 0")
    return authenticator_code(base64.b32decode(secret), time.time())


def secret_in(printed: str) -> str:
    """Returns the secret that a command has printed."""
    found = re.search(r"otpauth://totp/Pilothouse:\w+\?\S*secret=([A-Z2-7]+)", printed)
    assert found is not None, printed
    assert printed.count(found[1]) == 2
    return found[1]


async def test_commands_manage_an_authenticator_from_enrolment_to_reset(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        (tmp_path / "anna").mkdir()
        admin, anna = await logged_in(server, tmp_path), Shell(tmp_path / "anna")
        create = ("users", "create", "anna", "--email", "anna@example.org", "--password-stdin")
        await admin.succeed(*create, given=f"{PASSWORD}\n")
        login = ("login", "--server", server.address, "--user", "anna", "--password-stdin")
        await anna.succeed(*login, given=f"{PASSWORD}\n")

        secret = secret_in(await anna.succeed("totp", "enrol"))
        wrong = await anna.run("totp", "confirm", "--code", "000000")
        assert (wrong.code, "authenticator enrolled last" in wrong.errors) == (3, True), wrong
        confirmed = await anna.succeed("totp", "confirm", "--code", await code_of(server, secret))
        recovery_codes = re.findall(r"(?:[0-9a-z]{4}-){3}[0-9a-z]{4}", confirmed)
        assert len(recovery_codes) == 10

        refused = await anna.run(*login, "--code", "000000", given=f"{PASSWORD}\n")
        assert "the code is wrong, or was used already" in refused.errors
        await anna.succeed(*login, "--code", await code_of(server, secret), given=f"{PASSWORD}\n")
        by_recovery = await anna.run(*login, given=f"{PASSWORD}\n{recovery_codes[0]}\n")
        assert "9 recovery codes are left" in by_recovery.errors, by_recovery
        sessions = await anna.read("sessions", "list")
        assert sessions[0]["method"] == "SESSION_METHOD_PASSWORD_RECOVERY"
        assert "PASSWORD_TOTP" in await anna.succeed("sessions", "list")

        shown = await admin.succeed("users", "reset-password", "anna", "--one-time-code")
        one_time = shown.strip()
        assert re.fullmatch(r"(?:[0-9a-z]{5}-){3}[0-9a-z]{5}", one_time)
        given = f"{one_time}\n{NEW}\n"
        await anna.succeed(*login, "--code", await code_of(server, secret), given=given)
        await anna.succeed(*login, "--code", recovery_codes[1], given=f"{NEW}\n")

        listed = json.loads(
            await admin.succeed("users", "list", "--filter", "second_factor = true", "-o", "json")
        )
        assert [user["username"] for user in listed] == ["anna"]
        await admin.succeed("users", "reset-second-factor", "anna", "--yes")
        assert (await anna.run("whoami")).code != 0
        await anna.succeed(*login, given=f"{NEW}\n")
        secret = secret_in(await anna.succeed("totp", "enrol"))
        await anna.succeed("totp", "confirm", "--code", await code_of(server, secret))
        await anna.succeed("totp", "disable", "--password-stdin", given=f"{NEW}\n")
        await anna.succeed(*login, given=f"{NEW}\n")


async def test_a_user_who_needs_an_authenticator_enrols_it_at_login(
    database: Database, tmp_path: Path
) -> None:
    async with running_server(database, tmp_path, with_cluster=False, second_factor_roles="admin") as server:
        shell = Shell(tmp_path)
        login = ("login", "--server", server.address, "--user", "admin", "--password-stdin")
        process = await shell.start(*login)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{PASSWORD}\n".encode())
        printed = ""
        while "\n  " not in printed or printed.count("\n") < 4:
            line = await asyncio.wait_for(process.stdout.readline(), patient(60.0))
            assert line, "it ended"
            printed += line.decode()
        secret = secret_in(printed)
        process.stdin.write(f"{await code_of(server, secret)}\n".encode())
        rest, _ = await asyncio.wait_for(process.communicate(), patient(60.0))
        assert process.returncode == 0
        assert len(re.findall(r"(?:[0-9a-z]{4}-){3}[0-9a-z]{4}", rest.decode())) == 10
        assert "admin" in await shell.succeed("whoami")


async def test_the_client_completes_challenges(database: Database, tmp_path: Path) -> None:
    async with running_server(database, tmp_path, with_cluster=False) as server:
        await server.admin.identity.create_user(
            user=pb.User(username="anna", email="anna@example.org"), password=PASSWORD
        )
        async with AsyncClient(server.address, username="anna", password=PASSWORD) as anna:
            secret = (await anna.identity.enrol_totp()).secret
            await anna.identity.confirm_totp(code=await code_of(server, secret))
            # The existing session continues.
            assert (await anna.identity.who_am_i()).user.second_factor
        async with AsyncClient(server.address) as anna:
            answer = await anna.login("anna", PASSWORD)
            assert list(answer.steps) == [factor_pb.LOGIN_STEP_CODE]
            code = await code_of(server, secret)
            done = await anna.complete_login("anna", answer.challenge, code=code)
            assert anna.device_token == done.device_token
            assert (await anna.identity.who_am_i()).user.username == "anna"
            # The device is recognised, and the challenge is bound to it.
            answer = await anna.login("anna", PASSWORD)
            await anna.complete_login("anna", answer.challenge, code=await code_of(server, secret))

        def blocking(code: str) -> str:
            with Client(server.address) as client:
                given = client.login("anna", PASSWORD)
                client.complete_login("anna", given.challenge, code=code)
                return client.identity.who_am_i().user.username

        assert await asyncio.to_thread(blocking, await code_of(server, secret)) == "anna"
        async with AsyncClient(server.address, username="anna", password=PASSWORD) as program:
            with pytest.raises(UnauthenticatedError, match="more than a password") as caught:
                await program.identity.who_am_i()
            assert caught.value.reason == "SECOND_FACTOR_NEEDED"
