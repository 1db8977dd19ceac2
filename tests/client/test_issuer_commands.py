"""The command with OIDC issuers, against a real server and a test issuer."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import pytest_asyncio

from pilothouse_client.commands import issuer_login, recent_proof
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.client.command import Command, Ended
from tests.conftest import Database, new_database
from tests.identity.issuer import Issuer, issuer
from tests.identity.server import IdentityServer
from tests.identity.test_reauthentication import grow_old
from tests.identity.trusting_server import AUDIENCE, CLIENT, SECRET, accounts, entry, trusting
from tests.processes import started
from tests.waiting import patient, poll_until, runs_out

JOB = {"repository": "example/shop"}


@dataclass
class Environment:
    """A server and the issuer that it trusts."""

    server: IdentityServer
    company: Issuer

    def job(self) -> str:
        """Returns the token of a job."""
        return self.company.sign(self.company.claims("repo:example/shop", AUDIENCE, **JOB))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def environment(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Environment]:
    folder = tmp_path_factory.mktemp("issuers")
    (folder / "secret").write_text(SECRET)
    async with (
        issuer() as company,
        new_database(postgres, template_database.name) as database,
        trusting(
            database,
            folder,
            entry(
                "company",
                company,
                client_id=CLIENT,
                client_secret_file="secret",
                provision="everybody",
                workloads=accounts(("robot", JOB), ("auditor", JOB)),
            ),
        ) as server,
    ):
        company.register(CLIENT, SECRET)
        admin = await server.admin()
        for username in ("robot", "auditor"):
            await server.user(admin, username, log_in=False)
        yield Environment(server, company)


async def test_a_token_is_exchanged_and_printed(
    environment: Environment, pilothouse: Command, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text(environment.job() + "\n")
    address = environment.server.address
    printed = await pilothouse(
        "--server", address, "token", "exchange", "--subject-token-file", str(path), "--lifetime", "60"
    )
    assert (printed.code, printed.err) == (0, "")
    assert printed.out.startswith("pht_")
    assert not (tmp_path / "config.json").exists()
    shown = await pilothouse("--server", address, "--token", printed.out.strip(), "whoami")
    assert shown.lines[0].startswith("robot ")


async def test_a_token_is_exchanged_and_stored(
    environment: Environment, pilothouse: Command, tmp_path: Path
) -> None:
    address = environment.server.address
    exchange = ("token", "exchange", "--username", "auditor", "--store")
    kept = await pilothouse("--server", address, *exchange, stdin=environment.job())
    assert (kept.code, kept.out) == (0, "")
    assert f"acting as auditor at {address}" in kept.err
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o600
    context = json.loads((tmp_path / "config.json").read_text())["contexts"][f"auditor@{address}"]
    assert context["tokens"]["refresh_token"] == ""
    assert (await pilothouse("whoami")).lines[0].startswith("auditor ")
    again = await pilothouse("token", "exchange", stdin=environment.job())
    assert again.out.startswith("pht_"), "the server is that of the context"


async def test_an_invalid_subject_token_is_refused(
    environment: Environment, pilothouse: Command, tmp_path: Path
) -> None:
    exchange = ("--server", environment.server.address, "token", "exchange")
    assert "it is empty" in (await pilothouse(*exchange, stdin="\n")).err
    assert "too long" in (await pilothouse(*exchange, stdin="x" * 20_000)).err
    missing = await pilothouse(*exchange, "--subject-token-file", str(tmp_path / "none"))
    assert (missing.code, "No such file" in missing.err) == (2, True)
    assert "name the server" in (await pilothouse("token", "exchange", stdin=environment.job())).err
    refused = await pilothouse(*exchange, stdin="none.of.yours")
    assert (refused.code, "[ISSUER_TOKEN_REFUSED]" in refused.err) == (4, True)
    not_given = await pilothouse(*exchange, "--username", "admin", stdin=environment.job())
    assert (not_given.code, "[WORKLOAD_NOT_ALLOWED]" in not_given.err) == (5, True)


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], object]], None]:
    """Sets the function that is called with the URL that the command opens in the browser."""

    def opens(function: Callable[[str], object]) -> None:
        def opened(url: str) -> bool:
            function(url)
            return True

        monkeypatch.setenv("BROWSER", "one of this test")
        monkeypatch.setattr(webbrowser, "open", opened)

    return opens


def follow(url: str) -> str:
    """Returns the page that a browser shows after all redirects, or the code of an HTTP error."""
    try:
        with urllib.request.urlopen(url, timeout=patient(10.0)) as page:
            return str(page.read().decode())
    except urllib.error.HTTPError as error:
        return f"{error.code}"


async def test_login_by_browser(
    environment: Environment,
    pilothouse: Command,
    browser: Callable[[Callable[[str], object]], None],
    tmp_path: Path,
) -> None:
    environment.company.arrive("ada", preferred_username="ada")
    shown = []

    def open_it(url: str) -> None:
        (callback,) = parse_qs(urlsplit(url).query)["redirect_uri"]
        # A request with another `state` is not the issuer's callback.
        shown.append(follow(f"{callback}?code=forged&state=forged"))
        shown.append(follow(callback.replace("/callback", "/other")))
        shown.append(follow(url))

    browser(open_it)
    ended = await pilothouse("login", "--server", environment.server.address, "--browser")
    assert ended.code == 0, ended.err
    assert ended.out == (
        f"logged in to {environment.server.address} as ada (context ada@{environment.server.address})\n"
    )
    assert shown[:2] == ["404", "404"]
    assert "continues in your terminal" in shown[2]
    assert (await pilothouse("whoami")).lines[0].startswith("ada ")
    assert (await pilothouse("logout")).code == 0


async def test_a_new_browser_login_gives_a_recent_proof(
    environment: Environment,
    pilothouse: Command,
    browser: Callable[[Callable[[str], object]], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    opened: list[str] = []

    def open_it(url: str) -> None:
        opened.append(url)
        follow(url)

    browser(open_it)
    environment.company.arrive("faye", preferred_username="faye")
    login = ("login", "--server", environment.server.address, "--issuer", "company")
    assert (await pilothouse(*login)).code == 0
    await grow_old(environment.server.database, "faye")
    create = ("api-keys", "create", "ci", "--quiet")
    without = await pilothouse(*create)
    assert (without.code, hinted(without)) == (
        5,
        ["login", "--server", environment.server.address, "--browser", "--issuer", "company"],
    )
    monkeypatch.setattr(recent_proof, "can_ask", lambda **_: True)
    # Another person logs in at the browser: the context keeps its user.
    environment.company.arrive("gail", preferred_username="gail", auth_time=int(time.time()))
    before = remembered(tmp_path)
    other = await pilothouse(*create)
    assert (other.code, "gail, but this context belongs to faye" in other.err) == (5, True)
    assert remembered(tmp_path) == before
    environment.company.arrive("faye", preferred_username="faye", auth_time=int(time.time()))
    made = await pilothouse(*create)
    assert (made.code, made.out[:4]) == (0, "phk_"), made.err
    assert parse_qs(urlsplit(opened[-1]).query)["max_age"] == ["60"]
    assert (await pilothouse("api-keys", "create", "another", "--quiet")).code == 0


async def test_a_browser_login_that_fails_is_reported(
    environment: Environment,
    pilothouse: Command,
    browser: Callable[[Callable[[str], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    login = ("login", "--server", environment.server.address, "--issuer", "company")
    environment.company.person = None
    pages: list[str] = []
    browser(lambda url: pages.append(follow(url)))
    refused = await pilothouse(*login)
    assert (refused.code, "the issuer did not log you in: access_denied" in refused.err) == (4, True)
    assert "did not log you in" in pages[0]
    monkeypatch.setattr(issuer_login, "WAIT_SECONDS", runs_out(0.2))
    browser(lambda url: None)
    missing = await pilothouse(*login)
    assert (missing.code, "no browser returned in time" in missing.err) == (4, True)
    assert missing.err.endswith(
        f": pilothouse login --server {environment.server.address} --device --issuer company\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        in_use = await pilothouse(*login, "--callback-port", port)
    assert (in_use.code, f"cannot listen on 127.0.0.1:{port}" in in_use.err) == (1, True)
    both = await pilothouse(*login, "--browser", "--device")
    assert (both.code, "exclude each other" in both.err) == (2, True)
    named = await pilothouse(*login, "--user", "ada")
    assert (named.code, "--user is for log-ins by password" in named.err) == (2, True)
    unknown = await pilothouse("login", "--server", environment.server.address, "--issuer", "nobody")
    assert (unknown.code, "[ISSUER_NOT_FOUND]" in unknown.err) == (6, True)


async def by_device(environment: Environment, pilothouse: Command, *words: str, agrees: bool = True) -> Ended:
    """Runs a device login. The user dora approves or denies it at the issuer."""
    environment.company.device_interval = 1
    environment.company._devices.clear()

    async def agree() -> None:
        async def codes() -> list[str]:
            return [device.user_code for device in environment.company._devices.values() if not device.person]

        (code,) = await poll_until(codes, what="a device that waits")
        if agrees:
            environment.company.approve(code, "dora", preferred_username="dora")
        else:
            environment.company.deny(code)

    ended, _ = await asyncio.gather(pilothouse(*words), agree())
    return ended


async def test_login_by_device_code(environment: Environment, pilothouse: Command) -> None:
    ended = await by_device(
        environment, pilothouse, "login", "--server", environment.server.address, "--device"
    )
    assert ended.code == 0, ended.err
    assert f"open {environment.company.url}/device in any browser, and type the code " in ended.err
    assert " as dora " in ended.out


def hinted(ended: Ended) -> list[str]:
    """Returns the arguments of the one `pilothouse` command that is printed as a hint."""
    (command,) = re.findall(r"(?<=[:;] )pilothouse .*", ended.err)
    return shlex.split(command)[1:]


def remembered(tmp_path: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((tmp_path / "config.json").read_text())["contexts"]
    return found


def change_contexts(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Applies a change to each context in the configuration file."""
    path = tmp_path / "config.json"
    configuration = json.loads(path.read_text())
    for context in configuration["contexts"].values():
        change(context)
    path.write_text(json.dumps(configuration))


async def test_a_hint_repeats_the_options_of_the_last_login(
    environment: Environment, pilothouse: Command, tmp_path: Path
) -> None:
    way = ("login", "--server", environment.server.address, "--device", "--issuer", "company")
    assert (await by_device(environment, pilothouse, *way)).code == 0
    assert (await pilothouse("logout")).code == 0
    ended = await pilothouse("whoami")
    assert ended.code == 4
    assert hinted(ended) == list(way)
    # The hint works as printed.
    assert (await by_device(environment, pilothouse, *hinted(ended))).code == 0
    # The issuer gives no refresh token to a device here, so the session ends with its first access token.
    change_contexts(tmp_path, lambda context: context["tokens"].update(received=1, access_expire=2))
    ended = await pilothouse("whoami")
    assert "[ISSUER_REFUSED]" in ended.err
    assert hinted(ended) == list(way)
    # A configuration file of an earlier release has no login options.
    change_contexts(tmp_path, lambda context: context.pop("login_options"))
    change_contexts(tmp_path, lambda context: context.update(tokens=None))
    assert hinted(await pilothouse("whoami")) == ["login", "--server", environment.server.address]


async def test_a_hint_names_the_browser_and_its_port(
    environment: Environment, pilothouse: Command, browser: Callable[[Callable[[str], object]], None]
) -> None:
    environment.company.arrive("ada", preferred_username="ada")
    browser(lambda url: follow(url))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    login = ("login", "--server", environment.server.address, "--browser")
    # Some issuers allow redirects only to one port.
    for way in (login, (*login, "--callback-port", port)):
        ended = await pilothouse(*way)
        assert ended.code == 0, ended.err
        assert (await pilothouse("logout")).code == 0
        assert hinted(await pilothouse("whoami")) == list(way)


async def test_a_hint_names_a_context_with_a_custom_name(
    environment: Environment, pilothouse: Command, tmp_path: Path
) -> None:
    login = ("login", "--server", environment.server.address, "--device")
    ended = await by_device(environment, pilothouse, *login, "--name", "its own", "-n", "demo")
    assert ended.code == 0, ended.err
    assert (await pilothouse("logout")).code == 0
    ended = await pilothouse("whoami")
    assert hinted(ended) == ["--context", "its own", *login]
    assert (await by_device(environment, pilothouse, *hinted(ended))).code == 0
    assert list(remembered(tmp_path)) == ["its own"]
    assert remembered(tmp_path)["its own"]["namespace"] == "demo"


async def test_an_exchanged_token_clears_the_login_options(
    environment: Environment, pilothouse: Command, tmp_path: Path
) -> None:
    login = ("login", "--server", environment.server.address, "--device", "--name", "ours")
    assert (await by_device(environment, pilothouse, *login)).code == 0
    assert remembered(tmp_path)["ours"]["login_options"] == ["--device"]
    exchange = ("--context", "ours", "token", "exchange", "--username", "auditor", "--store")
    assert (await pilothouse(*exchange, stdin=environment.job())).code == 0
    assert remembered(tmp_path)["ours"]["login_options"] == []


async def test_a_hint_keeps_the_options_that_select_the_context(
    environment: Environment, pilothouse: Command, tmp_path: Path
) -> None:
    login = ("login", "--server", environment.server.address, "--device", "--issuer", "company")
    refused = await by_device(environment, pilothouse, *login, "--name", "my ctx", "-n", "demo", agrees=False)
    assert (refused.code, "[LOGIN_DENIED]" in refused.err) == (4, True)
    assert hinted(refused) == [*login, "--name", "my ctx", "--namespace", "demo"]
    ended = await by_device(environment, pilothouse, *hinted(refused))
    assert ended.code == 0, ended.err
    assert remembered(tmp_path)["my ctx"]["namespace"] == "demo"
    # The hint also renews a context named before the verb, whether or not that context is the current one.
    for current in ("my ctx", "other"):
        assert json.loads((tmp_path / "config.json").read_text())["current"] == current
        refused = await by_device(environment, pilothouse, "--context", "my ctx", *login, agrees=False)
        assert hinted(refused) == ["--context", "my ctx", *login, "--namespace", "demo"]
        assert (await by_device(environment, pilothouse, *login, "--name", "other")).code == 0


@pytest.mark.parametrize("way", [("--device",), ("--browser",), ("--issuer", "company")])
@pytest.mark.parametrize("option", [("--password-stdin",), ("--code", "123456")])
async def test_password_options_are_refused_with_a_login_at_an_issuer(
    pilothouse: Command, way: tuple[str, ...], option: tuple[str, ...]
) -> None:
    # No server listens on this address.
    login = ("--timeout", "1", "login", "--server", "127.0.0.1:1")
    ended = await pilothouse(*login, *way, *option, stdin="a password\n")
    assert (ended.code, f"{option[0]} is for log-ins by password" in ended.err) == (2, True)


async def test_a_browser_login_can_be_interrupted(environment: Environment, tmp_path: Path) -> None:
    variables = {"PILOTHOUSE_CONFIG": str(tmp_path / "config.json"), "PATH": ""}
    words = ("login", "--server", environment.server.address, "--browser", "--no-open")
    pipe = asyncio.subprocess.PIPE
    async with started(
        sys.executable, "-m", "pilothouse_client", *words, env=variables, stderr=pipe
    ) as process:
        lines: list[str] = []
        assert process.stderr is not None
        while not lines or not lines[-1].startswith("  http"):
            lines.append((await process.stderr.readline()).decode())
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), patient(10.0)) == 130
    (callback,) = parse_qs(urlsplit(lines[-1].strip()).query)["redirect_uri"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", urlsplit(callback).port or 0), timeout=patient(2.0))
