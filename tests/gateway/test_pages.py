"""The page and its files on the HTTP port."""

from __future__ import annotations

import gzip
import re

import pytest

from pilothouse_server.gateway.pages import ConsoleFiles
from tests.gateway.browser import Browser


async def test_the_page_loads_existing_files_and_its_policy_allows_no_others(program: Browser) -> None:
    status, headers, body = await program.get("/")
    assert (status, headers["content-type"], headers["cache-control"]) == (
        200,
        "text/html; charset=utf-8",
        "no-cache",
    )
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    named = re.findall(r'(?:src|href)="\./([^"]+)"', body.decode())
    assert any(name.endswith(".js") for name in named)
    for name in named:
        status, headers, contents = await program.get(f"/{name}")
        assert (status, headers["content-security-policy"]) == (200, policy), name
        assert contents
        assert ("immutable" in headers["cache-control"]) == name.startswith("assets/")


async def test_a_browser_with_a_cached_page_gets_no_body(program: Browser) -> None:
    _, headers, _ = await program.get("/")
    status, again, body = await program.get("/", {"if-none-match": headers["etag"]})
    assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    status, _, body = await program.get("/", {"if-none-match": '"another"'})
    assert status == 200
    assert body


async def test_the_callback_path_of_an_issuer_returns_the_page(program: Browser) -> None:
    _, headers, page = await program.get("/")
    status, again, body = await program.get("/callback?code=a&state=b")
    assert (status, body, again["content-security-policy"]) == (200, page, headers["content-security-policy"])
    # This server has no issuers for logins.
    status, headers, body = await program.get("/issuers.json")
    assert (status, headers["content-type"], body) == (200, "application/json", b"[]")


@pytest.mark.parametrize(
    "path", ["/index.html", "/assets/", "/assets/../index.html", "/assets/none.js", "/sources.sha256"]
)
async def test_other_paths_are_not_found(program: Browser, path: str) -> None:
    assert (await program.get(path))[0] == 404


def test_compressed_files_have_the_same_contents() -> None:
    pages = ConsoleFiles()
    packed = pages.find("/", {"accept-encoding": "gzip"})
    assert packed is not None
    script = re.search(r'src="\.(/assets/[^"]+)"', packed.body.decode())
    assert script is not None
    plain, small = pages.find(script[1], {}), pages.find(script[1], {"accept-encoding": "br, gzip"})
    assert plain is not None
    assert small is not None
    assert small.headers["content-encoding"] == "gzip"
    assert gzip.decompress(small.body) == plain.body
    assert len(small.body) < len(plain.body) / 2


def test_the_first_page_loads_at_most_100_kb() -> None:
    """Counts the files that a browser loads.

    They are the page, its script, the overview, its watch, and all their imports.
    """
    pages = ConsoleFiles()

    def packed(path: str) -> bytes:
        found = pages.find(path, {"accept-encoding": "gzip"})
        assert found is not None, path
        return found.body

    def text(path: str) -> str:
        found = pages.find(path, {})
        assert found is not None, path
        return found.body.decode()

    page = text("/")
    loaded = {"/"} | set(re.findall(r'(?:src|href)="\.(/assets/[^"]+)"', page))
    (entry,) = (path for path in loaded if path.endswith(".js"))
    overview = set(re.findall(r"\./((?:Overview|Badge|State)-[\w-]+\.(?:js|css))", text(entry)))
    assert any(name.startswith("Overview") for name in overview)
    watcher = set(re.findall(r"watcher-[\w-]+\.js", text(entry)))
    assert len(watcher) == 1
    waiting = [entry, *(f"/assets/{name}" for name in overview | watcher)]
    while waiting:
        path = waiting.pop()
        loaded.add(path)
        imported = {
            f"/assets/{name}" for name in re.findall(r'(?:from|import)"\./([\w.-]+\.js)"', text(path))
        }
        waiting += imported - loaded
    assert len(loaded) > 4
    assert sum(len(packed(path)) for path in loaded) <= 100 * 1024
