"""The console in Debian's Chromium, driven by Playwright, against a server with the simulated cluster."""

from __future__ import annotations

import base64
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import audit_verifier
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database
from tests.gateway.browser import port_of
from tests.harness import PASSWORD, Server
from tests.system.console import served, tab

pytestmark = pytest.mark.system

SHOP = """\
apiVersion: v1
kind: Service
metadata: {name: front}
spec:
  selector: {app: front}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front}
spec:
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec:
      containers:
      - name: main
        image: nginx:1.27
        readinessProbe: {tcpSocket: {port: 80}}
"""
# An image that cannot be pulled.
BROKEN = SHOP.replace("nginx:1.27", "registry.invalid/nginx:2")


async def test_a_broken_release_is_explained_rolled_back_and_proven(
    database: Database, tmp_path: Path
) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await console.log_in()
        await console.open("namespaces")
        await console.press("New namespace")
        await console.page.fill("input[name=name]", "demo")
        await console.press("Show what changes")
        await console.press("Create the namespace")
        await console.sees("Active")

        await console.open("applications")
        await console.press("Apply YAML")
        await console.page.fill("section input[placeholder=shop]", "shop")
        await console.apply(SHOP)
        await console.page.wait_for_url("**/#/applications/demo/shop")
        await console.sees("Healthy")

        await console.press("Apply YAML")
        await console.apply(BROKEN)
        await console.sees("Degraded")
        await console.page.get_by_role("link", name="Deployment/front").click()
        await console.sees("ImagePullBackOff")

        await console.open("applications/demo/shop")
        await console.press("Roll back")
        await console.agree()
        await console.sees("Revision 3 brings back revision 1")
        await console.sees("Healthy")
        assert (await server.admin.containers.get(namespace="demo", name="front")).image == "nginx:1.27"

        await console.open("containers/demo/front?tab=logs")
        await console.page.locator(".log div").first.wait_for()
        await console.open("containers/demo/front?tab=terminal")
        await console.press("Open a terminal")
        await console.sees("BusyBox")
        await console.page.keyboard.type("echo from-the-page\n")
        await console.page.get_by_text("from-the-page", exact=True).first.wait_for()

        await console.open("containers/demo/front?tab=calls")
        await console.page.get_by_text("Last changed by admin").wait_for()
        await console.page.locator("button[aria-expanded=false]").first.click()
        proof, record = await console.downloads("Download its proof", 2)
        await _check_proof(server, proof, record)

        await console.open("access")
        await console.page.fill("input[name=fresh]", "colleague")
        await console.page.fill("input[name=email]", "colleague@example.com")
        await console.page.fill("input[name=password]", PASSWORD)
        await console.press("Create the user")
        await console.sees("colleague can log in now")
        await console.page.fill("input[name=namespace]", "demo")
        await console.press("Grant")
        await console.sees("colleague has the role observer in demo now.")
        await console.press("Log out")
        await console.log_in("colleague")
        await console.open("containers/demo/front")
        await console.sees("nginx:1.27")
        await console.page.locator("button[aria-disabled=true]", has_text="Delete").wait_for()


async def _check_proof(server: Server, proof: bytes, record: bytes) -> None:
    """Checks a proof as docs/audit.md describes: with nothing but the public key of the log."""
    key = (await server.admin.audit.get_audit_head()).verifier_keys[0]
    path, _, note = proof.decode().partition("\n\n")
    form, index, *hashes = path.split("\n")
    assert form == "c2sp.org/tlog-proof@v1"
    _, size, root = audit_verifier.head(note, [key])
    leaf = audit_verifier.sha256(b"\x00" + audit_verifier.sha256(record))
    decoded = [base64.b64decode(each) for each in hashes]
    assert audit_verifier.root_of(leaf, int(index.removeprefix("index ")), size, decoded) == root
    assert json.loads(record)["action"]


async def test_a_table_continues_after_a_server_restart(database: Database, tmp_path: Path) -> None:
    async with SimulatedCluster(speed=10.0) as cluster, AsyncExitStack() as first, AsyncExitStack() as second:
        server = await first.enter_async_context(served(database, tmp_path, cluster=cluster))
        port = port_of(server)
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        await server.admin.containers.create(
            namespace="demo", container=pb.Container(name="before", image="nginx:1.27")
        )
        async with tab(port) as console:
            await console.log_in()
            await console.open("containers")
            await console.sees("before")
            await first.aclose()
            await console.sees("Not up to date")
            again = await second.enter_async_context(
                served(database, tmp_path, cluster=cluster, http_listen=f"127.0.0.1:{port}")
            )
            await again.admin.containers.create(
                namespace="demo", container=pb.Container(name="after", image="nginx:1.27")
            )
            await console.page.get_by_role("link", name="after", exact=True).wait_for()
            assert await console.page.get_by_text("Not up to date").count() == 0


async def test_an_ended_session_shows_the_log_in_and_stops_all_calls(
    database: Database, tmp_path: Path
) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await console.log_in()
        await console.open("containers")
        sessions = [
            each async for each in server.admin.identity.list_sessions() if "Chrom" in each.user_agent
        ]
        await server.admin.identity.revoke_session(session_id=sessions[0].session_id)
        await console.sees("Your session has ended")
        calls: list[str] = []
        console.page.on("request", lambda request: calls.append(request.url))
        console.page.on("websocket", lambda socket: calls.append(socket.url))
        # The page's longest pause between two attempts is shorter.
        await console.page.wait_for_timeout(3_000)
        assert calls == []


async def test_a_button_names_the_missing_permission(database: Database, tmp_path: Path) -> None:
    async with served(database, tmp_path) as server, tab(port_of(server)) as console:
        await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="demo"))
        await server.admin.containers.create(
            namespace="demo", container=pb.Container(name="web", image="nginx:1.27")
        )
        await server.user("vera", {"demo": "viewer"})
        await console.log_in("vera")
        await console.open("containers/demo/web")
        button = console.page.get_by_role("button", name="Stop", exact=True)
        await console.page.locator("button[aria-disabled=true]", has_text="Stop").wait_for()
        assert "container.stop" in (await button.get_attribute("title") or "")
        await button.click(force=True)
        await console.page.get_by_role("alert").first.wait_for()
        assert (
            await server.admin.containers.get(namespace="demo", name="web")
        ).status != pb.CONTAINER_STATUS_STOPPED

        # A granted right shows without a reload, and so does a revoked one.
        await server.admin.identity.grant_role(username="vera", role="operator", namespace="demo")
        await console.page.get_by_role("heading").first.hover()
        await console.page.wait_for_timeout(2_100)
        await button.hover()
        await console.page.locator("button[aria-disabled=false]", has_text="Stop").wait_for()
        await console.page.locator("button[aria-disabled=false]", has_text="Pause").wait_for()
        await server.admin.identity.revoke_role(username="vera", role="operator", namespace="demo")
        await console.press("Pause")
        await console.page.locator("button[aria-disabled=true]", has_text="Stop").wait_for()
        await console.page.get_by_role("alert").filter(has_text="container.pause").wait_for()
