"""Hostile names, labels, messages and log lines: shown as text on every page, where nothing of them runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse.watch.v1 import watch_pb2
from pilothouse_client import PilothouseError
from tests.conftest import Database
from tests.gateway.browser import port_of
from tests.harness import Server
from tests.system.console import served, tab
from tests.system.test_console_looks import PAGES

pytestmark = pytest.mark.system

SCRIPT = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"
# An override that turns text around, and a word that no line holds.
WIDE = "\u202e" + "w" * 600


async def _fill(server: Server) -> None:
    """Puts hostile text into every field that takes any."""
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
    # Its name is in the record of the refusal.
    with pytest.raises(PilothouseError):
        await admin.containers.get(namespace="demo", name=SCRIPT)


async def test_hostile_text_runs_nowhere_and_breaks_no_layout(database: Database, tmp_path: Path) -> None:
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
            # Rows come after the heading; a page that is watched is never idle, so there is nothing to wait for.
            await console.page.wait_for_timeout(500)
            if await console.page.locator("main img, main script").count():
                ran.append(address)
            if "Pilothouse" not in await console.page.title():
                ran.append(address)
            width = await console.page.evaluate("document.documentElement.scrollWidth")
            if width > 1280:
                wide[address] = width
        assert (ran, wide) == ([], {})

        # In the editor, its differences, values and records, too.
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


async def test_a_hostile_overview_and_search_run_nothing(database: Database, tmp_path: Path) -> None:
    count = watch_pb2.StatusCount(noun=watch_pb2.NOUN_CONTAINER, status=SCRIPT, count=1)
    overview = watch_pb2.GetOverviewResponse(
        counts=[count],
        namespaces=[watch_pb2.NamespaceOverview(namespace=SCRIPT, cluster=SCRIPT, counts=[count], wrong=1)],
        clusters=[watch_pb2.ClusterOverview(cluster=SCRIPT, namespaces=1, counts=[count])],
        wrong=[
            watch_pb2.WrongResource(
                noun=watch_pb2.NOUN_OBJECT,
                namespace="demo",
                name=SCRIPT,
                kind=SCRIPT,
                status=SCRIPT,
                reason=SCRIPT,
                message=SCRIPT + WIDE,
            )
        ],
        more_wrong=7,
    )
    overview.clusters[0].stale_since.FromSeconds(1_700_000_000)
    overview.namespaces[0].quota.cpu = SCRIPT

    def found(number: int, token: str) -> watch_pb2.SearchResponse:
        one = watch_pb2.FoundResource(
            noun=watch_pb2.NOUN_CONTAINER,
            namespace="demo",
            name=SCRIPT,
            uid=f"uid-{number}",
            status=SCRIPT,
            reason=SCRIPT + WIDE,
            image=SCRIPT,
            labels={SCRIPT: WIDE},
        )
        return watch_pb2.SearchResponse(results=[one], next_page_token=token)

    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        pages = [found(1, "next"), found(2, "")]
        await _answers(console.page, "GetOverview", lambda: overview)
        await _answers(console.page, "Search", lambda: pages.pop(0))
        await console.log_in()
        await console.sees("is not reached since")
        await console.sees("and 7 more")
        await console.page.get_by_role("link", name=f"demo/{SCRIPT}", exact=True).wait_for()
        assert await console.page.evaluate("document.documentElement.scrollWidth") <= 1280
        await console.page.fill("nav input", "anything")
        await console.press("More")
        await console.sees("2 found")
        assert await console.page.locator("main img, main script").count() == 0
        assert await console.page.title() == "Search · Pilothouse"
        assert await console.page.evaluate("document.documentElement.scrollWidth") <= 1280


async def _answers(page: Any, method: str, answer: Callable[[], Message]) -> None:
    """Has a method answered without the server, by gRPC-Web: one frame and the trailers."""

    async def fulfil(route: Any) -> None:
        body, trailers = answer().SerializeToString(), b"grpc-status:0\r\n"
        frames = b"\0" + len(body).to_bytes(4) + body + b"\x80" + len(trailers).to_bytes(4) + trailers
        await route.fulfill(content_type="application/grpc-web+proto", body=frames)

    await page.route(f"**/pilothouse.watch.v1.WatchService/{method}", fulfil)
