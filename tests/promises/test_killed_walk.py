"""The verbs of each kind of workload while server and cluster are killed.

Both are killed with SIGKILL just after the calls. tests/main_job/test_verbs_of_kinds.py uses the same table
without kills; tests/reconcile/ kills at every write.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient
from pilothouse_server.launch.embedded.simulator import EmbeddedSimulator
from tests import server_program
from tests.conftest import Database
from tests.main_job.test_verbs_of_kinds import HOLD, KINDS, NAMESPACE, PAUSED, RUNNING, STOPPED, SUSPEND, Kind
from tests.waiting import poll_until

JsonObject = dict[str, Any]
Live = Mapping[str, JsonObject]
# The processes that are killed after each verb.
SERVER, CLUSTER = "server", "cluster"
KILLED = {
    "create": (SERVER, CLUSTER),
    "stop": (CLUSTER,),
    "start": (SERVER,),
    "pause": (SERVER, CLUSTER),
    "resume": (CLUSTER,),
    "restart": (SERVER,),
}


class Town:
    """The simulated cluster, and access to its objects."""

    def __init__(self, simulator: EmbeddedSimulator, kubeconfig: Mapping[str, Any]) -> None:
        self._simulator = simulator
        (cluster,), (user,) = kubeconfig["clusters"], kubeconfig["users"]
        self._url = cluster["cluster"]["server"]
        self._headers = {"authorization": f"Bearer {user['user']['token']}"}

    def kill(self) -> None:
        """Kills the cluster, which is started again from its file."""
        process_id = self._simulator.process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGKILL)

    async def live(self, kind: Kind, name: str) -> JsonObject | None:
        """Returns an object as it is now, or None while the cluster is unavailable."""
        group = kind.resource.api_version
        path = f"/apis/{group}/namespaces/{NAMESPACE}/{kind.resource.plural}/{name}"
        try:
            async with (
                aiohttp.ClientSession(self._url, headers=self._headers) as session,
                session.get(path) as response,
            ):
                return await response.json() if response.status == 200 else None
        except aiohttp.ClientError:
            return None


async def _until(
    client: AsyncClient, town: Town, statuses: Mapping[str, int], holds: Callable[[Kind, JsonObject], bool]
) -> Live:
    """Returns the objects once containers have `statuses` and objects meet `holds`."""

    async def there() -> Live | None:
        rows = {each.name: each async for each in client.containers.list(namespace=NAMESPACE)}
        if any(each.reconciling or each.status != statuses[name] for name, each in rows.items()):
            return None
        found: dict[str, JsonObject] = {}
        for kind in KINDS:
            live = await town.live(kind, rows[kind.name].kubernetes_name)
            if live is None or not holds(kind, live):
                return None
            found[kind.name] = live
        return found

    found = await poll_until(there, what="each container in its status")
    assert found is not None
    return found


@asynccontextmanager
async def _town(tmp_path: Path) -> AsyncIterator[tuple[Town, Path]]:
    simulator = EmbeddedSimulator(tmp_path / "cluster.state")
    try:
        kubeconfig = await simulator.start()
        file = tmp_path / "kubeconfig.json"
        file.write_text(json.dumps(kubeconfig))
        yield Town(simulator, kubeconfig), file
    finally:
        await simulator.stop()


async def _ask(client: AsyncClient, verb: str) -> None:
    """Calls the verb for each kind."""
    if verb == "create":
        await client.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE))
    for kind in KINDS:
        named: dict[str, Any] = {"namespace": NAMESPACE, "name": kind.name}
        if verb == "create":
            ports = [pb.Port(container_port=80, service_type=pb.SERVICE_TYPE_HEADLESS)]
            wanted = pb.Container(name=kind.name, image="nginx:1.27", **kind.settings)
            wanted.ports.extend(ports if kind.name == "stateful-set" else [])
            await client.containers.create(namespace=NAMESPACE, container=wanted)
        elif verb == "pause":
            await client.containers.pause(**named, mode=SUSPEND if kind.held is None else HOLD)
        else:
            await getattr(client.containers, verb)(**named)


def _is_held(kind: Kind, live: JsonObject) -> bool:
    return kind.stopped(live) if kind.held is None else kind.held(live)


@pytest.mark.full(minutes=5)
async def test_each_verb_survives_kills_of_server_and_cluster(database: Database, tmp_path: Path) -> None:
    all_running = dict.fromkeys((each.name for each in KINDS), RUNNING)
    held = {each.name: PAUSED if each.held is None else RUNNING for each in KINDS}
    restarted: dict[str, Any] = {}

    def as_wanted(kind: Kind, live: JsonObject) -> bool:
        return not kind.stopped(live) and not (kind.held and kind.held(live))

    def as_restarted(kind: Kind, live: JsonObject) -> bool:
        return as_wanted(kind, live) and kind.restarted(live) != restarted[kind.name]

    ends = {
        "create": (all_running, as_wanted),
        "stop": (dict.fromkeys(all_running, STOPPED), lambda kind, live: kind.stopped(live)),
        "start": (all_running, as_wanted),
        "pause": (held, _is_held),
        "resume": (all_running, as_wanted),
        "restart": (all_running, as_restarted),
    }
    async with _town(tmp_path) as (town, kubeconfig):
        environment = server_program.variables(database, tmp_path, {"PILOTHOUSE_KUBECONFIG": str(kubeconfig)})
        left, asked = list(KILLED), ""
        while left or asked:
            async with server_program.program(environment) as server:
                while left or asked:
                    if asked:
                        live = await _until(server.client, town, *ends[asked])
                        assert live.keys() == all_running.keys()
                        restarted = {kind.name: kind.restarted(live[kind.name]) for kind in KINDS}
                    if not left:
                        return
                    asked = left.pop(0)
                    await _ask(server.client, asked)
                    if CLUSTER in KILLED[asked]:
                        town.kill()
                    if SERVER in KILLED[asked]:
                        await server.kill()
                        break
