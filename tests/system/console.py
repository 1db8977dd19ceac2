"""The console page in Debian's Chromium, driven by Playwright."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Database
from tests.harness import PASSWORD, Server, running_server
from tests.system.programs import program
from tests.waiting import patient, poll_until


class Console:
    """One tab, and the errors in its console."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        page.set_default_timeout(patient(30.0) * 1000)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        # Chromium also reports each refused call as an error; the test itself checks those.
        if (
            message.type == "error"
            and "Failed to load resource" not in message.text
            and "WebSocket" not in message.text
        ):
            self.complaints.append(message.text)

    async def open(self, address: str = "") -> None:
        await self.page.goto(f"{self.url}/#/{address}")

    async def begin_log_in(self, username: str = "admin", password: str = PASSWORD) -> None:
        """Enters name and password."""
        await self.open()
        await self.page.fill("input[name=username]", username)
        await self.page.fill("input[name=password]", password)
        await self.page.click("button.main")

    async def log_in(self, username: str = "admin") -> None:
        """Logs in with a password alone."""
        await self.begin_log_in(username)
        await self.sees("What is wrong")

    async def sees(self, text: str) -> None:
        """Waits until a text is shown."""
        await self.page.get_by_text(text).first.wait_for()

    async def press(self, name: str) -> None:
        await self.page.get_by_role("button", name=name, exact=True).first.click()

    async def agree(self, typed: str = "") -> None:
        """Confirms the open dialog, and types the name that the dialog requests."""
        if typed:
            await self.page.fill("dialog input[name=typed]", typed)
        await self.page.locator("dialog").get_by_role("button", name="Go on").click()

    async def downloads(self, name: str, count: int) -> list[bytes]:
        """Presses a button; returns the contents of `count` downloads, in reverse order of their extensions."""
        found: list[Any] = []
        self.page.on("download", lambda each: found.append(each))
        await self.press(name)

        async def number() -> int:
            return len(found)

        await poll_until(number, lambda seen: seen == count)
        named = sorted(found, key=lambda each: str(each.suggested_filename.rpartition(".")[2]), reverse=True)
        return [Path(await each.path()).read_bytes() for each in named]

    async def apply(self, text: str) -> None:
        """Plans and applies documents in the open form."""
        await self.page.fill("textarea", text)
        await self.press("Show the plan")
        await self.page.get_by_role("heading", name="Plan").wait_for()
        await self.press("Apply")


@asynccontextmanager
async def tab(port: int) -> AsyncIterator[Console]:
    """Yields a tab, and fails if its console has an error at the end."""
    playwright = pytest.importorskip(
        "playwright.async_api", reason="needs playwright: see .ci/playwright.txt"
    )
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=str(program("chromium")), args=["--no-sandbox"]
        )
        try:
            context = await browser.new_context(viewport={"width": 1280, "height": 800})
            page = await context.new_page()
            console = Console(page, f"http://127.0.0.1:{port}")
            yield console
            assert not console.complaints, console.complaints
        finally:
            await browser.close()


@asynccontextmanager
async def served(database: Database, folder: Path, **changes: Any) -> AsyncIterator[Server]:
    async with running_server(database, folder, **{"http_listen": "127.0.0.1:0", **changes}) as server:
        yield server
