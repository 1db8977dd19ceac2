"""`pilothouse serve` refuses unsafe settings before it creates anything, and its printed next command works."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from pathlib import Path

import pytest

from tests.main_job import loaded
from tests.readme.served import Shell, server_variables, serving
from tests.waiting import patient

SERVE = "pilothouse serve --dev --tls-self-signed"
LOGIN = "pilothouse login --server 127.0.0.1:50051 --secure --user admin"
RESET = "pilothouse reset-password --local"
_CHANGED = "another long password"


async def refused(directory: Path, words: str, **variables: str) -> tuple[int, str]:
    """Returns the exit code and the errors of a server that does not start."""
    named = {f"PILOTHOUSE_{name}": value for name, value in variables.items()}
    command = loaded.run(words.split(), {**server_variables(directory), **named}, folder=str(directory))
    code, _, errors = await asyncio.wait_for(command, patient(60))
    return code, errors.decode()


async def test_plain_text_beyond_this_machine_is_refused_before_any_file_is_made(tmp_path: Path) -> None:
    code, errors = await refused(tmp_path, "serve --dev", LISTEN="0.0.0.0:0")
    assert (code, "PILOTHOUSE_INSECURE=true" in errors) == (2, True), errors
    code, errors = await refused(tmp_path, "serve --dev", LISTEN="127.0.0.1:99999")
    assert (code, "'99999' is not a port" in errors) == (2, True), errors
    code, errors = await refused(tmp_path, "serve --tls-self-signed", LISTEN="127.0.0.1:0")
    assert (code, "requires --dev" in errors) == (2, True), errors
    assert list(tmp_path.iterdir()) == []


async def test_a_taken_port_is_reported_before_a_database_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for words in ("serve --dev", "serve --dev --processes 2"):
            code, errors = await refused(tmp_path, words, LISTEN=address)
            assert (code, f"{address} cannot be listened on" in errors) == (1, True), errors
    assert list(tmp_path.iterdir()) == []


async def test_files_that_are_not_a_certificate_are_named(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("another program")
    settings = {"TLS_CERTIFICATE_FILE": "c.pem", "TLS_KEY_FILE": "c.pem", "LISTEN": "127.0.0.1:0"}
    code, errors = await refused(tmp_path, "serve --dev", **settings)
    assert (code, "are not a certificate and its private key" in errors) == (2, True), errors
    code, errors = await refused(tmp_path, "serve --dev", **{**settings, "TLS_CERTIFICATE_FILE": "none.pem"})
    assert (code, "cannot be read (FileNotFoundError)" in errors) == (2, True), errors
    assert [each.name for each in tmp_path.iterdir()] == ["c.pem"]


async def test_a_missing_database_is_reported(tmp_path: Path) -> None:
    code, errors = await refused(tmp_path, "reset-password --local")
    assert (code, "contains no database" in errors) == (1, True), errors
    code, errors = await refused(tmp_path, "reset-password")
    assert (code, "pilothouse users reset-password NAME" in errors) == (2, True), errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.full(minutes=3)
async def test_the_printed_login_works_and_a_lost_password_can_be_reset(tmp_path: Path) -> None:
    printed: list[str] = []
    async with serving(SERVE, tmp_path, {}, printed) as address:
        shell = Shell(address, tmp_path, {"PILOTHOUSE_DATA_DIR": str(tmp_path / ".pilothouse")})
        await log_in_as_printed(shell, "".join(printed))
        # The first password is lost, but the server still runs.
        assert "password of admin set" in await shell.run(f"{RESET} --password-stdin", _CHANGED + "\n")
        await shell.run("pilothouse whoami", succeeds=False)
        await shell.run(f"{LOGIN} --password-stdin", _CHANGED + "\n")
        records = json.loads(await shell.run("pilothouse audit list --filter 'action = \"reset\"' -o json"))
        assert [each["resource_name"] for each in records] == ["admin"]
    # The password is lost again, and no server runs.
    made = re.search(r"password  (\S+)", await shell.run(RESET))
    assert made is not None
    printed.clear()
    async with serving(SERVE, tmp_path, {"PILOTHOUSE_LISTEN": address}) as same:
        assert same == address
        await shell.run(f"{LOGIN} --password-stdin", f"{made[1]}\n")
        assert "admin" in await shell.run("pilothouse whoami")


async def log_in_as_printed(shell: Shell, said: str) -> None:
    """Logs in with the printed line and password, and checks the certificate that the client reports."""
    password = re.search(r"password  (\S+)", said)
    fingerprint = re.search(r"certificate    (\S+)", said)
    assert password is not None
    assert fingerprint is not None
    answered = await shell.run(f"{LOGIN} --password-stdin", f"{password[1]}\n")
    assert fingerprint[1] in answered
    assert "admin" in await shell.run("pilothouse whoami")


async def test_the_printed_login_command_fits_the_address(capsys: pytest.CaptureFixture[str]) -> None:
    from pilothouse_server.cli.server import _welcome
    from pilothouse_server.settings.model import Settings

    def line(listen: str, **more: Path) -> str:
        _welcome(Settings(listen=listen, **more), 7, None, dev=True)  # type: ignore[arg-type]
        return next(each for each in capsys.readouterr().out.splitlines() if " login " in each).split(
            "login "
        )[1]

    assert line("127.0.0.1:0") == "--server 127.0.0.1:7 --user admin"
    assert line("0.0.0.0:0") == "--server 127.0.0.1:7 --user admin"
    assert line("192.0.2.1:0") == "--server 192.0.2.1:7 --insecure --user admin"
    assert line("unix:/run/a.sock") == "--server unix:/run/a.sock --user admin"
