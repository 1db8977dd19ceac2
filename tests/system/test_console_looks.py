"""Every page in dark and light, wide and narrow: accessibility with axe-core, and no page wider than its window."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pilothouse.application.v1 import application_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.gateway.browser import port_of
from tests.harness import Server
from tests.system.console import Console, served, tab
from tests.waiting import poll_until

pytestmark = pytest.mark.system

AXE = Path(__file__).parents[2] / "client/console/node_modules/axe-core/axe.min.js"
# The rules of WCAG only, without axe's further advice.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
PAGES = (
    ("overview", "What is wrong"),
    ("namespaces", "Active"),
    ("applications", "shop"),
    ("applications/demo/shop", "Deployment/front"),
    ("containers", "broken"),
    ("containers/demo/broken", "not ready"),
    ("containers/demo/front?tab=logs", "lines"),
    ("containers/demo/front?tab=usage", "cores"),
    ("containers/demo/front?tab=events", "Kubernetes"),
    ("containers/demo/front?tab=terminal", "Open a terminal"),
    ("containers/demo/front?tab=revisions", "now"),
    ("containers/demo/front?tab=history", "From"),
    ("containers/demo/front?tab=calls", "Calls about this container"),
    ("services", "front"),
    ("objects", "closed"),
    ("volumes", "data"),
    ("configs", "login"),
    ("audit", "container"),
    ("access", "Revoke"),
    ("clusters", "Healthy"),
    ("account", "Console"),
    ("search?q=front", "front"),
)
SHOP = """\
{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "front"}, "spec": {"replicas": 2,
 "selector": {"matchLabels": {"app": "front"}}, "template": {"metadata": {"labels": {"app": "front"}},
 "spec": {"containers": [{"name": "main", "image": "nginx:1.27"}]}}}}
"""
CLOSED = '{"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}'


async def fill(server: Server) -> None:
    """Creates one resource of each noun in the namespace, and a container that does not run."""
    admin = server.admin
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
    await admin.applications.apply(
        namespace="demo",
        name="shop",
        documents=[application_pb2.ApplicationDocument(json=SHOP, source="shop.yaml")],
    )
    await admin.containers.create(
        namespace="demo", container=pb.Container(name="broken", image="registry.invalid/nginx:2")
    )
    await admin.network.create_service(
        namespace="demo",
        service=network_pb2.Service(
            name="front", containers=["front"], ports=[network_pb2.ServicePort(port=80)]
        ),
    )
    await admin.storage.create_volume(
        namespace="demo",
        volume=storage_pb2.Volume(
            name="data",
            size="1Gi",
            type=storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
            access_mode=storage_pb2.ACCESS_MODE_READ_WRITE_ONCE,
        ),
    )
    await admin.objects.create(
        namespace="demo",
        object=object_pb2.Object(
            name="closed", api_version="networking.k8s.io/v1", kind="NetworkPolicy", document=CLOSED
        ),
    )
    await admin.config.create_secret(
        namespace="demo", secret=config_pb2.Secret(name="login", string_data={"PASSWORD": "first"})
    )
    await server.user("olga", {"demo": "observer"})

    async def broken() -> Any:
        return await admin.containers.get(namespace="demo", name="broken")

    await poll_until(broken, lambda found: found.reason == "ImagePullBackOff")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shown(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    async with (
        new_database(postgres, template_database.name) as cloned,
        served(cloned, tmp_path_factory.mktemp("server")) as running,
    ):
        await fill(running)
        yield running


async def visit(console: Console, address: str, text: str) -> None:
    """Opens a page and waits until its text is shown."""
    await console.open(address)
    await console.page.locator("main").get_by_text(text).first.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_breaks_a_rule_of_wcag(shown: Server, scheme: Any) -> None:
    if not AXE.exists():
        pytest.skip("needs client/console/node_modules: run npm ci there")
    async with tab(port_of(shown)) as console:
        await console.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        await console.open()
        await console.page.locator("input[name=username]").wait_for()
        found = {"log-in": await _axe(console)}
        await console.log_in()
        for address, text in PAGES:
            await visit(console, address, text)
            found[address] = await _axe(console)
        for button in ("New container", "New Service"):
            await console.open("containers" if button == "New container" else "services")
            await console.press(button)
            await console.page.locator("section textarea").wait_for()
            found[button] = await _axe(console)
        await console.open("containers/demo/broken")
        await console.press("Delete")
        await console.page.locator("dialog[open]").wait_for()
        found["dialog"] = await _axe(console)
        assert {page: faults for page, faults in found.items() if faults} == {}


async def test_no_page_is_wider_than_a_narrow_window(shown: Server) -> None:
    async with tab(port_of(shown)) as console:
        await console.page.set_viewport_size({"width": 390, "height": 780})
        await console.log_in()
        wide = {}
        for address, text in PAGES:
            await visit(console, address, text)
            width = await console.page.evaluate("document.documentElement.scrollWidth")
            if width > 390:
                wide[address] = width
        assert wide == {}


# Measures a narrow window: the tallest row, whether the current page's link is in view, and the cells that are cut
# off.
_NARROW = """() => {
  const all = (which) => [...document.querySelectorAll(which)];
  const link = document.querySelector('nav [aria-current]')?.getBoundingClientRect();
  return {
    tallest: Math.max(0, ...all('main tbody tr').map(each => each.offsetHeight)),
    link: !link || (link.left >= 0 && link.right <= innerWidth),
    cut: all('[data-found]').filter(each => each.parentElement.scrollWidth > each.parentElement.clientWidth).length,
    beyond: all('.of-one tbody td:nth-child(3)').filter(each => each.getBoundingClientRect().right > innerWidth).length,
  };
}"""
# The longest message has fifteen lines; when its column was squeezed, it had forty.
MOST_OF_ROW = 400


async def test_a_narrow_window_cuts_nothing_off(shown: Server) -> None:
    async with tab(port_of(shown)) as console:
        await console.page.set_viewport_size({"width": 390, "height": 780})
        await console.log_in()
        faults = []
        for address, text in (*PAGES, ("containers?namespace=demo", "broken")):
            await visit(console, address, text)
            found = await console.page.evaluate(_NARROW)
            if found["tallest"] > MOST_OF_ROW or not found["link"] or found["cut"] or found["beyond"]:
                faults.append((address, found))
        assert faults == []


async def test_a_long_image_name_is_listed_by_its_end(shown: Server) -> None:
    image = "registry.invalid/a-team/with-a-long-path/front:v0.10.6"
    await shown.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="far"))
    await shown.admin.containers.create(namespace="far", container=pb.Container(name="far", image=image))
    async with tab(port_of(shown)) as console:
        await console.log_in()
        for address in ("containers?namespace=far", "search?q=far"):
            await console.open(address)
            cell = console.page.get_by_role("cell", name="…/front:v0.10.6", exact=True)
            assert await cell.get_attribute("title") == image
        await shown.admin.namespaces.delete(name="far", cascade=True)


async def test_pages_and_searches_are_reached_with_the_keyboard_alone(shown: Server) -> None:
    async with tab(port_of(shown)) as console:
        await console.log_in()
        keys = console.page.keyboard
        await keys.press("?")
        await console.page.get_by_role("dialog", name="Keys").wait_for()
        await keys.press("Escape")
        await console.page.get_by_role("dialog", name="Keys").wait_for(state="detached")
        await keys.press("g")
        await keys.press("c")
        await console.page.get_by_role("link", name="broken", exact=True).wait_for()
        await keys.press("f")
        await keys.type("front")
        await console.page.get_by_role("link", name="broken", exact=True).wait_for(state="detached")
        assert console.page.url.endswith("#/containers?q=front")
        # In an input field, letters are no shortcuts.
        await keys.type(" gn")
        assert console.page.url.endswith("#/containers?q=front+gn")


async def test_the_search_finds_all_nouns_and_is_closed_by_keys(shown: Server) -> None:
    async with tab(port_of(shown)) as console:
        await console.log_in()
        keys, main = console.page.keyboard, console.page.locator("main")
        await keys.press("g")
        await keys.press("v")
        await main.get_by_text("data").first.wait_for()
        await keys.press("/")
        await keys.type("FRONT")
        await main.get_by_role("link", name="demo/front", exact=True).nth(1).wait_for()
        assert await main.get_by_role("heading", level=2).all_inner_texts() == ["Containers", "Services"]
        # The second result is the Service.
        await keys.press("ArrowDown")
        await keys.press("ArrowDown")
        await keys.press("Enter")
        await console.page.wait_for_url("**/#/services?namespace=demo&q=front")
        await console.page.go_back()
        await keys.press("/")
        await keys.type(" nginx:1.27")
        await main.get_by_text("1 found").wait_for()
        await keys.press("Enter")
        await console.page.wait_for_url("**/#/containers/demo/front")
        await console.page.go_back()
        await keys.press("/")
        await console.page.fill("nav input", "nowhere-to-be-found")
        await main.get_by_text("Nothing that you can see").wait_for()
        await keys.press("Escape")
        await console.page.wait_for_url("**/#/volumes")


async def test_the_overview_follows_failures_and_recoveries(shown: Server) -> None:
    async with tab(port_of(shown)) as console:
        limits = namespace_pb2.ResourceQuota(containers=5, cpu="2")
        await shown.admin.namespaces.create(
            namespace=namespace_pb2.Namespace(name="limited", resource_quota=limits)
        )
        await console.log_in()
        table = console.page.get_by_role("region", name="What is wrong")
        await table.get_by_role("link", name="demo/broken", exact=True).wait_for()
        await table.get_by_text("ImagePullBackOff").first.wait_for()
        await shown.admin.containers.create(
            namespace="limited", container=pb.Container(name="worse", image="registry.invalid/nginx:2")
        )
        link = table.get_by_role("link", name="limited/worse", exact=True)
        await link.wait_for()
        await console.page.get_by_role("row", name="limited").get_by_text("1 of 5").wait_for()
        await shown.admin.containers.delete(namespace="limited", name="worse")
        await link.wait_for(state="detached")
        assert await table.get_by_role("link", name="demo/broken", exact=True).count() == 1
        await console.page.get_by_role("row", name="limited").get_by_text("0 of 5").wait_for()
        await console.page.locator(".tiles").get_by_role("link", name="Pending").first.click()
        await console.page.wait_for_url("**/#/containers?status=PENDING")
        await console.page.get_by_role("link", name="broken", exact=True).wait_for()
        await console.page.get_by_role("link", name="front", exact=True).wait_for(state="detached")


async def _axe(console: Console) -> list[str]:
    await console.page.evaluate(AXE.read_text())
    result = await console.page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}, resultTypes: ['violations']})",
        RULES,
    )
    return [
        f"{each['id']}: {node['html'][:160]} {node['any'][0]['message'][:120] if node['any'] else ''}"
        for each in result["violations"]
        for node in each["nodes"][:3]
    ]
