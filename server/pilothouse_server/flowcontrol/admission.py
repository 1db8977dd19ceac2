"""The queues and rates of one process: which calls may be served now.

A context variable (`reservation.RESERVATION`) leads from the code that calls a cluster to the reservation of the call,
because that code runs deep in a noun, or in a task of its own. Work that is done for no caller, such as reconciling,
has no reservation and waits for no seat.

A dry run is written to the database, rolled back, and then sent to the cluster. If an earlier dry run showed which
cluster that is, the call acquires its seat there first, and is refused if that cluster is known to be unreachable. So
dry runs at a cluster that hangs cost the database nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar
from weakref import ref

from prometheus_client import Counter, Gauge

from pilothouse_server.errors import PilothouseError, Unavailable
from pilothouse_server.flowcontrol import classes
from pilothouse_server.flowcontrol.burst_gate import BurstGate
from pilothouse_server.flowcontrol.classes import CallLimits, SeatClass
from pilothouse_server.flowcontrol.fair_queue import FairQueue
from pilothouse_server.flowcontrol.pending_requests import PendingRequests
from pilothouse_server.flowcontrol.pending_responses import PendingResponses
from pilothouse_server.flowcontrol.token_bucket import KeyedRate

T = TypeVar("T")

IN_USE = Gauge("pilothouse_admission_in_use", "Seats that calls hold.", ("class",))
WAITING = Gauge(
    "pilothouse_admission_waiting", "Calls that wait for a seat, or for their request.", ("class",)
)
REFUSED = Counter("pilothouse_admission_refused_total", "Calls that got no seat.", ("class",))

# The number of cluster queues above which unused ones are dropped: the clusters' names come from requests.
_MOST_CLUSTERS = 1000
# The number of dry runs whose cluster is remembered.
_MOST_DRY_RUNS = 10_000
# A refusal whose turn would come after its caller's deadline is sent this long before the deadline.
_BEFORE_DEADLINE_SECONDS = 1.0
# A user with a high limit of streams may open all of them within this time.
_OPEN_ALL_SECONDS = 5.0
# A draining server refuses new calls for the first time at most, and stops earlier if no call arrives for the second.
# It asks refused callers to retry after the third: a call that arrives at the moment of the stop may be cancelled.
REFUSING_SECONDS, _QUIET_SECONDS, _ELSEWHERE_SECONDS = 1.0, 0.05, 2.0
# More iterations of the event loop than pass between gRPC handing a call over and the call being counted.
_LOOP_PASSES = 10


class CallAdmission:
    """The queues and rates of this process.

    `draining` is set when it refuses every new call.
    """

    def __init__(self, limits: CallLimits) -> None:
        self.limits = limits
        self.authentications = self._queue(classes.AUTHENTICATIONS)
        self.anonymous_calls = self._queue(classes.ANONYMOUS_CALLS)
        self.calls = self._queue(classes.CALLS)
        self.wide_pages = self._queue(classes.WIDE_PAGES)
        self.large_requests = self._queue(classes.LARGE_REQUESTS)
        self.applies = self._queue(classes.APPLIES)
        self.streams = self._queue(classes.STREAMS)
        self.health_watches = self._queue(classes.HEALTH_WATCHES)
        self.reflections = self._queue(classes.REFLECTIONS)
        self.dry_runs = self._queue(classes.DRY_RUNS)
        self._of_clusters: dict[tuple[str, str], FairQueue] = {}
        for each in (classes.CLUSTER_CALLS, classes.CLUSTER_STREAMS):
            _show(IN_USE, each.label, self, partial(CallAdmission._sum, name=each.name, figure=_in_use))
            _show(WAITING, each.label, self, partial(CallAdmission._sum, name=each.name, figure=_waiting))
        self.pending_requests = self._pending("requests")
        # A queue of their own, so that other requests cannot push out a health check.
        self.pending_health_requests = self._pending("health_requests")
        self.pending_responses = PendingResponses(_refusals("unsent_answers"))
        self.burst_gate = BurstGate(limits.wait_seconds, _refusals("arrivals"))
        _show(WAITING, "arrivals", self.burst_gate, _waiting)
        self.refusals = KeyedRate(*classes.REFUSALS)
        self.late_refusals = KeyedRate(*classes.LATE_REFUSALS)
        per_second, burst, longest_seconds = classes.STREAM_OPENS
        self.stream_opens = KeyedRate(
            max(per_second, limits.max_streams_per_user / _OPEN_ALL_SECONDS), burst, longest_seconds
        )
        self.cluster_call_rate = KeyedRate(*classes.CLUSTER_CALL_RATE)
        # The cluster of the last dry run, by method and namespace.
        self._dry_run_clusters: dict[Hashable, str] = {}
        # Returns the error for a cluster that is known to be unreachable, or None.
        self.known_away: Callable[[str], PilothouseError | None] = lambda _cluster: None
        self.draining = False
        # Calls that are being served.
        self.in_flight = 0
        # The number of unary calls so far.
        self._came = 0

    def call_began(self, *, streams: bool = False) -> None:
        """Counts a call; its end must call `call_ended`."""
        self.in_flight += 1
        self._came += not streams

    def call_ended(self) -> None:
        """Counts the end of a call."""
        self.in_flight -= 1

    async def refusal(self, caller: Hashable, remaining: float | None) -> None:
        """Returns when a refusal of this caller may be sent.

        That is in its turn, or for some refusals shortly before the caller's deadline. A caller that receives no
        refusal does not know when to retry. `remaining` is the time until its deadline in seconds.
        """
        if remaining is None:
            await self.refusals.acquire(caller)
            return
        rest = min(_BEFORE_DEADLINE_SECONDS, remaining / 2)
        try:
            async with asyncio.timeout(remaining - rest):
                await self.refusals.acquire(caller)
        except TimeoutError:
            # If all of these refusals were sent early, a short deadline would be a way around the rate. A call whose
            # refusal gets no token is ended by gRPC at its deadline. This clock may be slightly ahead of gRPC's, so
            # the sleep is longer than the rest.
            if not self.late_refusals.try_acquire(caller):
                await asyncio.sleep(rest + _BEFORE_DEADLINE_SECONDS)

    @asynccontextmanager
    async def out_of_flight(self) -> AsyncIterator[None]:
        """Excludes a call from `in_flight` during the block.

        The call only waits to be refused in the block.
        """
        self.in_flight -= 1
        try:
            yield
        finally:
            self.in_flight += 1

    def refuse_if_draining(self) -> None:
        """Raises Unavailable if this server is shutting down."""
        if self.draining:
            raise Unavailable(
                "this server is shutting down; reconnect to another replica",
                reason="SHUTTING_DOWN",
                retry_after_seconds=_ELSEWHERE_SECONDS,
            )

    async def drain(self, grace_seconds: float) -> None:
        """Returns when gRPC's server may be stopped, after at most half of the grace.

        gRPC's stop cancels the calls that it has received but not yet handed to a handler. So the server first serves
        calls until no new one arrives for a moment; clients that heed the health service or the end of their streams
        stop sending in this time. Then it refuses calls until none arrives for a moment, so that few are left to be
        cancelled. This does not wait for calls in flight: gRPC's stop does.
        """
        now = asyncio.get_running_loop().time()
        await self._no_new_call(now + grace_seconds / 3)
        self.draining = True
        self.burst_gate.end()
        for rate in (self.refusals, self.late_refusals, self.stream_opens, self.cluster_call_rate):
            rate.close()
        now = asyncio.get_running_loop().time()
        await self._no_new_call(now + min(REFUSING_SECONDS, grace_seconds / 4))

    async def _no_new_call(self, until: float) -> None:
        """Returns when no unary call has arrived for a moment, at the latest at `until`.

        The burst gate must also be empty. Streams do not count: their clients are sent to another replica and may
        reconnect faster than that.
        """
        loop = asyncio.get_running_loop()
        came = -1
        while (now := loop.time()) < until and (came != self._came or self.burst_gate.waiting):
            came = self._came
            await asyncio.sleep(min(_QUIET_SECONDS, until - now))
            # An event loop that was busy runs its timers before it accepts the calls that arrived in that time.
            for _ in range(_LOOP_PASSES):
                await asyncio.sleep(0)

    def of_cluster(self, of_class: SeatClass, cluster: str) -> FairQueue:
        """Returns the queue of a class at one cluster.

        The cluster '' stands for clusters that are not registered.
        """
        found = self._of_clusters.get((of_class.name, cluster))
        if found is None:
            if len(self._of_clusters) >= _MOST_CLUSTERS:
                self._of_clusters = {key: each for key, each in self._of_clusters.items() if each.flows}
            found = FairQueue(of_class.name, of_class.bounds(self.limits), _refusals(of_class.label))
            self._of_clusters[of_class.name, cluster] = found
        return found

    def dry_run_cluster(self, what: Hashable) -> str | None:
        """Returns the cluster of the last dry run of `what`, or None."""
        return self._dry_run_clusters.get(what)

    def note_dry_run(self, what: Hashable, cluster: str) -> None:
        """Remembers the cluster of a dry run."""
        if len(self._dry_run_clusters) >= _MOST_DRY_RUNS:
            self._dry_run_clusters.clear()
        self._dry_run_clusters[what] = cluster

    def _sum(self, name: str, figure: Callable[[FairQueue], int]) -> int:
        # The sum over all clusters.
        return sum(figure(each) for (own, _), each in self._of_clusters.items() if own == name)

    def _queue(self, of_class: SeatClass) -> FairQueue:
        made = FairQueue(of_class.name, of_class.bounds(self.limits), _refusals(of_class.label))
        _show(IN_USE, of_class.label, made, _in_use)
        _show(WAITING, of_class.label, made, _waiting)
        return made

    def _pending(self, label: str) -> PendingRequests:
        limits = self.limits
        made = PendingRequests(limits.max_pending_requests, limits.request_seconds, _refusals(label))
        _show(WAITING, label, made, _waiting)
        return made


def _show(gauge: Gauge, label: str, owner: T, figure: Callable[[T], int]) -> None:
    """Makes the gauge of a class read `owner`, of which it keeps a weak reference."""
    weak = ref(owner)

    def read() -> float:
        living = weak()
        return 0.0 if living is None else float(figure(living))

    gauge.labels(label).set_function(read)


def _in_use(queue: FairQueue) -> int:
    return queue.in_use


def _waiting(queue: FairQueue | PendingRequests | BurstGate) -> int:
    return queue.waiting


def _refusals(label: str) -> Callable[[], None]:
    return REFUSED.labels(label).inc
