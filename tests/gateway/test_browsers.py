"""Pages in a browser: login by cookie, other origins, and foreign pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookies import Morsel
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from pilothouse.audit.v1 import audit_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from tests.conftest import Database
from tests.gateway.browser import RULES, Browser, framed, port_of
from tests.gateway.conftest import ALLOWED
from tests.harness import PASSWORD, Server, running_server
from tests.waiting import poll_until, within

ADMIN = {"username": "admin", "password": PASSWORD}
FOREIGN = "https://evil.example.org"


@pytest_asyncio.fixture(loop_scope="session")
async def page(server: Server) -> AsyncIterator[Browser]:
    """Yields a page of the server's own origin after a login."""
    async with Browser(port_of(server)) as made:
        assert (await made.call("Login", ADMIN)).code == 0
        yield made


def cookie_of(page: Browser) -> Morsel[str]:
    """Returns the cookie that the server has set."""
    (cookie,) = page.session.cookie_jar
    return cookie


async def test_a_login_sets_a_cookie_and_returns_no_token(server: Server) -> None:
    async with Browser(port_of(server)) as page:
        ended = await page.call("Login", ADMIN)
        answer = ended.answers[0]
        assert (answer.access_token, answer.refresh_token, answer.user.username) == ("", "", "admin")
        cookie = cookie_of(page)
        assert cookie.key.startswith("pilothouse-")
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
        (session,) = [each for each in (await page.call("ListSessions")).answers[0].sessions if each.current]
        assert session.kind == identity_pb2.SESSION_KIND_CONSOLE
        # The cookie of the page also authenticates its streams.
        async with page.stream("WatchNamespaces") as watch:
            await watch.send(namespace_pb2.WatchNamespacesRequest())
            while (await watch.read()).change_type != resource_pb2.CHANGE_TYPE_SYNCED:
                pass
            assert (await page.call("Logout")).code == 0
            async with within(5.0):
                assert (await watch.end()).reason == "INVALID_TOKEN"
        assert not list(page.session.cookie_jar)


async def test_the_port_listens_on_a_host_name_and_accepts_it(database: Database, tmp_path: Path) -> None:
    async with (
        running_server(database, tmp_path, with_cluster=False, http_listen="localhost:0") as named,
        Browser(port_of(named), name="localhost") as page,
    ):
        assert (await page.call("Login", ADMIN)).code == 0
        assert cookie_of(page).key.startswith("pilothouse-")
        assert (await page.call("WhoAmI")).answers[0].user.username == "admin"


async def test_the_cookie_of_a_remote_host_is_bound_to_host_and_tls(server: Server) -> None:
    async with Browser(port_of(server), origin="") as program:
        host = {"host": "console.example.com", "origin": "https://console.example.com"}
        ended = await program.call("Login", ADMIN, **host)
        cookie = ended.headers["set-cookie"]
        assert cookie.startswith("__Host-pilothouse-")
        assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
        assert "domain" not in cookie.lower()
        ended = await program.call("Login", ADMIN, **host | {"origin": "http://console.example.com"})
        assert ended.http == 400
        assert "PLAIN_HTTP" in ended.message


async def test_a_login_of_a_program_returns_tokens(server: Server) -> None:
    async with Browser(port_of(server), origin="") as program:
        status, answer = await program.json("Login", ADMIN)
        assert (status, answer["accessToken"][:4], answer["refreshToken"][:4]) == (200, "pht_", "phr_")
        assert not list(program.session.cookie_jar)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"origin": FOREIGN}, "FOREIGN_ORIGIN"),
        ({"origin": ALLOWED}, "FOREIGN_ORIGIN"),
        ({"origin": "null"}, "FOREIGN_ORIGIN"),
        ({"origin": ""}, "FOREIGN_ORIGIN"),
        ({"sec_fetch_site": "cross-site"}, "FOREIGN_ORIGIN"),
        ({"x_grpc_web": ""}, "HEADER_MISSING"),
        ({"authorization": "Bearer other"}, "TWO_CREDENTIALS"),
    ],
)
async def test_a_cookie_works_only_for_pages_of_this_origin(
    page: Browser, changed: dict[str, str], reason: str
) -> None:
    assert (await page.call("WhoAmI")).code == 0
    sent = {**page.headers, "content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    sent |= {name.replace("_", "-"): value for name, value in changed.items()}
    sent = {name: value for name, value in sent.items() if value}
    url = page.url + RULES["CreateNamespace"].method
    async with page.session.post(url, data=framed(b""), headers=sent) as response:
        assert response.status in (400, 403)
        assert reason in await response.text()
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("socket", [False, True])
async def test_a_call_of_a_foreign_page_is_recorded(page: Browser, server: Server, socket: bool) -> None:
    """The record names no user: the holder of the cookie did not ask for the call."""
    method = RULES["WatchVolumes" if socket else "DeleteNamespace"].method
    headers = {"origin": FOREIGN, "user-agent": "a browser", "content-type": "application/grpc-web+proto"}
    if socket:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await page.session.ws_connect(f"{page.url}/ws{method}", headers=headers)
    else:
        async with page.session.post(page.url + method, data=framed(b""), headers=headers) as response:
            assert response.status == 403

    async def records() -> list[audit_pb2.Operation]:
        listed = server.admin.audit.list_operations(filter=f'request_path = "{method}"')
        return [each async for each in listed]

    (record,) = await poll_until(records, bool)
    assert (record.error_code, record.username, record.user_agent) == ("PERMISSION_DENIED", "", "a browser")
    assert record.client_ip == "127.0.0.1"
    assert "pages of this origin may not call" in record.error_message


async def test_a_form_of_another_page_cannot_call(page: Browser) -> None:
    url = page.url + RULES["Logout"].method
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        headers = {"origin": page.url, "content-type": kind, "x-grpc-web": "1"}
        async with page.session.post(url, data=b"{}", headers=headers) as response:
            assert response.status == 415
    assert (await page.call("WhoAmI")).code == 0


@pytest.mark.parametrize("origin", [FOREIGN, ALLOWED, "null", ""])
async def test_a_websocket_of_a_foreign_page_is_refused_before_the_upgrade(
    page: Browser, origin: str
) -> None:
    url = f"{page.url}/ws{RULES['WatchNamespaces'].method}"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await page.session.ws_connect(url, headers={"origin": origin} if origin else {})
    assert refused.value.status == 403


async def test_listed_origins_call_only_with_tokens(server: Server) -> None:
    token = await server.token()
    async with Browser(port_of(server), origin=ALLOWED, token=token) as listed:
        ended = await listed.call("WhoAmI")
        assert (ended.code, ended.headers["access-control-allow-origin"]) == (0, ALLOWED)
        url = listed.url + RULES["WhoAmI"].method
        asked = {"origin": ALLOWED, "access-control-request-method": "POST"}
        async with listed.session.options(url, headers=asked) as response:
            assert response.headers["access-control-allow-methods"] == "POST"
            assert "authorization" in response.headers["access-control-allow-headers"]
            assert "access-control-allow-credentials" not in response.headers
        async with listed.session.options(url, headers=asked | {"origin": FOREIGN}) as response:
            assert "access-control-allow-origin" not in response.headers
        # A login from a listed origin returns tokens, because a browser would not send a cookie from there.
        assert (await listed.call("Login", ADMIN)).answers[0].access_token.startswith("pht_")
    async with Browser(port_of(server), origin=FOREIGN, token=token) as foreign:
        assert (await foreign.call("WhoAmI")).http == 403


async def test_a_browser_cannot_forward_a_port(page: Browser) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await page.session.ws_connect(
            f"{page.url}/ws/pilothouse.container.v1.ContainerService/PortForward",
            headers={"origin": page.url},
        )
    assert refused.value.status == 404
