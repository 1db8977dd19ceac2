"""Pictures of every page, compared with the approved ones.

The pictures are compared as grids of brightness: a moved, missing or recoloured part changes the grid, but the
hinting of a font does not. `PILOTHOUSE_WRITE_PICTURES=1` writes the grids again. The pictures themselves are then in
pytest's folder; check them before you commit the grids.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.metrics.v1 import metrics_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.gateway.browser import framed, port_of
from tests.harness import Server
from tests.system.console import Console, served, tab
from tests.system.test_console_looks import PAGES, fill, visit

pytestmark = pytest.mark.system(minutes=3)

GRIDS = Path(__file__).with_name("pictures.json")
# Fixed contents for those tabs of `front` whose lines, curves and rows would depend on the server's start time.
LOG = (
    ("front-1", "started"),
    ("front-1", "GET /cart 200"),
    ("front-2", "started"),
    ("front-2", "GET /cart 503"),
)
CORES = (0.1, 0.4, 0.3, 0.8, 0.5)
EVENTS = (("Warning", "Unhealthy", "Readiness probe failed: HTTP 503"), ("Normal", "Started", "Started main"))
# 2026-01-01, at noon UTC.
BEGAN = 1_767_268_800
SIZES = {"light": (1280, 800), "dark": (1280, 800), "narrow": (390, 780)}
COLUMNS, ROWS = 40, 25
# The tolerance in levels of brightness (of 256), and the share of cells that may exceed it.
LEVELS, CELLS = 6, 0.06
_GRID = """async ([png, columns, rows]) => {
  const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const context = new OffscreenCanvas(columns, rows).getContext('2d');
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, columns, rows);
  const {data} = context.getImageData(0, 0, columns, rows);
  const level = at => Math.round((data[at] + data[at + 1] + data[at + 2]) / 3).toString(16).padStart(2, '0');
  const line = y => Array.from({length: columns}, (_, x) => level(4 * (y * columns + x))).join('');
  return Array.from({length: rows}, (_, y) => line(y));
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pictured(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    async with (
        new_database(postgres, template_database.name) as cloned,
        served(cloned, tmp_path_factory.mktemp("server")) as running,
    ):
        await fill(running)
        yield running


async def test_every_page_looks_as_in_its_approved_picture(pictured: Server, tmp_path: Path) -> None:
    known = json.loads(GRIDS.read_text()) if GRIDS.exists() else {}
    found: dict[str, list[str]] = {}
    async with tab(port_of(pictured)) as console:
        await console.log_in()
        await _fix(console.page)
        # The console's content security policy does not allow its page to read a picture.
        canvas = await console.page.context.new_page()
        await console.page.bring_to_front()
        for look, (width, height) in SIZES.items():
            await console.page.set_viewport_size({"width": width, "height": height})
            scheme: Any = "dark" if look == "dark" else "light"
            await console.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            for address, text in PAGES:
                await visit(console, address, text)
                picture = await _settled(console)
                (tmp_path / f"{look}_{address.replace('/', '_')}.png").write_bytes(picture)
                encoded = base64.b64encode(picture).decode()
                found[f"{look} {address}"] = await canvas.evaluate(_GRID, [encoded, COLUMNS, ROWS])
    if os.environ.get("PILOTHOUSE_WRITE_PICTURES"):
        GRIDS.write_text(json.dumps(found, indent=0) + "\n")
        known = found
    others = {name: share for name, grid in found.items() if (share := _differing(known[name], grid)) > CELLS}
    assert others == {}, f"look at the pictures in {tmp_path}"


async def _fix(page: Any) -> None:
    """Fulfils the calls for a container's log, usage and Kubernetes Events without the server."""
    lines = [
        pb.LogEntry(timestamp=Timestamp(seconds=BEGAN + at), pod=pod, program="main", line=line.encode())
        for at, (pod, line) in enumerate(LOG)
    ]
    points = [
        metrics_pb2.UsagePoint(
            timestamp=Timestamp(seconds=BEGAN + 600 * at),
            cpu_cores_avg=cores,
            memory_bytes_avg=int(2e8 * cores),
        )
        for at, cores in enumerate(CORES)
    ]
    # Two hours ago, which the page shows without minutes.
    ago = Timestamp(seconds=int(time.time()) - 7_500)
    events = [
        resource_pb2.KubernetesEvent(
            type=kind,
            reason=reason,
            message=message,
            count=3,
            object_kind="Pod",
            object_name="front-1",
            last_time=ago,
        )
        for kind, reason, message in EVENTS
    ]
    usage = metrics_pb2.QueryUsageResponse(series=[metrics_pb2.UsageSeries(points=points)])
    for method, message in (
        ("ContainerService/GetContainer", pb.GetContainerResponse(events=events)),
        ("MetricsService/QueryUsage", usage),
    ):
        frames = framed(message.SerializeToString()) + framed(b"grpc-status:0\r\n", 0x80)
        kind = "application/grpc-web+proto"
        await page.route(f"**/*.{method}", partial(_fulfil, content_type=kind, body=frames))
    log = framed(pb.StreamLogsResponse(entries=lines).SerializeToString())
    await page.route_web_socket("**/*.ContainerService/StreamLogs", lambda socket: socket.send(log))
    await page.route_web_socket("**/*.MetricsService/WatchUsage", lambda _: None)


async def _fulfil(route: Any, **answer: Any) -> None:
    await route.fulfill(**answer)


async def _settled(console: Console) -> bytes:
    """Returns the picture once two in a row are equal: the parts of a page arrive one after another."""
    before = b""
    for _ in range(20):
        picture: bytes = await console.page.screenshot(animations="disabled", caret="hide")
        if picture == before:
            return picture
        before = picture
        await console.page.wait_for_timeout(400)
    return before


def _differing(known: list[str], found: list[str]) -> float:
    """Returns the share of the cells whose brightness differs."""
    pairs = zip(bytes.fromhex("".join(known)), bytes.fromhex("".join(found)), strict=True)
    cells = [abs(one - other) > LEVELS for one, other in pairs]
    return sum(cells) / len(cells)


def test_a_picture_without_a_table_differs_from_one_with_it() -> None:
    known = json.loads(GRIDS.read_text())
    for look in SIZES:
        assert _differing(known[f"{look} containers"], known[f"{look} access"]) > CELLS
    assert _differing(known["light overview"], known["dark overview"]) > 0.9
