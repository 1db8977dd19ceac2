"""The environment of a campaign: servers, callers, and its progress.

Nothing depends on the clock: faults, pauses of slow readers and the end depend on the number of acknowledged
mutations.
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

# How long a call may take before it is repeated at the other server, and how long a stream may be silent before
# it is abandoned.
CALL_SECONDS, SILENT_SECONDS = 5.0, 4.0
# The delay of requests to the cluster and of its responses. It limits how much of the machine reconcilers and
# observers use.
CLUSTER_DELAY_SECONDS = 0.025
NAMESPACES = ("north", "south", "west")
# No writer writes in this namespace, which is deleted at the end.
BRIEF = "brief"
_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
)
# The flow-control window does not grow, so that little data fills it.
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535))


@dataclass(frozen=True)
class Size:
    """The size of a campaign."""

    mutations: int
    faults: int
    writers: int = 16
    # The campaign has the first watchers of `watching.WATCHERS`, this many.
    watchers: int = 20
    injected_fault: str = ""
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
        """Returns the next tick."""
        return next(self.ticks)

    def acknowledged(self) -> None:
        """Counts a mutation, and wakes the tasks that wait for its number."""
        self.done += 1
        self._wake()

    def end(self) -> None:
        """Wakes all tasks, because no more mutations will be acknowledged."""
        self.over = True
        self._wake()

    async def reached(self, number: int) -> None:
        """Returns once `number` mutations were acknowledged, or no more will be."""
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
class Environment:
    """The environment of a campaign."""

    size: Size
    database: Database
    servers: Sequence[ServerProcess]
    rules: dict[str, Rule]
    token: str
    progress: Progress
    recording: Recording = field(default_factory=Recording)
    tokens: dict[str, str] = field(default_factory=dict)
    # Namespace and name → the last state that writers know of the object.
    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def rule(self, name: str) -> Rule:
        """Returns the rule of the RPC `name`."""
        return self.rules[name]

    @asynccontextmanager
    async def callers(
        self, user: str = "", options: Sequence[tuple[str, int]] = ()
    ) -> AsyncIterator[list[Caller]]:
        """Yields new connections, one to each server.

        The caller is the administrator unless another user is named.
        """
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
        """Returns the definite outcome of a call.

        The servers are tried in turn until one returns it. Also returns the operation ids of the attempts, and
        the number of attempts.
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


# With these codes it is unknown whether the call was executed, or it must be repeated.
UNDECIDED = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "RESOURCE_EXHAUSTED")


@asynccontextmanager
async def environment(database: Database, directory: Path, size: Size) -> AsyncIterator[Environment]:
    """Yields the environment of a campaign.

    It has two servers, a cluster behind a delay, namespaces, and a user who sees two of them.
    """
    async with (
        SimulatedCluster(speed=20.0, nodes=1) as cluster,
        proxy(CLUSTER_DELAY_SECONDS) as way,
    ):
        way.target = int(cluster.url.rpartition(":")[2])
        kubeconfig = directory / "kubeconfig.json"
        kubeconfig.write_text(json.dumps(cluster.kubeconfig()).replace(cluster.url, f"http://{way.address}"))
        async with servers(database, directory, kubeconfig, 2, size.injected_fault) as running:
            async with grpc.aio.insecure_channel(running[0].front.address) as channel, within(30):
                rules = {rule.name: rule for rule in (await served(channel)).values()}
                made = Environment(size, database, running, rules, "", Progress(size.mutations))
                await _furnish(made, channel)
            yield made


async def _furnish(made: Environment, channel: grpc.aio.Channel) -> None:
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
