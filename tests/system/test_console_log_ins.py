"""Log-ins on the console: at an issuer, with a second factor, with a new password; and how sessions end."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse.identity.v1 import identity_pb2
from tests.conftest import Database
from tests.gateway.browser import port_of
from tests.harness import PASSWORD, Server
from tests.identity.factors import authenticator_code
from tests.identity.issuer import Issuer, issuer
from tests.identity.trusting import CLIENT
from tests.system.console import Console, served, tab

pytestmark = pytest.mark.system


@asynccontextmanager
async def trusting(database: Database, folder: Path) -> AsyncIterator[tuple[Server, Issuer]]:
    """Yields a server that trusts an issuer: the issuer's developers are developers in every namespace."""
    async with issuer() as company:
        company.register(CLIENT)
        rule = {
            "when": [{"claim": "groups", "contains": "devs"}],
            "role": "developer",
            "namespaces": ["*"],
        }
        entry = {
            "name": "company",
            "display_name": "<b>Company</b>",
            "issuer": company.url,
            "insecure_http": True,
            "client_id": CLIENT,
            "rules": [rule],
        }
        path = folder / "issuers.yaml"
        path.write_text(json.dumps({"issuers": [entry]}))
        async with served(
            database, folder, oidc_issuers_file=path, outbound_networks="127.0.0.0/8", with_cluster=False
        ) as server:
            yield server, company


async def at_issuer(console: Console) -> None:
    await console.press("Log in at <b>Company</b>")
    await console.sees("What is wrong")


async def test_a_log_in_at_an_issuer_returns_to_the_requested_page(
    database: Database, tmp_path: Path
) -> None:
    async with trusting(database, tmp_path) as (server, company), tab(port_of(server)) as console:
        company.arrive("ada", preferred_username="ada", groups=["devs"])
        await console.open("account")
        await console.press("Log in at <b>Company</b>")
        await console.page.get_by_role("heading", name="My account").wait_for()
        assert console.page.url == f"{console.url}/#/account"
        cookies = await console.page.context.cookies()
        assert [(each["httpOnly"], each["sameSite"]) for each in cookies] == [(True, "Strict")]
        storage = await console.page.evaluate("JSON.stringify([{...sessionStorage}, {...localStorage}])")
        assert "ph" not in storage.replace("pilothouse", "")

        # The session ends, and the page sends the browser to the issuer again by itself.
        sessions = [each async for each in server.admin.identity.list_sessions(username="ada")]
        assert [each.kind for each in sessions] == [identity_pb2.SESSION_KIND_CONSOLE]
        await server.admin.identity.revoke_session(username="ada", session_id=sessions[0].session_id)
        async with console.page.expect_request(lambda request: request.url.startswith(company.url)):
            await console.open("containers")
        await console.page.get_by_role("heading", name="Containers").wait_for()

        # After a log-out, it does not.
        await console.press("Log out")
        await console.page.get_by_role("button", name="Log in at").wait_for()


async def test_a_log_in_that_another_browser_began_is_refused(database: Database, tmp_path: Path) -> None:
    async with trusting(database, tmp_path) as (server, company), tab(port_of(server)) as console:
        company.arrive("mallory", preferred_username="mallory", groups=["devs"])
        begun = await server.admin.identity.begin_oidc_login(redirect_uri=f"{console.url}/callback")
        # The link that Mallory sends leads to a code of her own.
        await console.page.goto(begun.authorization_url)
        await console.sees("This log-in was not begun in this tab")
        assert "code=" not in console.page.url
        company.person = None
        await console.press("Log in at <b>Company</b>")
        await console.sees("The issuer did not log you in: access_denied")
        assert await console.page.context.cookies() == []


async def test_creating_a_key_later_requires_another_log_in_at_the_issuer(
    database: Database, tmp_path: Path
) -> None:
    async with trusting(database, tmp_path) as (server, company), tab(port_of(server)) as console:
        # The user logged in at the issuer an hour ago.
        person = company.arrive(
            "ada", preferred_username="ada", groups=["devs"], auth_time=int(time.time()) - 3600
        )
        await console.open()
        await at_issuer(console)
        await console.open("account")
        await console.page.fill("input[name=key]", "deploy")
        await console.press("Create a key")
        person.claims["auth_time"] = int(time.time())
        await console.press("Log in at the issuer once more")
        await console.page.get_by_role("heading", name="My account").wait_for()
        await console.page.fill("input[name=key]", "deploy")
        await console.press("Create a key")
        await console.sees("The key, shown this once")
        assert (await console.page.locator("p code").inner_text()).startswith("phk_")


async def test_an_authenticator_is_set_up_and_required_at_the_next_log_in(
    database: Database, tmp_path: Path
) -> None:
    async with (
        served(database, tmp_path, with_cluster=False) as server,
        tab(port_of(server)) as console,
    ):
        await console.log_in()
        await console.open("account")
        await console.press("Set up an authenticator")
        seed = base64.b32decode(await console.page.locator("p.code").inner_text())
        await console.page.fill("input[name=first]", authenticator_code(seed, time.time()))
        await console.press("Confirm")
        codes = (await console.page.locator("pre").inner_text()).split()
        await console.press("I have stored them")
        await console.press("Log out")

        await console.begin_log_in()
        await console.page.fill("input[name=recovery]", codes[0])
        await console.press("Log in")
        await console.sees("What is wrong")
        await console.press("Log out")
        await console.begin_log_in()
        await console.page.fill("input[name=recovery]", codes[0])
        await console.press("Log in")
        await console.page.get_by_role("alert").first.wait_for()
        assert await console.page.context.cookies() == []


async def test_a_user_who_must_have_an_authenticator_gets_recovery_codes(
    database: Database, tmp_path: Path
) -> None:
    async with (
        served(database, tmp_path, with_cluster=False, second_factor_roles="viewer") as server,
        tab(port_of(server)) as console,
    ):
        await server.user("vera", {"": "viewer"})
        await console.begin_log_in("vera")
        seed = base64.b32decode(await console.page.locator("p.code").inner_text())
        await console.page.fill("input[name=code]", authenticator_code(seed, time.time()))
        await console.press("Log in")
        await console.sees("Store these recovery codes")
        await console.press("I have stored them")
        await console.sees("What is wrong")
        assert len(await console.page.context.cookies()) == 1


async def test_a_user_with_a_one_time_code_sets_a_new_password(database: Database, tmp_path: Path) -> None:
    async with (
        served(database, tmp_path, with_cluster=False) as server,
        tab(port_of(server)) as console,
    ):
        await server.user("vera", {"": "viewer"})
        code = (await server.admin.identity.reset_password(username="vera", one_time_code=True)).one_time_code
        await console.begin_log_in("vera", code)
        await console.page.fill("input[name=fresh]", "a password of her own")
        await console.press("Log in")
        await console.sees("What is wrong")
        await console.press("Log out")
        # The code is used up, and the former password is no longer valid.
        for wrong in (code, PASSWORD):
            await console.begin_log_in("vera", wrong)
            await console.page.get_by_role("alert").first.wait_for()
        await console.begin_log_in("vera", "a password of her own")
        await console.sees("What is wrong")
        assert len(await console.page.context.cookies()) == 1
