"""The `pilothouse` command and grpcurl with a client certificate only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pilothouse_client import AsyncClient
from tests.client.certificates import Made, made
from tests.client.command import Command, Ended
from tests.conftest import Database
from tests.harness import PASSWORD
from tests.processes import finished
from tests.readme.served import PATH
from tests.tls.environment import CI, Environment, environment

GRPCURL = shutil.which("grpcurl", path=PATH)
# These are the examples of the documentation page on identity.
_WHOAMI = """
pilothouse --server pilothouse.example.org:50052 --ca-file ca.pem --client-cert me.pem --client-key me.key whoami
"""
_BY_GRPCURL = """
grpcurl -cacert ca.pem -cert me.pem -key me.key pilothouse.example.org:50052
    pilothouse.identity.v1.IdentityService/WhoAmI
"""


def typed(here: Environment, command: str) -> list[str]:
    """Returns the words of a documented command with real values.

    The program's name is left out.
    """
    there = {
        "pilothouse.example.org:50052": here.address,
        "ca.pem": str(here.folder / "server-ca.pem"),
        **{name: str(here.folder / name) for name in ("me.pem", "me.key")},
    }
    return [there.get(word, word) for word in command.split()[1:]]


def names(user: str, ended: Ended) -> bool:
    """Returns whether a line of `whoami` begins with a user's name.

    The server runs in the same process and may write other lines.
    """
    return any(line.split(maxsplit=1)[:1] == [user] for line in ended.lines)


def written(here: Environment, own: Made) -> tuple[str, ...]:
    """Writes a certificate's files; returns the options of a command that uses them."""
    (here.folder / "server-ca.pem").write_bytes(here.files.authority.pem)
    (here.folder / "me.pem").write_bytes(own.pem)
    (here.folder / "me.key").write_bytes(own.key_pem)
    return (
        *("--server", here.address, "--ca-file", str(here.folder / "server-ca.pem")),
        *("--client-cert", str(here.folder / "me.pem"), "--client-key", str(here.folder / "me.key")),
    )


async def test_the_command_needs_only_a_certificate(
    database: Database, tmp_path: Path, pilothouse: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with environment(database, tmp_path) as here:
        options = written(here, here.signed(CI))
        ended = await pilothouse(*typed(here, _WHOAMI))
        assert ended.code == 0, ended.err
        assert names("ci-bot", ended)
        assert any(line.startswith(f"by the certificate of uri:{CI} (SHA256:") for line in ended.lines)
        ended = await pilothouse(*options, "contexts", "add", "ci", "-n", "shop")
        assert ended.code == 0, ended.err
        assert names("ci-bot", await pilothouse("whoami"))
        assert (await pilothouse("namespaces", "create", "shop")).code == 0
        # A user who authenticates by certificate has no password to change.
        ended = await pilothouse("passwd", "--password-stdin", stdin=f"{PASSWORD}\n{PASSWORD} 2\n")
        assert ended.code != 0
        assert "log in" in ended.err
        ended = await pilothouse(*options, "contexts", "add", "ci")
        assert (ended.code, "already" in ended.err) == (2, True)
        # Environment variables, as in a CI job; the Python client reads the same ones.
        for name, value in zip(
            ("SERVER", "CA_FILE", "CLIENT_CERTIFICATE_FILE", "CLIENT_KEY_FILE"), options[1::2], strict=True
        ):
            monkeypatch.setenv(f"PILOTHOUSE_{name}", value)
        monkeypatch.setenv("PILOTHOUSE_CONFIG", str(tmp_path / "none.json"))
        assert names("ci-bot", await pilothouse("whoami"))
        async with AsyncClient.from_environment() as client:
            assert (await client.identity.who_am_i()).user.username == "ci-bot"
        # A token exchange is refused because of its token, not because a certificate is missing.
        (tmp_path / "token").write_text("none")
        ended = await pilothouse("token", "exchange", "--subject-token-file", str(tmp_path / "token"))
        assert ended.code != 0
        assert "[ISSUER_TOKEN_REFUSED]" in ended.err, ended.err
        # A login through the address that requires certificates succeeds, and later calls use the login's
        # user.
        ended = await pilothouse("login", "--user", "admin", "--password-stdin", stdin=f"{PASSWORD}\n")
        assert ended.code == 0, ended.err
        assert names("admin", await pilothouse("whoami"))


async def test_invalid_certificate_files_are_explained(
    database: Database, tmp_path: Path, pilothouse: Command
) -> None:
    async with environment(database, tmp_path) as here:
        options = written(here, here.signed(CI))
        ended = await pilothouse(*options[:4], "whoami")
        assert (ended.code, "not logged in" in ended.err) == (4, True)
        ended = await pilothouse(*options[:6], "whoami")
        assert (ended.code, "belong together" in ended.err) == (2, True)
        ended = await pilothouse(*options[:4], "contexts", "add", "x")
        assert (ended.code, "--client-cert" in ended.err) == (2, True)
        (tmp_path / "me.key").write_bytes(made("x").key_pem)
        ended = await pilothouse(*options, "whoami")
        assert (ended.code, "are not a certificate and its private key" in ended.err) == (2, True)
        (tmp_path / "me.key").unlink()
        ended = await pilothouse(*options, "whoami")
        assert (ended.code, "cannot read" in ended.err) == (2, True)
        # The message explains that the server refuses the certificate.
        options = written(here, made(CI))
        ended = await pilothouse(*options, "whoami")
        assert ended.code != 0
        assert "refuses yours" in ended.err
        ended = await pilothouse(*options[:4], "--token", "plk_x", "whoami")
        assert ended.code != 0
        assert "requires a client certificate" in ended.err


@pytest.mark.full
@pytest.mark.skipif(GRPCURL is None, reason="grpcurl is not installed")
async def test_grpcurl_calls_with_a_certificate(database: Database, tmp_path: Path) -> None:
    assert GRPCURL is not None
    async with environment(database, tmp_path) as here:
        written(here, here.signed(CI))
        code, out, errors = await finished(GRPCURL, *typed(here, _BY_GRPCURL))
        assert code == 0, errors.decode()
        assert json.loads(out)["user"]["username"] == "ci-bot"
