"""Row 18: the page in Chromium with 10⁴ containers and 200 changes a second, and the cost of open consoles.

The row needs Debian's chromium and the package playwright (.ci/playwright.txt). The browser runs on the cores of the
loads, so on two cores its figures include the work of the server and of PostgreSQL.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import shutil
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from benchmarks.child import Child
from benchmarks.machine import free_port
from benchmarks.measure import Figure, Run, in_turns, server_cost
from benchmarks.population import WATCHED
from benchmarks.product import PASSWORD, Product
from benchmarks.rows.watching import make_watched, repeated_event
from benchmarks.testbed import Database, Testbed, connected
from pilothouse.container.v1 import container_pb2
from pilothouse.watch.v1 import watch_pb2 as pb

_WATCH = "/pilothouse.watch.v1.WatchService/Watch"
_PUT = "SELECT put_changes('[]', '{}', $1::jsonb, $2::bytea[])"
_SEQUENCE = "SELECT count(*) FROM sequence_changes()"
_CHANGES_A_SECOND = 200
_AT_A_TIME = 8
# The shortest run, in seconds: a tab draws thirty times a second.
_LEAST_SECONDS = 2.0
_CONSOLES = 100
_EVENTS = 100
_OBSERVED = """
new MutationObserver((_, observer) => {
  if (!document.querySelector('tbody a')) return;
  window.firstRow = performance.now();
  observer.disconnect();
}).observe(document, {subtree: true, childList: true});
window.longest = 0;
new PerformanceObserver(list => {
  for (const each of list.getEntries()) window.longest = Math.max(window.longest, each.duration);
}).observe({type: 'longtask', buffered: true});
"""
_CONTAINERS = """
SELECT n.name AS namespace, c.name FROM containers AS c JOIN namespaces AS n ON n.id = c.namespace_id
ORDER BY c.id LIMIT 200
"""


async def console(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures the tab, then the server."""
    async for figure in _tab(testbed):
        yield figure
    yield await _consoles(testbed)


async def _tab(testbed: Testbed) -> AsyncIterator[Figure]:
    containers = min(10000, testbed.scale.listed[-1])
    try:
        async_api = importlib.import_module("playwright.async_api")
    except ModuleNotFoundError:
        yield Figure("18", "the page in a browser", reason="the package playwright is not installed")
        return
    chromium = shutil.which("chromium")
    if chromium is None:
        yield Figure("18", "the page in a browser", reason="chromium is not installed")
        return
    port = free_port()
    async with (
        testbed.database(containers) as database,
        testbed.product(database, variables={"PILOTHOUSE_HTTP_LISTEN": f"127.0.0.1:{port}"}) as product,
        async_api.async_playwright() as driver,
    ):
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            context = await browser.new_context()
            await _log_in(await context.new_page(), f"http://127.0.0.1:{port}")
            page = await context.new_page()
            await page.add_init_script(_OBSERVED)
            await page.goto(f"http://127.0.0.1:{port}/#/containers")
            await page.locator("tbody a").first.wait_for()
            first = await page.evaluate("window.firstRow") / 1000
            await page.get_by_text(f"{containers} of {containers}").wait_for(timeout=120_000)
            read = await page.evaluate("window.longest")
            await page.evaluate("window.longest = 0")
            changed = await _change(testbed, product, database)
            longest = await page.evaluate("window.longest")
            memory = await _renderer_bytes(browser) / 2**20
        finally:
            await browser.close()
    what = f"the page with {containers:,} containers"
    yield Figure("18", f"{what}: its first row", "s", first, goal=("≤", 1.5), goal_of="value")
    yield Figure("18", f"{what}: longest task until all are there", "ms", read)
    yield Figure(
        "18",
        f"{what}: longest task at {changed:.0f} changes a second",
        "ms",
        longest,
        goal=("≤", 100),
        goal_of="value",
        notes=("0: none of 50 ms",),
    )
    yield Figure("18", f"{what}: memory of its tab", "MiB", memory, goal=("≤", 150), goal_of="value")


async def _log_in(page: Any, url: str) -> None:
    await page.goto(url)
    await page.fill("input[name=username]", "admin")
    await page.fill("input[name=password]", PASSWORD)
    await page.click("button.main")
    await page.get_by_text("What is there").wait_for()


async def _change(testbed: Testbed, product: Product, database: Database) -> float:
    """Changes labels of random containers out of 200; returns the rate, in changes a second."""
    async with connected(database.superuser) as owner:
        rows = await owner.fetch(_CONTAINERS)
    seconds = max(_LEAST_SECONDS, testbed.scale.seconds)
    client = await product.administrator()

    async def change(number: int) -> None:
        row = random.choice(rows)
        await client.containers.update(
            namespace=row["namespace"],
            name=row["name"],
            container=container_pb2.Container(labels={"changed": str(number)}),
            update_mask=FieldMask(paths=["labels"]),
        )

    try:
        began, count = time.monotonic(), 0
        while (passed := time.monotonic() - began) < seconds:
            # Several changes run in parallel, but no faster than the rate.
            await asyncio.gather(*(change(count + each) for each in range(_AT_A_TIME)))
            count += _AT_A_TIME
            await asyncio.sleep(max(0.0, count / _CHANGES_A_SECOND - passed))
        return count / (time.monotonic() - began)
    finally:
        await client.close()


async def _renderer_bytes(browser: Any) -> float:
    """Returns the memory of the largest renderer process, including its share of shared pages."""
    session = await browser.new_browser_cdp_session()
    processes = (await session.send("SystemInfo.getProcessInfo"))["processInfo"]
    return max(_bytes_of(each["id"]) for each in processes if each["type"] == "renderer")


def _bytes_of(process_id: int) -> int:
    lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


async def _consoles(testbed: Testbed) -> Figure:
    """Measures events to `_CONSOLES` consoles, against the same watches with gRPC."""
    scope = pb.Scope(noun=pb.NOUN_CONTAINER, namespace=WATCHED)
    request = b64encode(pb.WatchRequest(scopes=[scope]).SerializeToString()).decode()
    port = free_port()
    async with (
        testbed.database() as database,
        testbed.product(database, variables={"PILOTHOUSE_HTTP_LISTEN": f"127.0.0.1:{port}"}) as product,
        testbed.children(
            ("loads.sockets", testbed.cores.asking), ("loads.watches", testbed.cores.asking)
        ) as (
            sockets,
            watches,
        ),
        connected(database.system) as connection,
    ):
        token = await product.tenant_token()
        await make_watched(product)
        changes, messages = await repeated_event(database, _EVENTS)

        async def delivered(load: Child) -> dict[str, float]:
            await load.ask("expect", events=_EVENTS)
            began = time.monotonic()
            await connection.execute(_PUT, changes, messages)
            await connection.execute(_SEQUENCE)
            return {
                "rate": _EVENTS * _CONSOLES / (await load.ask("finished") - began),
                "calls": _EVENTS * _CONSOLES,
            }

        async def by_sockets() -> Run:
            url = f"ws://127.0.0.1:{port}/ws{_WATCH}"
            await sockets.ask("open", url=url, token=token, request=request, consoles=_CONSOLES)
            run = await testbed.metered(product.process_id, database, delivered(sockets))
            await sockets.ask("close")
            return run

        async def by_grpc() -> Run:
            await watches.ask(
                "open",
                address=product.address,
                method=_WATCH,
                request=request,
                watchers=_CONSOLES,
                token=token,
            )
            run = await testbed.metered(product.process_id, database, delivered(watches))
            await watches.ask("close")
            return run

        pairs = await in_turns(by_sockets, by_grpc, testbed.scale.runs, warm=testbed.scale.warm)
    return server_cost("18", f"an event to one of {_CONSOLES} open consoles", pairs, "gRPC watchers", 1.0)
