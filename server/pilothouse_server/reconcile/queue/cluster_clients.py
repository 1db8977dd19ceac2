"""The clients of the clusters, one each, made when first needed and shared by all parts of the reconciler.

A cluster has its own connection pool, rate limit and failures; nothing here waits for another cluster.

Many tasks fail together when a cluster goes away, and repeatedly until it is back. Together they write one line to the
log when it goes and one when it is back (`went_away`, `came_back`); each task's own failure is logged at the level
DEBUG (`log_failure`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from time import monotonic

import structlog

from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    AnswerTooLarge,
    Away,
    ClusterError,
    CredentialsRefused,
    StorageStalled,
    TooManyValues,
    Unauthorized,
    Unreachable,
)
from pilothouse_server.runtime.tasks import cancel_and_wait

log = structlog.get_logger(__name__)

# Time for requests in flight with a replaced client: longer than a request may take.
RETIRED_SECONDS = 30.0
# So often in a row a cluster must not be reached before that is believed.
FAILURES = 3
# Time for which a finding about a cluster counts: longer than the interval of health checks.
KNOWN_SECONDS = 15.0


def is_out_of_reach(error: ClusterError) -> bool:
    """Returns whether a cluster is not reached from here, by this error, so that another server may reach it.

    A storage that stalls does so for everybody, and answers and objects are too large for everybody.
    """
    refused = isinstance(error, Unauthorized | CredentialsRefused)
    for_all = isinstance(error, StorageStalled | AnswerTooLarge | TooManyValues)
    return refused or (isinstance(error, Unreachable) and not for_all)


def log_failure(event: str, cluster: str, error: ClusterError, **facts: str) -> None:
    """Logs a cluster's error for a task that continues by itself."""
    write = log.debug if is_out_of_reach(error) else log.info
    write(event, cluster=cluster, reason=error.reason, message=error.message, **facts)


class ClusterClients:
    """Clients by cluster name. `connect` makes one; it raises ClusterError where that cannot be done from here."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._clients: dict[str, asyncio.Task[ClusterClient]] = {}
        self._retired: dict[asyncio.Task[None], asyncio.Task[ClusterClient]] = {}
        # In a row, by cluster.
        self._failures: Counter[str] = Counter()
        self._elsewhere: set[str] = set()
        # Why a cluster does not answer, by its row; and when it last answered us or failed to.
        self._reported: dict[str, str] = {}
        self._noted: dict[str, tuple[float, ClusterError | None]] = {}
        # Whether the log's last line about it reports an answer.
        self._told: dict[str, bool] = {}
        self._closed = False

    def note(self, name: str, error: ClusterError | None) -> None:
        """Records the result of reaching a cluster from here: its error, or None."""
        self._noted[name] = (monotonic(), error)
        if error is None or not is_out_of_reach(error):
            self._failures.pop(name, None)
        else:
            self._failures[name] += 1

    def went_away(self, name: str, error: ClusterError) -> None:
        """Logs once that a cluster is away, until it is back."""
        if self._told.get(name) is not False:
            self._told[name] = False
            log.warning("cluster is away", cluster=name, reason=error.reason, message=error.message)

    def came_back(self, name: str, version: str) -> None:
        """Logs once that a cluster answers, until it is away."""
        if self._told.get(name) is not True:
            self._told[name] = True
            log.info("cluster answers", cluster=name, version=version)

    def report(self, away: Mapping[str, str]) -> None:
        """Takes over the reasons why clusters do not respond from the servers that watch them."""
        self._reported = dict(away)

    def away(self, name: str) -> Away | None:
        """Returns the error of a cluster that is known not to respond, so that no caller waits to find out.

        It is known from the cluster's row, unless the cluster has responded to us since; or from our
        consecutive recent failures.
        """
        at, error = self._noted.get(name, (-KNOWN_SECONDS, None))
        lately = monotonic() - at < KNOWN_SECONDS
        if lately and error is None:
            return None
        if name in self._reported:
            return Away(self._reported[name] or f"cluster {name!r} does not respond")
        if lately and error is not None and self._failures[name] >= FAILURES:
            return Away(error.message)
        return None

    def led_elsewhere(self, name: str, *, elsewhere: bool) -> None:
        """Records whether another server leads the cluster, which means that it reaches it."""
        (self._elsewhere.add if elsewhere else self._elsewhere.discard)(name)

    def left(self) -> set[str]:
        """Returns the clusters whose work is left to others: they are not reached from here, but from elsewhere."""
        return {name for name in self._elsewhere if self._failures[name] >= FAILURES}

    async def version(self, name: str, seconds: float) -> str:
        """Returns the version that the cluster answers within `seconds`, and notes how it was reached.

        Raises:
            ClusterError: it does not answer, or not to us.
        """
        try:
            async with asyncio.timeout(seconds):
                version = await (await self.client(name)).version()
        except TimeoutError:
            unreachable = Unreachable(f"cluster {name!r} did not respond in time")
            self.note(name, unreachable)
            raise unreachable from None
        except ClusterError as error:
            self.note(name, error)
            raise
        self.note(name, None)
        return version

    async def is_reached(self, name: str, seconds: float) -> bool:
        """Returns whether the cluster answers to this server within `seconds`."""
        try:
            version = await self.version(name, seconds)
        except ClusterError as error:
            return not is_out_of_reach(error)
        self.came_back(name, version)
        return True

    async def client(self, name: str) -> ClusterClient:
        """Returns the client of a cluster. Raises ClusterError; a failure is not remembered."""
        while not self._closed:
            task = self._clients.get(name)
            if task is None:
                task = self._clients[name] = asyncio.ensure_future(self._connect(name))
            # One caller's cancellation must not take the client away from the others.
            if not task.done():
                await asyncio.wait([task])
            if (task.cancelled() or task.exception() is not None) and self._clients.get(name) is task:
                del self._clients[name]
            # Cancelled is one whose cluster was forgotten while it was connected to.
            if not task.cancelled():
                return task.result()
        raise Unreachable(f"cluster {name!r} is not connected to any more")

    def forget(self, name: str) -> None:
        """Connects again from now on: the cluster's credentials changed, or it is deregistered."""
        self._failures.pop(name, None)
        self._noted.pop(name, None)
        self._told.pop(name, None)
        self._elsewhere.discard(name)
        task = self._clients.pop(name, None)
        if task is not None:
            retired = asyncio.create_task(_retire(task), name=f"retired client of {name}")
            self._retired[retired] = task
            retired.add_done_callback(self._retired.pop)

    async def close(self) -> None:
        """Closes all clients."""
        self._closed = True
        retired = dict(self._retired)
        tasks = [*self._clients.values(), *retired.values()]
        self._clients.clear()
        await cancel_and_wait(*retired)
        for task in tasks:
            await _close(task)


async def _retire(task: asyncio.Task[ClusterClient]) -> None:
    if task.done():
        await asyncio.sleep(RETIRED_SECONDS)
    await _close(task)


async def _close(task: asyncio.Task[ClusterClient]) -> None:
    await cancel_and_wait(task)
    if not task.cancelled() and task.exception() is None:
        await task.result().close()
