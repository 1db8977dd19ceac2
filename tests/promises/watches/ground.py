"""The shared state of a campaign: servers, callers, and its progress.

Nothing goes by the clock: faults, pauses of slow readers and the end come with the number of acknowledged mutations.
"""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import grpc.aio

from pilothouse_server.rpc.method_rules import Rule
from pilothouse_simulator import SimulatedCluster
from tests.conftest import Database
from tests.harness import PASSWORD
from tests.promises.calling import Caller, Outcome, served
from tests.promises.requests import request_for
from tests.promises.watches.proxy import proxy
from tests.promises.watches.recording import Recording
from tests.promises.watches.servers import ServerProcess, servers
from tests.waiting import runs_out, within

# How long a call may take before it is asked again at the other server, and a stream be silent before it is left.
CALL_SECONDS, SILENT_SECONDS = 5.0, 4.0
# The way to the cluster, there and back: reconcilers and observers share the machine, and are to take little of it.
CLUSTER_DELAY_SECONDS = 0.025
NAMESPACES = ("north", "south", "west")
# Nobody writes there, and at the end it is deleted.
BRIEF = "brief"
_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
)
# A window that does not grow, so that little is enough to fill it.
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535))


@dataclass(frozen=True)
class Size:
    """How much a campaign does."""

    mutations: int
    faults: int
    writers: int = 16
    # Of the list of `watching.WATCHERS` the first so many.
    watchers: int = 20
    sabotage: str = ""
    seed: int = 1


class Progress:
    """The number of acknowledged mutations, and the tasks that wait for a number."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.done = 0
        self.over = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self.ticks = count(1)

    def tick(self) -> int:
        """The next moment."""
        return next(self.ticks)

    def acknowledged(self) -> None:
        """Counts one, and wakes who waited for it."""
        self.done += 1
        self._wake()

    def end(self) -> None:
        """Wakes everybody: nothing more will be acknowledged."""
        self.over = True
        self._wake()

    async def reached(self, number: int) -> None:
        """Returns once so many were acknowledged, or no more will be."""
        if self.done >= number or self.over:
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (number, next(self._numbers), future))
        await future

    def _wake(self) -> None:
        while self._waiting and (self.over or self._waiting[0][0] <= self.done):
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)


@dataclass
class Ground:
    """The shared state of a campaign."""

    size: Size
    database: Database
    servers: Sequence[ServerProcess]
    rules: dict[str, Rule]
    token: str
    progress: Progress
    recording: Recording = field(default_factory=Recording)
    tokens: dict[str, str] = field(default_factory=dict)
    # Namespace and name → what writers know of it.
    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def rule(self, name: str) -> Rule:
        """The rule of the RPC `name`."""
        return self.rules[name]

    @asynccontextmanager
    async def callers(
        self, user: str = "", options: Sequence[tuple[str, int]] = ()
    ) -> AsyncIterator[list[Caller]]:
        """Connections of one's own, one to each server; of the administrator unless another user is named."""
        token = self.tokens[user] if user else self.token
        channels = [
            grpc.aio.insecure_channel(server.front.address, options=(*_CHANNEL, *options))
            for server in self.servers
        ]
        try:
            yield [Caller(channel, token) for channel in channels]
        finally:
            for channel in channels:
                await channel.close()

    async def certainly(
        self, callers: Sequence[Caller], name: str, fields: dict[str, Any], first: int = 0
    ) -> tuple[Outcome, tuple[str, ...], int]:
        """The definite outcome of a call, asked for at one server after the other until one is told.

        Also the ids of the operation that its attempts were told, and how many attempts there were.
        """
        rule = self.rule(name)
        request = request_for(rule, fields)
        operations: list[str] = []
        for attempt in count(1):
            caller = callers[(first + attempt - 1) % len(callers)]
            outcome = await caller.invoke(rule, request, timeout=runs_out(CALL_SECONDS))
            operation = outcome.trailing.get("pilothouse-operation-id")
            if isinstance(operation, str):
                operations.append(operation)
            if outcome.code not in UNDECIDED:
                return outcome, tuple(operations), attempt
            self.recording.counts[f"asked again after {outcome.code} {outcome.reason}".rstrip()] += 1
        raise AssertionError


# Whether it happened is not known, or it is to be asked for again.
UNDECIDED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "RESOURCE_EXHAUSTED")


@asynccontextmanager
async def ground(database: Database, directory: Path, size: Size) -> AsyncIterator[Ground]:
    """Two servers, a cluster that is a little away, namespaces, and a user who sees two of them."""
    async with (
        SimulatedCluster(speed=20.0, nodes=1) as cluster,
        proxy(CLUSTER_DELAY_SECONDS) as way,
    ):
        way.target = int(cluster.url.rpartition(":")[2])
        kubeconfig = directory / "kubeconfig.json"
        kubeconfig.write_text(json.dumps(cluster.kubeconfig()).replace(cluster.url, f"http://{way.address}"))
        async with servers(database, directory, kubeconfig, 2, size.sabotage) as running:
            async with grpc.aio.insecure_channel(running[0].front.address) as channel, within(30):
                rules = {rule.name: rule for rule in (await served(channel)).values()}
                made = Ground(size, database, running, rules, "", Progress(size.mutations))
                await _furnish(made, channel)
            yield made


async def _furnish(made: Ground, channel: grpc.aio.Channel) -> None:
    async def must(caller: Caller, name: str, fields: dict[str, Any]) -> Any:
        outcome = await caller.invoke(made.rule(name), request_for(made.rule(name), fields))
        assert outcome.code == "OK", f"{name}: {outcome.code} {outcome.message}"
        return outcome.answer

    stranger = Caller(channel)
    made.token = (await must(stranger, "Login", {"username": "admin", "password": PASSWORD})).access_token
    admin = Caller(channel, made.token)
    for namespace in (*NAMESPACES, BRIEF):
        await must(admin, "CreateNamespace", {"namespace": {"name": namespace}})
    for name in ("one", "two"):
        fields = {"namespace": BRIEF, "container": {"name": name, "image": "nginx:1.27"}}
        await must(admin, "CreateContainer", fields)
    tenant = {"username": "tenant", "email": "tenant@example.org"}
    await must(admin, "CreateUser", {"user": tenant, "password": PASSWORD})
    for namespace in NAMESPACES[:2]:
        await must(admin, "GrantRole", {"username": "tenant", "role": "viewer", "namespace": namespace})
    answer = await must(stranger, "Login", {"username": "tenant", "password": PASSWORD})
    made.tokens["tenant"] = answer.access_token
