"""Log-ins on the page: at an issuer, with a second factor, with a new password; and how sessions end."""

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
    """A server that trusts an issuer: developers there are developers everywhere."""
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


async def test_an_issuer_logs_somebody_in_and_they_are_back_at_the_page_they_wanted(
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

        # Its session ends, and the browser is sent there again by itself.
        sessions = [each async for each in server.admin.identity.list_sessions(username="ada")]
        assert [each.kind for each in sessions] == [identity_pb2.SESSION_KIND_CONSOLE]
        await server.admin.identity.revoke_session(username="ada", session_id=sessions[0].session_id)
        async with console.page.expect_request(lambda request: request.url.startswith(company.url)):
            await console.open("containers")
        await console.page.get_by_role("heading", name="Containers").wait_for()

        # Somebody who logs out is not.
        await console.press("Log out")
        await console.page.get_by_role("button", name="Log in at").wait_for()


async def test_the_answer_of_a_log_in_that_this_browser_did_not_begin_is_refused(
    database: Database, tmp_path: Path
) -> None:
    async with trusting(database, tmp_path) as (server, company), tab(port_of(server)) as console:
        company.arrive("mallory", preferred_username="mallory", groups=["devs"])
        begun = await server.admin.identity.begin_oidc_login(redirect_uri=f"{console.url}/callback")
        # The link that Mallory sends leads to a code of hers.
        await console.page.goto(begun.authorization_url)
        await console.sees("This log-in was not begun in this tab")
        assert "code=" not in console.page.url
        company.person = None
        await console.press("Log in at <b>Company</b>")
        await console.sees("The issuer did not log you in: access_denied")
        assert await console.page.context.cookies() == []


async def test_a_key_after_a_while_needs_the_issuer_once_more(database: Database, tmp_path: Path) -> None:
    async with trusting(database, tmp_path) as (server, company), tab(port_of(server)) as console:
        # The issuer asked her an hour ago.
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


async def test_an_authenticator_is_set_up_and_asked_for_at_the_next_log_in(
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


async def test_somebody_who_must_have_an_authenticator_gets_recovery_codes(
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


async def test_somebody_with_a_code_for_one_time_sets_a_new_password(
    database: Database, tmp_path: Path
) -> None:
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
        # The code is used up, and the former password is none any more.
        for wrong in (code, PASSWORD):
            await console.begin_log_in("vera", wrong)
            await console.page.get_by_role("alert").first.wait_for()
        await console.begin_log_in("vera", "a password of her own")
        await console.sees("What is wrong")
        assert len(await console.page.context.cookies()) == 1
