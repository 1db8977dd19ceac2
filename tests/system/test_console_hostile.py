"""Hostile names, labels, messages and log lines: shown as text on every page, where nothing of them runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.storage.v1 import storage_pb2
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
