"""Tabs of one browser share one watch: the server has one stream and two connections for all their pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from pilothouse.namespace.v1 import namespace_pb2
from tests.conftest import Database
from tests.gateway.browser import port_of
from tests.system.console import Console, served, tab
from tests.waiting import poll_until

pytestmark = pytest.mark.system

# The state of a connection in /proc/net/tcp.
_ESTABLISHED = "01"
PAGES = ("overview", "namespaces", "containers", "services", "objects", "volumes", "configs", "applications")


async def watches() -> dict[str, int]:
    """Returns the numbers of open watches of the server in this process, by method."""
    found = {}
    for family in REGISTRY.collect():
        for sample in family.samples:
            method = sample.labels.get("method", "")
            if sample.name == "pilothouse_rpc_in_flight" and method.startswith("Watch") and sample.value:
                found[method] = int(sample.value)
    return found


def connections(port: int) -> int:
    """Returns the number of open connections to a port of this machine, counted at the server's end."""
    own = f"{port:04X}"
    ends = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, here, there, state = line.split()[:4]
            if here.rpartition(":")[2] == own and state == _ESTABLISHED:
                ends.add((here, there))
    return len(ends)


async def test_nine_tabs_have_two_connections(database: Database, tmp_path: Path) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        port = port_of(server)

        async def count() -> int:
            return connections(port)

        await console.log_in()
        for name in PAGES:
            each = Console(await console.page.context.new_page(), console.url)
            await each.open(name)
            await each.page.locator("main h1").wait_for()
        assert len(console.page.context.pages) == 9
        # The connections that loaded the pages are idle now, and end.
        await poll_until(count, lambda number: number == 2)
        assert await watches() == {"Watch": 1}
        # The two connections keep live pages live, and a call of any tab finds its connection.
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="everywhere"))
        for page in console.page.context.pages:
            if page.url.endswith("namespaces"):
                await page.get_by_text("everywhere").first.wait_for()
        await poll_until(count, lambda number: number == 2)


async def test_nine_tabs_have_one_watch(database: Database, tmp_path: Path) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await console.log_in()
        tabs = [console]
        for name in PAGES:
            tabs.append(Console(await console.page.context.new_page(), console.url))
            await tabs[-1].open(name)
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="everywhere"))
        for each in tabs:
            if each.page.url.endswith("namespaces"):
                await each.page.bring_to_front()
                await each.sees("everywhere")
        assert await poll_until(watches, lambda found: found == {"Watch": 1}, seconds=10) == {"Watch": 1}
        # Another page needs another scope: there is still one watch, which resumes where the former one ended.
        await console.page.bring_to_front()
        await console.open("namespaces")
        await console.sees("everywhere")
        assert await poll_until(watches, lambda found: found == {"Watch": 1}, seconds=10) == {"Watch": 1}
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="afterwards"))
        await console.sees("afterwards")
        for each in tabs[1:]:
            assert each.complaints == []
            await each.page.close()
        # A log-out in one tab ends the session of all tabs.
        await console.press("Log out")
        await poll_until(watches, lambda found: not found, seconds=10)


async def test_a_browser_without_shared_workers_has_a_watch_in_each_tab(
    database: Database, tmp_path: Path
) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await console.page.context.add_init_script("delete window.SharedWorker")
        await console.log_in()
        other = Console(await console.page.context.new_page(), console.url)
        await other.open("namespaces")
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="without"))
        await other.sees("without")
        await poll_until(watches, lambda found: found == {"Watch": 2}, seconds=10)
        await other.page.close()
        assert await poll_until(watches, lambda found: found == {"Watch": 1}, seconds=10) == {"Watch": 1}
