"""The simulated cluster as a server: composition, start and stop, kubeconfig.

`SimulatedCluster` wires the store, the API routes, the controllers, the scheduler and the kubelets, all on one event
loop. It is used in tests (with a free port and a speed above one) and by `pilothouse simulate-cluster`.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from pilothouse_simulator.admission.strategy import KindStrategies
from pilothouse_simulator.api.context import ApiContext
from pilothouse_simulator.api.faults import FaultPlan
from pilothouse_simulator.api.listener import ApiListener
from pilothouse_simulator.api.routes import ApiRoutes
from pilothouse_simulator.api.server_certificate import Authority
from pilothouse_simulator.api.users import Users
from pilothouse_simulator.controllers.claims import create_storage_classes
from pilothouse_simulator.controllers.gateways import create_gateway_class
from pilothouse_simulator.controllers.ingresses import create_ingress_classes
from pilothouse_simulator.controllers.manager import ControllerManager
from pilothouse_simulator.controllers.scheduler import Scheduler
from pilothouse_simulator.nodes.kubelet import Kubelets
from pilothouse_simulator.nodes.node_objects import NodeShape
from pilothouse_simulator.store.custom_types import serve
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.state_file import StateFile
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock
from pilothouse_simulator.values.resources import CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES, SERVICES

JsonObject = dict[str, Any]

HOST = "127.0.0.1"

log = logging.getLogger(__name__)
_FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


class SimulatedCluster:
    """A Kubernetes cluster in this process.

    `nodes` is the number of nodes, or their shapes. `speed` is the number of simulated seconds per real second. `port`
    0 selects a free port. `token` is the administrator's bearer token (random unless given). `state_path` is the file
    that stores the cluster between runs. `tls` serves HTTPS with a self-signed certificate; kubectl needs it, because
    it sends no token over plain HTTP. `users` are admitted in addition to the administrator. `ahead_seconds` is how far
    the cluster's clock is ahead of the true time (negative: behind). `definitions` are CustomResourceDefinitions that
    the cluster has from its start (`gateway_definitions()` for the Gateway API); others are installed by `install` or
    over HTTP.
    """

    def __init__(
        self,
        *,
        nodes: int | Sequence[NodeShape] = 3,
        speed: float = 1.0,
        port: int = 0,
        tls: bool = False,
        token: str | None = None,
        state_path: Path | None = None,
        ahead_seconds: float = 0.0,
        definitions: Sequence[JsonObject] = (),
    ) -> None:
        self.faults = FaultPlan()
        self.clock = Clock(speed, ahead_seconds=ahead_seconds)
        self.strategies = KindStrategies(self.faults.webhooks)
        self.store = ObjectStore(self.strategies, self.clock.now)
        self.token = token or secrets.token_urlsafe(24)
        self.users = Users(self.token)
        self.url = ""
        self._definitions = definitions
        self._port = port
        self._authority = Authority(HOST) if tls else None
        self._state_file = StateFile(state_path, self.store) if state_path is not None else None
        self._context = ApiContext(self.store, self.clock, self.faults)
        self._recorder = EventRecorder(self.store, self.clock)
        self._controllers = ControllerManager(self.store, self.clock, self._recorder)
        self._scheduler = Scheduler(self.store, self.clock, self._recorder)
        self.kubelets = Kubelets(self.store, self.clock, self._recorder, nodes=nodes)
        self._listener: ApiListener | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Loads or creates the cluster, starts its controllers and listens.

        Raises OSError if another process uses the port or the saved state, and ValueError if the state cannot be read.
        After an error, nothing runs.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        if self._state_file is None or not await self._state_file.load():
            self._create_first_objects()
        create_ingress_classes(self.store)
        self.install(*self._definitions)
        if self._state_file is not None:
            self._state_file.begin()
            self._start_task("state file", self._state_file.run())
        self.kubelets.register_nodes()
        self._start_task("controllers", self._controllers.run())
        self._start_task("scheduler", self._scheduler.run())
        self._start_task("kubelets", self.kubelets.run())
        routes = ApiRoutes(self._context, self.users, kubelets=self.kubelets)
        tls = self._authority.server_context() if self._authority is not None else None
        self._listener = ApiListener(self._context, self.users, routes, host=HOST, port=self._port, tls=tls)
        await self._listener.start()
        self.faults.restart = self._listener.restart_later
        scheme = "https" if self._authority is not None else "http"
        self.url = f"{scheme}://{HOST}:{self._listener.port}"

    async def stop(self) -> None:
        """Ends open watches, stops listening, and stops the controllers. Safe to call twice."""
        self.faults.drop_watches()
        self.faults.storage_stalled = False
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # The state file is closed last, so that it also has the changes that the other parts made while stopping.
        if self._state_file is not None:
            await self._state_file.close()

    def provide_load_balancers(self) -> None:
        """Makes Services of type LoadBalancer get an address; without this they stay pending, as in a bare cluster.

        Call it before `start`.
        """
        self._controllers.provide_load_balancers()

    def install(self, *definitions: JsonObject) -> None:
        """Creates CustomResourceDefinitions unless they exist; their kinds are served when this returns.

        The definitions of the Gateway API also bring the GatewayClass `simulated`; its Gateways get an address.
        """
        for definition in definitions:
            if self.store.get(CUSTOM_RESOURCE_DEFINITIONS, None, definition["metadata"]["name"]) is not None:
                continue
            serve(self.store.types, self.store.create(CUSTOM_RESOURCE_DEFINITIONS, definition))
        create_gateway_class(self.store)

    def _start_task(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"simulated {name}")
        task.add_done_callback(_report_failure)
        self._tasks.append(task)

    async def __aenter__(self) -> SimulatedCluster:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def api_server(self) -> ApiListener:
        """Returns the listening server, which can be killed, stopped and started again. The cluster must be running."""
        assert self._listener is not None, "this cluster does not run"
        return self._listener

    @property
    def authority(self) -> Authority:
        """Returns the authority that signs client certificates; only with `tls`."""
        assert self._authority is not None, "this cluster does without TLS"
        return self._authority

    def kubeconfig(self) -> JsonObject:
        """Returns a kubeconfig document for kubectl (with `tls` only) and for Pilothouse."""
        server = {"server": self.url}
        if self._authority is not None:
            server["certificate-authority-data"] = base64.b64encode(self._authority.certificate).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "simulated", "cluster": server}],
            "users": [{"name": "simulated", "user": {"token": self.token}}],
            "contexts": [
                {
                    "name": "simulated",
                    "context": {"cluster": "simulated", "user": "simulated", "namespace": "default"},
                }
            ],
            "current-context": "simulated",
        }

    def _create_first_objects(self) -> None:
        """Creates the objects that every new cluster has."""
        for name in _FIRST_NAMESPACES:
            self.store.create(NAMESPACES, {"metadata": {"name": name}})
        create_storage_classes(self.store)
        labels = {"component": "apiserver", "provider": "kubernetes"}
        port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}
        self.store.create(
            SERVICES,
            {
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
                "spec": {"type": "ClusterIP", "ports": [port]},
            },
        )


def _report_failure(task: asyncio.Task[None]) -> None:
    """Logs the failure of a part of the cluster, so that no part fails silently."""
    if not task.cancelled() and task.exception() is not None:
        log.error("%s of the simulated cluster failed", task.get_name(), exc_info=task.exception())
