"""Envoy with `deploy/envoy.yaml`, in front of a test's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from pilothouse_client import Tls
from tests.client.certificates import made
from tests.conftest import Database
from tests.conventions.sources import ROOT
from tests.harness import Server, running_server
from tests.system.programs import program
from tests.waiting import poll_until, within

# Envoy reaches the server from this address, and clients reach Envoy from 127.0.0.1.
PROXY = "127.0.0.9"
Change = Callable[[dict[str, Any]], None]


def configuration() -> dict[str, Any]:
    """Returns the example configuration as it is deployed."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "envoy.yaml").read_text("utf-8"))
    return loaded


def manager(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the part of the example that handles HTTP."""
    filters: list[dict[str, Any]] = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    found: dict[str, Any] = filters[-1]["typed_config"]
    return found


def rate_limit(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the part that limits new calls."""
    route = manager(config)["route_config"]["virtual_hosts"][0]["routes"][0]
    found: dict[str, Any] = route["typed_per_filter_config"]["envoy.filters.http.local_ratelimit"]
    return found


@asynccontextmanager
async def behind_envoy(
    database: Database, folder: Path, change: Change = lambda _: None
) -> AsyncIterator[tuple[Server, str, Tls]]:
    """Yields a server, Envoy's address in front of it, and the certificate to trust; `change` alters the example."""
    envoy = program("envoy")
    authority = made(authority=True)
    pair = made("127.0.0.1", by=authority)
    certificate, key = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(pair.pem)
    key.write_bytes(pair.key_pem)
    async with running_server(database, folder / "data", with_cluster=False, trusted_proxies=PROXY) as server:
        config = configuration()
        change(config)
        any_port = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        listener = config["static_resources"]["listeners"][0]
        listener["address"] = any_port
        config["admin"] = {"address": any_port}
        tls = listener["filter_chains"][0]["transport_socket"]["typed_config"]["common_tls_context"]
        tls["tls_certificates"][0] = {
            "certificate_chain": {"filename": str(certificate)},
            "private_key": {"filename": str(key)},
        }
        cluster = config["static_resources"]["clusters"][0]
        endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
        host, _, server_port = server.address.rpartition(":")
        endpoint["address"]["socket_address"] = {"address": host, "port_value": int(server_port)}
        cluster["upstream_bind_config"] = {"source_address": {"address": PROXY, "port_value": 0}}
        file = folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(config))
        log, admin = folder / "envoy.log", folder / "admin"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                envoy, "--config-path", file, "--admin-address-path", admin, "--use-dynamic-base-id",
                "--concurrency", "1", stdout=output, stderr=output,
            )  # fmt: skip
        try:
            address = await poll_until(lambda: _listening(process, log, admin), seconds=30, what="Envoy")
            yield server, str(address), Tls(root_certificates=authority.pem)
        finally:
            if process.returncode is None:
                process.terminate()
            async with within(30):
                await process.wait()


async def _listening(process: asyncio.subprocess.Process, log: Path, admin: Path) -> str:
    """Returns the address where Envoy accepts clients; empty until it does."""
    assert process.returncode is None, log.read_text()[-2000:]
    # Envoy creates the file before it writes the address.
    if not admin.exists() or not (interface := admin.read_text()):
        return ""
    async with aiohttp.ClientSession(f"http://{interface}") as session:
        async with session.get("/ready") as ready:
            if ready.status != 200:
                return ""
        async with session.get("/listeners", params={"format": "json"}) as listed:
            found = await listed.json(content_type=None)
    where = found["listener_statuses"][0]["local_address"]["socket_address"]
    return f"{where['address']}:{where['port_value']}"
