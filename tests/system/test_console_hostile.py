"""Hostile names, labels, messages and log lines are shown as text on every page, and no part of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse.audit.v1 import audit_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse.watch.v1 import watch_pb2
from pilothouse_client import PilothouseError
from tests.conftest import Database
from tests.gateway.browser import framed, port_of
from tests.harness import Server
from tests.system.console import Console, served, tab
from tests.system.hostile import SCRIPT, Between
from tests.system.test_console_looks import PAGES, fill

pytestmark = pytest.mark.system

# Pages whose responses have no text.
NOTHING_SHOWN = ("tab=terminal", "tab=usage")
# A right-to-left override, and a word that is too long for any line.
WIDE = "\u202e" + "w" * 600


async def _fill(server: Server) -> None:
    """Puts hostile text into every field that accepts it."""
    admin = server.admin
    await admin.namespaces.create(
        namespace=namespace_pb2.Namespace(
            name="demo", display_name=SCRIPT, description=SCRIPT, annotations={"note": SCRIPT}
        )
    )
    notes = {"note": SCRIPT + WIDE}
    await admin.containers.create(
        namespace="demo",
        container=pb.Container(
            name="front",
            display_name=SCRIPT,
            image="registry.invalid/" + "n" * 120 + ":2",
            command=["sh", "-c", SCRIPT],
            env=[pb.EnvVar(name="WIDE", value=SCRIPT + WIDE)],
            annotations=notes,
        ),
    )
    await admin.network.create_service(
        namespace="demo",
        service=network_pb2.Service(
            name="front",
            containers=["front"],
            ports=[network_pb2.ServicePort(port=80)],
            annotations=notes,
        ),
    )
    await admin.storage.create_volume(
        namespace="demo",
        volume=storage_pb2.Volume(
            name="data",
            size="1Gi",
            type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
            access_mode=storage_pb2.ACCESS_MODE_READ_WRITE_ONCE,
            annotations=notes,
        ),
    )
    await admin.config.create_config_map(
        namespace="demo", config_map=config_pb2.ConfigMap(name="odd", data={"page.html": SCRIPT + WIDE})
    )
    await admin.identity.create_user(
        user=identity_pb2.User(username="odd", full_name=SCRIPT, email="odd@example.org"),
        password="correct horse battery staple",
    )
    # The record of the refusal contains the name.
    with pytest.raises(PilothouseError):
        await admin.containers.get(namespace="demo", name=SCRIPT)


async def test_hostile_text_never_runs_and_breaks_no_layout(database: Database, tmp_path: Path) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await _fill(server)
        await console.log_in()
        ran: list[str] = []
        wide: dict[str, int] = {}
        addresses = [
            *(address.replace("broken", "front") for address, _ in PAGES),
            f"containers/demo/{SCRIPT}",
            f"containers?q={SCRIPT}&status={SCRIPT}&namespace={SCRIPT}",
            f"search?q={SCRIPT}",
            f"audit?text={SCRIPT}&filter={SCRIPT}&from={SCRIPT}",
            f"{SCRIPT}",
        ]
        for address in addresses:
            await console.open(address)
            await console.page.locator("main :is(h1, p)").first.wait_for()
            # Rows appear after the heading. A page with a watch is never idle, so there is no condition to wait for.
            await console.page.wait_for_timeout(500)
            if await console.page.locator("main img, main script").count():
                ran.append(address)
            if "Pilothouse" not in await console.page.title():
                ran.append(address)
            width = await console.page.evaluate("document.documentElement.scrollWidth")
            if width > 1280:
                wide[address] = width
        assert (ran, wide) == ([], {})

        # The editor, its differences, values and records are also checked.
        await console.open("containers/demo/front")
        await console.press("Edit")
        await console.page.locator("section textarea").wait_for()
        text = await console.page.input_value("section textarea")
        assert SCRIPT in text.replace('\\"', '"')
        await console.page.fill("section textarea", text.replace("display_name", "# display_name", 1))
        await console.press("Show what changes")
        await console.page.locator("li", has_text="display_name").wait_for()
        await console.open("configs")
        await console.press("Show")
        await console.page.locator("pre", has_text=SCRIPT).wait_for()
        await console.open("audit?method=GetContainer")
        await console.page.locator("button[aria-expanded=false]").first.click()
        await console.page.locator("dl").wait_for()
        assert await console.page.locator("main img, main script").count() == 0
        assert await console.page.title() == "Audit · Pilothouse"


@pytest.mark.system(minutes=4)
async def test_hostile_text_in_every_field_of_every_response_is_harmless(
    database: Database, tmp_path: Path
) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        between = Between()
        await fill(server)
        await console.log_in()
        await between.install(console.page)
        await console.page.reload()
        faults: list[str] = []
        for fails in (False, True):
            between.fails = fails
            for address, _ in PAGES:
                # If the page were open already, it would keep its contents.
                await console.open("nowhere")
                await console.page.get_by_text("There is no such page").wait_for()
                await console.open(address)
                if not address.endswith(NOTHING_SHOWN):
                    await console.page.locator("main", has_text="wwwwwwwwww").wait_for()
                faults += [f"{address} {fails}: {fault}" for fault in await _faults(console)]
        await console.press("Log out")
        between.fails = False
        await console.page.get_by_role("button", name="Log in at").wait_for()
        faults += [f"log-in: {fault}" for fault in await _faults(console)]
        assert faults == []


async def _faults(console: Console) -> list[str]:
    """Returns the texts that ran, and the widths at which the page is wider than its window."""
    page, found = console.page, []
    if await page.locator("img, body script").count():
        found.append("an element of the text is in the page")
    if not (await page.title()).endswith("Pilothouse"):
        found.append("a script ran")
    for width in (390, 1280):
        await page.set_viewport_size({"width": width, "height": 800})
        if (wide := await page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append(f"{wide} of {width} px")
    return found


async def test_rows_that_arrive_twice_are_shown_once(database: Database, tmp_path: Path) -> None:
    records = [audit_pb2.Operation(sequence=each, operation_id=f"id-{each}") for each in (1, 2, 3)]
    found = [
        watch_pb2.FoundResource(noun=watch_pb2.NOUN_SERVICE, namespace="demo", name=each, uid=each)
        for each in ("one", "two", "three")
    ]
    pages: dict[str, list[Any]] = {
        # The record of a long stream is written late, but its start time places it on a later page.
        "ListOperations": [
            audit_pb2.ListOperationsResponse(operations=records[1:], next_page_token="next"),
            audit_pb2.ListOperationsResponse(operations=records[:2]),
        ],
        "Search": [
            watch_pb2.SearchResponse(results=found[:2], next_page_token="next"),
            watch_pb2.SearchResponse(results=found[1:]),
        ],
    }
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await console.log_in()
        for method, answers in pages.items():
            await _answers(console.page, method, answers)
        await console.open("audit?live=no")
        await console.press("Older records")
        rows = console.page.locator("main tbody tr")
        await rows.nth(2).wait_for()
        await console.open("search?q=anything")
        await console.press("More")
        await console.sees("3 found")
        assert await rows.count() == 3


async def _answers(page: Any, method: str, answers: list[Any]) -> None:
    """Fulfils the calls of a method without the server, as gRPC-Web: one frame and the trailers."""

    async def fulfil(route: Any) -> None:
        frames = framed(answers.pop(0).SerializeToString()) + framed(b"grpc-status:0\r\n", 0x80)
        await route.fulfill(content_type="application/grpc-web+proto", body=frames)

    await page.route(f"**/pilothouse.*/{method}", fulfil)
