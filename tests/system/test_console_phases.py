"""Phases, waves and hooks on an application's page: their order, and the hook that stopped the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.namespace.v1 import namespace_pb2
from tests.applications.conftest import config_map, deployment
from tests.applications.test_following import behaving
from tests.applications.test_phases import annotated, job
from tests.conftest import Database
from tests.gateway.browser import port_of
from tests.system.console import Console, served, tab
from tests.waiting import poll_until

pytestmark = pytest.mark.system

_ROWS = """[...document.querySelector('main table').rows]
  .map(row => [...row.cells].slice(0, 4).map(each => each.innerText))"""
HEAD = ["Object", "Step", "Status", "Why"]


async def apply(console: Console, documents: Sequence[dict[str, Any]]) -> None:
    await console.apply(yaml.safe_dump_all(documents))
    await console.page.get_by_role("region", name="Apply YAML").wait_for(state="detached")


async def shows(console: Console, *rows: tuple[str, str, str, str]) -> None:
    """Waits until the application's objects are these, in this order; the last cell need only begin like this."""

    async def found() -> list[list[str]]:
        shown: list[list[str]] = await console.page.evaluate(_ROWS)
        return shown

    def alike(shown: list[list[str]]) -> bool:
        pairs = list(zip(shown[1:], rows, strict=False))
        return (
            len(shown) == len(rows) + 1
            and shown[0] == HEAD
            and all(one[:3] == list(other[:3]) and one[3].startswith(other[3]) for one, other in pairs)
        )

    await poll_until(found, alike)


async def test_an_application_is_shown_step_by_step(database: Database, tmp_path: Path) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        await console.log_in()
        await console.open("applications")
        await console.press("Apply YAML")
        await console.page.fill("section input[placeholder=shop]", "shop")
        after = annotated(deployment("front"), wave="5")
        steps = [job(), behaving("readiness-failing", "back"), after, job("announce", hook="PostSync")]
        await console.page.fill("textarea", yaml.safe_dump_all(steps))
        await console.press("Show the plan")
        plan = console.page.get_by_role("region", name="Apply YAML").locator("ul > li:has(b)")
        await plan.nth(3).wait_for()
        steps_of_plan = [each.split("\n")[0] for each in await plan.all_inner_texts()]
        assert steps_of_plan == [
            "Create Job/migrate Pre sync",
            "Create Deployment/back Sync",
            "Create Deployment/front Sync, wave 5",
            "Create Job/announce Post sync",
        ]
        await console.press("Apply")
        await console.page.wait_for_url("**/#/applications/demo/shop")
        # The hook has ended, and `back` is not ready, so nothing after it is applied.
        await shows(
            console,
            ("Job/migrate", "Pre sync (hook)", "Healthy", "Completed"),
            ("Deployment/back", "Sync", "Progressing", ""),
            (
                "Deployment/front",
                "Sync, wave 5",
                "Progressing",
                "WaitingForWave: it is applied in wave 5 of Sync",
            ),
            (
                "Job/announce",
                "Post sync (hook)",
                "Progressing",
                "WaitingForWave: it is applied in wave 0 of PostSync",
            ),
        )
        await console.page.locator("main p", has_text="container back").wait_for()
        steps[1] = deployment("back")
        await console.press("Apply YAML")
        await apply(console, steps)
        await shows(
            console,
            ("Job/migrate", "Pre sync (hook)", "Healthy", "Completed"),
            ("Deployment/back", "Sync", "Healthy", ""),
            ("Deployment/front", "Sync, wave 5", "Healthy", ""),
            ("Job/announce", "Post sync (hook)", "Healthy", ""),
        )


async def test_a_failed_hook_is_named_with_its_phase_and_its_result(
    database: Database, tmp_path: Path
) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        await console.log_in()
        await console.open("applications")
        await console.press("Apply YAML")
        await console.page.fill("section input[placeholder=shop]", "shop")
        await apply(console, [deployment(), config_map()])
        await console.page.wait_for_url("**/#/applications/demo/shop")
        await console.page.locator(".bar", has_text="Healthy").first.wait_for()
        # Without steps, the table has no column for them.
        assert "Step" not in await console.page.locator("main th").all_inner_texts()

        await console.press("Apply YAML")
        release = deployment(image="nginx:1.28")
        await apply(
            console, [job(behavior="exit:3"), release, config_map(), job("announce", hook="PostSync")]
        )
        why = console.page.locator("main p", has_text="exit code 3")
        assert (await why.inner_text()).startswith("BackoffLimitExceeded: PreSync hook migrate: ")
        await console.page.locator(".bar", has_text="Degraded").first.wait_for()
        await shows(
            console,
            ("Job/migrate", "Pre sync (hook)", "Degraded", "BackoffLimitExceeded"),
            ("Deployment/web", "Sync", "Progressing", "WaitingForWave"),
            ("ConfigMap/settings", "Sync", "Healthy", ""),
            ("Job/announce", "Post sync (hook)", "Progressing", "WaitingForWave"),
        )
        # The overview and the hook's own page also show the reason.
        await console.open("overview")
        table = console.page.get_by_role("region", name="What is wrong")
        await table.get_by_role("row", name="demo/shop").get_by_text("PreSync hook migrate").wait_for()
        await console.open("applications/demo/shop")
        await console.page.get_by_role("link", name="Job/migrate").click()
        await console.page.locator(".why.bad", has_text="exit code 3").wait_for()
        pods = await server.admin.containers.get(namespace="demo", name="web")
        assert pods.image == "nginx:1.28"

        await console.open("applications/demo/shop")
        await console.press("Roll back")
        await console.agree()
        await console.sees("Revision 3 brings back revision 1")
        await console.page.locator(".bar", has_text="Healthy").first.wait_for()
        assert (await server.admin.containers.get(namespace="demo", name="web")).image == "nginx:1.27"
