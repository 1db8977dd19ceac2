"""Changes on the console: resources in the editor, which first shows the differences, and deletions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import NotFoundError
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.conftest import Database, new_database
from tests.gateway.browser import port_of
from tests.harness import Server
from tests.system.console import Console, served, tab
from tests.waiting import poll_until

pytestmark = pytest.mark.system


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    async with (
        new_database(postgres, template_database.name) as cloned,
        served(cloned, tmp_path_factory.mktemp("server")) as running,
    ):
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def server(shared: Server) -> Server:
    """Returns the shared server, with a namespace that no other test uses."""
    own = shared.for_one_test()
    await own.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=own.namespace))
    return own


@pytest_asyncio.fixture(loop_scope="session")
async def console(server: Server) -> AsyncIterator[Console]:
    """Yields a tab of the administrator."""
    async with tab(port_of(server)) as opened:
        await opened.log_in()
        yield opened


async def make(console: Console, namespace: str, what: str, name: str, text: str = "") -> None:
    """Creates a resource in the editor."""
    await console.press(f"New {what}")
    await console.page.get_by_role("heading", name=f"New {what}").wait_for()
    await console.page.locator("section select").first.select_option(namespace)
    await console.page.fill("section input[name=name]", name)
    if text:
        await console.page.fill("section textarea", text)
    await console.press("Show what changes")
    await console.press(f"Create the {what}")
    await console.page.get_by_role("cell", name=name, exact=True).wait_for()


async def test_a_container_is_created_changed_and_deleted(server: Server, console: Console) -> None:
    where = server.namespace
    await console.open(f"containers?namespace={where}")
    await make(console, where, "container", "web")
    await console.open(f"containers/{where}/web")
    await console.press("Edit")
    await console.page.get_by_label("Image").fill("nginx:1.28")
    await console.press("Show what changes")
    await console.page.locator("li", has_text="nginx:1.28").wait_for()
    await console.sees("The pods are replaced.")

    # Another caller changes the container before that.
    await server.admin.containers.scale(namespace=where, name="web", replicas=2)
    await console.press("Apply the change")
    await console.sees("Somebody else has changed it")
    assert (await server.admin.containers.get(namespace=where, name="web")).image == "nginx:1.27"
    await console.press("Close")
    await console.press("Edit")
    text = await console.page.input_value("section textarea")
    assert "replicas: 2" in text
    await console.page.fill("section textarea", f"{text}env:\n- {{name: LEVEL, value: debug}}\n")
    await console.press("Show what changes")
    await console.press("Apply the change")
    await console.page.locator("dd", has_text="LEVEL").wait_for()

    await console.press("Scale")
    await console.page.fill("dialog input[name=entry]", "3")
    await console.agree()
    await console.sees("/3 ready")

    await console.press("Delete")
    go_on = console.page.locator("dialog").get_by_role("button", name="Go on")
    assert await go_on.is_disabled()
    await console.agree("web")
    await console.page.wait_for_url("**/#/containers")

    async def gone() -> bool:
        try:
            await server.admin.containers.get(namespace=where, name="web")
        except NotFoundError:
            return True
        return False

    await poll_until(gone, lambda found: found)


async def test_invalid_yaml_is_refused_with_the_place_of_the_error(server: Server, console: Console) -> None:
    await console.open("containers")
    await console.press("New container")
    await console.page.locator("section select").first.select_option(server.namespace)
    await console.page.fill("section input[name=name]", "web")
    for text, said in (
        ("image: [", "at line"),
        ("images: nginx", '"images" cannot be set here'),
        ("image: nginx:1.27\nreplicas: many", "replicas"),
        ("image: nginx:1.27\nreplicas: -1", "container.replicas"),
    ):
        await console.page.fill("section textarea", text)
        await console.press("Show what changes")
        await console.page.get_by_role("alert").filter(has_text=said).wait_for()
    assert [each.name async for each in server.admin.containers.list(namespace=server.namespace)] == []


async def test_services_volumes_and_objects_are_created_and_changed(server: Server, console: Console) -> None:
    where = server.namespace
    await server.admin.containers.create(
        namespace=where, container=pb.Container(name="web", image="nginx:1.27")
    )
    await console.open(f"services?namespace={where}")
    await make(console, where, "Service", "front")
    await console.open(f"volumes?namespace={where}")
    await make(console, where, "volume", "data")
    await console.press("Edit")
    # The cluster's storage class does not allow the volume to grow.
    await console.page.get_by_label("Size").fill("2Gi")
    await console.press("Show what changes")
    await console.page.get_by_role("alert").first.wait_for()
    await console.page.fill("section textarea", "size: 1Gi\nlabels: {team: shop}\n")
    await console.press("Show what changes")
    await console.page.locator("li", has_text="labels.team").wait_for()
    await console.press("Apply the change")
    await poll_until(
        lambda: server.admin.storage.get_volume(namespace=where, name="data"),
        lambda found: "team" in found.labels,
    )
    await console.open(f"objects?namespace={where}")
    await make(console, where, "object", "closed")
    await console.press("Edit")
    await console.page.locator("section textarea").wait_for()
    await console.page.fill("section textarea", "labels: {team: shop}\n")
    await console.press("Show what changes")
    await console.page.get_by_role("alert").first.wait_for()
    await console.press("Close")
    await console.press("Delete")
    await console.agree("closed")
    await console.sees("No object is here.")


async def test_a_secret_is_set_revealed_and_recorded(server: Server, console: Console) -> None:
    where = server.namespace
    await console.open(f"configs?namespace={where}")
    await make(console, where, "secret", "login", "string_data: {PASSWORD: first, USER: ada}")
    await console.press("Edit")
    await console.page.locator("section textarea").wait_for()
    assert "first" not in await console.page.input_value("section textarea")
    await console.page.fill("section textarea", "string_data: {PASSWORD: second}")
    await console.press("Show what changes")
    await console.sees("(hidden)")
    await console.press("Apply the change")
    # Until the form closes, the page shows the former values.
    await console.page.get_by_role("region", name="Change login").wait_for(state="detached")
    await console.press("Reveal")
    await console.agree()
    await console.page.locator("pre", has_text="second").wait_for()
    await console.press("Remove the key")
    await console.agree()
    await console.page.locator("pre", has_text="second").wait_for(state="detached")
    left = (await server.admin.config.reveal_secret(namespace=where, name="login")).data
    assert dict(left) == {"USER": b"ada"}
    records = [
        each async for each in server.admin.audit.list_operations(namespace=where, filter='action="reveal"')
    ]
    assert len(records) == 2
    old = console.page.get_by_text("It has changed since: these values may be old.")
    assert await old.count() == 0
    await server.admin.config.update_secret(
        namespace=where,
        name="login",
        secret=config_pb2.Secret(string_data={"USER": "eve"}),
        update_mask=FieldMask(paths=["string_data"]),
    )
    await old.wait_for()

    await console.page.get_by_role("button", name="Hide").click()
    await make(console, where, "config map", "settings", "data: {LEVEL: info}")
    assert (await server.admin.config.get_config_map(namespace=where, name="settings")).data[
        "LEVEL"
    ] == "info"


async def test_a_namespace_gets_a_quota(server: Server, console: Console) -> None:
    await console.open(f"namespaces?q={server.namespace}")
    await console.press("Edit")
    await console.page.get_by_label("Containers").fill("7")
    await console.page.get_by_label("Memory").fill("8Gi")
    await console.press("Show what changes")
    await console.sees("resource_quota.containers")
    await console.press("Apply the change")
    await console.page.get_by_role("region", name=f"Change {server.namespace}").wait_for(state="detached")
    await console.press("Quota")
    await console.page.get_by_role("cell", name="7", exact=True).wait_for()
    quota = (await server.admin.namespaces.get(name=server.namespace)).resource_quota
    assert (quota.containers, quota.memory) == (7, "8Gi")


async def test_keys_sessions_grants_and_users_are_revoked_and_deleted(
    server: Server, console: Console
) -> None:
    vera = await server.user("vera", {server.namespace: "viewer"})
    await vera.identity.who_am_i()
    await console.open("account")
    await console.page.fill("input[name=key]", server.namespace)
    await console.press("Create a key")
    await console.sees("The key, shown this once")
    await console.press("Revoke")
    await console.agree()
    await console.page.get_by_role("cell", name=server.namespace, exact=True).wait_for(state="detached")

    await console.open("access")
    name = server.own("vera")
    row = console.page.get_by_role("region", name="Users").get_by_role("row", name=name)
    await row.get_by_role("button", name="Sessions").click()
    await (
        console.page.get_by_role("region", name=f"Sessions of {name}")
        .get_by_role("button", name="End")
        .first.click()
    )
    await console.agree()
    await console.sees("None.")
    grant = console.page.get_by_role("region", name="Grants").get_by_role("row", name=name)
    await grant.get_by_role("button", name="Revoke").click()
    await console.agree()
    await grant.wait_for(state="detached")
    await row.get_by_role("button", name="Delete").click()
    await console.agree(name)
    await row.wait_for(state="detached")
    with pytest.raises(NotFoundError):
        await server.admin.identity.get_user(username=name)


async def test_a_secret_cannot_be_revealed_without_the_permission(server: Server) -> None:
    where = server.namespace
    await server.admin.config.create_secret(
        namespace=where, secret=config_pb2.Secret(name="login", string_data={"PASSWORD": "first"})
    )
    await server.user("olga", {where: "observer"})
    async with tab(port_of(server)) as console:
        await console.log_in(server.own("olga"))
        await console.open(f"configs?namespace={where}")
        await console.page.locator("button[aria-disabled=true]", has_text="Reveal").wait_for()
        await console.page.get_by_role("button", name="Reveal").click(force=True)
        await console.page.get_by_role("alert").filter(has_text="config.reveal").wait_for()
        assert await console.page.locator("dialog[open]").count() == 0
