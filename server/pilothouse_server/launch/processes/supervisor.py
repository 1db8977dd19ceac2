"""Starts the server processes, restarts processes that end, and drains all.

Each of them is a replica: it has its own feed, hub and caches, and the leases in the database give it its
share of the work. The supervisor handles everything that is common to all: the address, the limits of
connections to the database, the metrics.

A process that ends by itself is started again, immediately and then after growing pauses, for as long as the
supervisor runs. Its end closes its connections. Callers reconnect to the other processes, since a process
listens only while it serves. At the first start there is no other process to serve: if a process cannot start
then, all end, with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from pilothouse_server.launch.processes import CLOSING_SECONDS
from pilothouse_server.launch.processes.child import ServerProcess, ServerProcessError
from pilothouse_server.launch.processes.metrics import MetricsServer, Totals, figures_of_this_process
from pilothouse_server.rpc.port import ReservedPort, reserve
from pilothouse_server.runtime.supervision import Supervisor
from pilothouse_server.settings.model import Settings

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0
# A process that lived longer than this begins with the first pause again.
GOOD_SECONDS = 60.0
# The supervisor's name in the metrics; the names of the processes are numbers from 1.
_SUPERVISOR = "supervisor"

log = structlog.get_logger(__name__)


def of_one_process(settings: Settings, listen: str, asking: str = "", http: str = "") -> Settings:
    """Returns the settings of each process, with its share of the connection pools.

    The addresses are `listen`, `asking`, which asks for certificates, and `http`.
    """
    return msgspec.structs.replace(
        settings,
        listen=listen,
        tls_client_listen=asking,
        http_listen=http,
        metrics_listen="",
        pool_open_connections=settings.pool_open_connections // settings.processes,
        pool_idle_connections=settings.pool_idle_connections // settings.processes,
        pool_working_connections=max(1, settings.pool_working_connections // settings.processes),
    )


class Processes:
    """Several servers on one port, as many as the settings require. It is used for one start and one stop.

    `kubeconfigs` are the clusters that the server's own configuration names, by name.
    """

    def __init__(self, settings: Settings, kubeconfigs: Mapping[str, Mapping[str, Any]]) -> None:
        self.settings = settings
        # The password of the first administrator, if this start created one.
        self.password_made: str | None = None
        self._kubeconfigs = kubeconfigs
        self._port: ReservedPort | None = None
        self._asking: ReservedPort | None = None
        self._http: ReservedPort | None = None
        self._metrics: MetricsServer | None = None
        self._running: dict[int, ServerProcess] = {}
        self._serving: set[int] = set()
        self._restarts = 0
        # Processes start to listen one after the other (`rpc.listener_shards`).
        self._listening = asyncio.Lock()
        self._totals = Totals()
        self._keeping = Supervisor()

    async def start(self) -> int:
        """Starts all and returns the port once all of them serve.

        Raises:
            SettingsError: the address, or that of the metrics, is taken.
            ServerProcessError: a process cannot start; the text gives the reason. No process is left.
            OSError: as `ServerProcess.launch`.
        """
        self._port = reserve(self.settings.listen)
        if self.settings.tls_client_listen:
            self._asking = reserve(self.settings.tls_client_listen, "TLS_CLIENT_LISTEN")
        if self.settings.http_listen:
            self._http = reserve(self.settings.http_listen, "HTTP_LISTEN")
        if self.settings.metrics_listen:
            self._metrics = MetricsServer(self.settings.metrics_listen, self._figures)
            log.info("metrics are served", port=self._metrics.port)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(1, self.settings.processes + 1):
                    group.create_task(self._begin(number), name=f"start process {number}")
        except ExceptionGroup as failed:
            await self._end_all()
            raise failed.exceptions[0] from None
        except BaseException:
            await self._end_all()
            raise
        for process in list(self._running.values()):
            self._keeping.start(f"process {process.number}", _keeper(self, process.number))
        return self._port.port

    @property
    def asking_port(self) -> int | None:
        """The second port, which requires a certificate of each client, if there is one."""
        return None if self._asking is None else self._asking.port

    async def stop(self) -> None:
        """Drains within the grace period: calls in flight complete, open streams end with a request to reconnect."""
        await self._keeping.stop()
        await self._end_all()
        if self._metrics is not None:
            await self._metrics.close()
        for port in (self._port, self._asking, self._http):
            if port is not None:
                port.close()

    async def keep(self, number: int) -> None:
        """Waits for the end of a process and starts it again, until cancelled."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE_SECONDS
        while True:
            began = loop.time()
            process = self._running.get(number)
            if process is not None:
                status = await process.ended()
                self._forget(number)
                if loop.time() - began > GOOD_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
                log.error("a server process has ended", process=number, status=status, again_in_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            self._restarts += 1
            try:
                await self._begin(number)
            except (ServerProcessError, OSError) as error:
                log.error("a server process cannot start", process=number, why=str(error))
                if (failed := self._running.get(number)) is not None:
                    failed.kill()
            else:
                log.info("a server process is back", process=number)

    async def _begin(self, number: int) -> None:
        assert self._port is not None
        asking = "" if self._asking is None else self._asking.listen
        http = "" if self._http is None else self._http.listen
        process = self._running[number] = await ServerProcess.launch(
            number, of_one_process(self.settings, self._port.listen, asking, http), self._kubeconfigs
        )
        try:
            await process.serving(self._listening)
        finally:
            self.password_made = self.password_made or process.password
        self._serving.add(number)

    def _forget(self, number: int) -> None:
        self._running.pop(number, None)
        self._serving.discard(number)
        self._totals.ended(str(number))

    async def _end_all(self) -> None:
        """Drains every process concurrently, and kills those that have not ended in time."""
        for process in self._running.values():
            process.drain()
        ending = [asyncio.create_task(process.ended()) for process in self._running.values()]
        if not ending:
            return
        _, late = await asyncio.wait(ending, timeout=self.settings.grace_seconds + CLOSING_SECONDS)
        if late:
            log.error(
                "server processes are killed: they have not ended within the grace period", count=len(late)
            )
            for process in self._running.values():
                process.kill()
        await asyncio.gather(*ending)
        for number, process in list(self._running.items()):
            self.password_made = self.password_made or process.password
            self._forget(number)

    async def _figures(self) -> list[Metric]:
        """Returns the metrics of all processes, including this one."""
        asked = dict(self._running)
        answers = await asyncio.gather(*(process.figures() for process in asked.values()))
        heard = [_SUPERVISOR]
        self._totals.heard(_SUPERVISOR, figures_of_this_process())
        for (number, process), figures in zip(asked.items(), answers, strict=True):
            # The counts of a process that has ended in the meantime are already in the totals.
            if figures is not None and self._running.get(number) is process:
                self._totals.heard(str(number), figures)
                heard.append(str(number))
        serving = GaugeMetricFamily(
            "pilothouse_processes_serving", "Server processes that serve.", len(self._serving)
        )
        restarts = CounterMetricFamily(
            "pilothouse_process_restarts",
            "Server processes that ended and were started again.",
            self._restarts,
        )
        return [*self._totals.metrics(heard), serving, restarts]


def _keeper(processes: Processes, number: int) -> Any:
    return lambda: processes.keep(number)
