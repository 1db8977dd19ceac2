"""The seats of one call.

    new ──acquire──▶ seated ──acquire_cluster──▶ at cluster ──acquire_cluster──▶ (another one, too)
     ▲                  │                            │
     └────refused───────┴──────────refused───────────┘        every state ──release──▶ released

    new         The call holds nothing. It may wait in the burst gate (`pass_burst`), and then counts as being served.
    seated      It holds its first seats, and for a wide page or a large request its user's turn for those. A stream
                may `read_slice`.
    at cluster  A unary call has released its first seats and holds one seat at each cluster that it has called. A
                stream holds such a seat in addition to its first one, and keeps that if it is refused.
    released    It holds nothing and never will again. If a task of the call acquires something later, that is released
                immediately.

A dry run also holds its user's one turn at the database, from `acquire_dry_run` until the cluster is called or the call
ends. A unary call that is refused releases everything before it waits for its refusal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Final

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol import classes
from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.flowcontrol.fair_queue import FairQueue

# How long a stream waits to read a slice. Longer than a call waits: the stream has read others, and its caller is still
# connected.
_SLICE_WAIT_SECONDS: Final = 30.0


class State(Enum):
    """The states of a reservation, in their order."""

    NEW = 0
    SEATED = 1
    AT_CLUSTER = 2
    RELEASED = 3


class Reservation:
    """The seats that one call holds. `release` must be called however the call ends."""

    __slots__ = (
        "_admission",
        "_at_clusters",
        "_deadline",
        "_dry_run",
        "_has_dry_run_turn",
        "_held",
        "_in_burst",
        "_streams",
        "_user",
        "state",
    )

    def __init__(self, admission: CallAdmission, *, streams: bool, deadline: float | None = None) -> None:
        self.state = State.NEW
        self._admission = admission
        self._streams = streams
        # By the monotonic clock; None if the call has no deadline.
        self._deadline = deadline
        self._user: Hashable = None
        # First the seats of calls or streams, then those at clusters.
        self._held: list[tuple[FairQueue, Hashable, int]] = []
        self._at_clusters: set[str] = set()
        # Whether the burst gate held the call, which may count there as being served.
        self._in_burst = False
        # The key of the dry run in progress.
        self._dry_run: Hashable = None
        self._has_dry_run_turn = False

    async def pass_burst(self, caller: Hashable) -> None:
        """Waits until the burst gate lets the call continue.

        Raises:
            ResourceExhausted: too many calls are held, or the call was held too long.
            Unavailable: this server is shutting down.
        """
        self._in_burst = True
        await self._admission.burst_gate.turn(caller, self)
        self._admission.refuse_if_draining()

    def try_acquire(self, queue: FairQueue, user: Hashable, width: int = 1) -> bool:
        """Takes the first seats if they are free; returns whether it did."""
        if width > 1:
            width = queue.fit(width)
        if not queue.try_acquire(user, width):
            return False
        self._user = user
        self._hold(queue, width, State.SEATED)
        return True

    async def acquire(
        self, queue: FairQueue, user: Hashable, width: int = 1, *, turns: FairQueue | None = None
    ) -> None:
        """Takes the first seats.

        With `turns`, the call first waits for its user's turn in that queue, while it holds no seat. Both waits
        together take no longer than one wait may. Raises ResourceExhausted.
        """
        self._user = user
        until = None
        if turns is not None:
            until = asyncio.get_running_loop().time() + turns.bounds.wait_seconds
            await turns.acquire(user, 1, until)
            self._hold(turns, 1, State.SEATED)
        width = queue.fit(width)
        try:
            await queue.acquire(user, width, until)
        except BaseException:
            # Released now, so that other calls of the user continue before this one is refused.
            self._release_seats()
            raise
        self._hold(queue, width, State.SEATED)

    async def begin(self) -> None:
        """Returns when a call that has its seats may begin.

        A stream waits until all calls of its burst are accepted, and for its user's stream-open rate.
        """
        if self._streams:
            admission = self._admission
            self._leave_burst()
            await admission.burst_gate.all_taken_in(self._user)
            await admission.stream_opens.acquire(self._user)
            # More calls may have arrived during that time.
            await admission.burst_gate.all_taken_in(self._user)
            # A draining server would end the stream as soon as it has begun.
            admission.refuse_if_draining()

    @asynccontextmanager
    async def read_slice(self) -> AsyncIterator[None]:
        """Holds the user's turn for wide pages while a stream reads a slice.

        Raises ResourceExhausted.
        """
        until = asyncio.get_running_loop().time() + _SLICE_WAIT_SECONDS
        async with self._admission.wide_pages.seat(self._user, until):
            yield

    async def acquire_cluster(self, cluster: str) -> None:
        """Takes a seat at a cluster before it is called.

        A unary call first releases its first seats. Raises ResourceExhausted.
        """
        self._end_dry_run_turn()
        if self.state is State.RELEASED or cluster in self._at_clusters:
            return
        admission = self._admission
        if self._dry_run is not None:
            admission.note_dry_run(self._dry_run, cluster)
        self._leave_burst()
        queue = admission.of_cluster(
            classes.CLUSTER_STREAMS if self._streams else classes.CLUSTER_CALLS, cluster
        )
        if queue.has_flow(self._user):
            # Each call holds its first seats during this wait, so no more calls wait than have seats.
            await admission.cluster_call_rate.acquire(self._user)
        try:
            queue.check_room(self._user)
        except ResourceExhausted:
            await self._wait_for_refusal()
            raise
        if not self._streams and not self._at_clusters:
            self._release_seats()
        self._at_clusters.add(cluster)
        try:
            await queue.acquire(self._user)
        except BaseException as error:
            self._at_clusters.discard(cluster)
            if isinstance(error, ResourceExhausted):
                await self._wait_for_refusal()
            raise
        self._hold(queue, 1, State.AT_CLUSTER)

    async def acquire_dry_run(self, what: Hashable) -> None:
        """Prepares a dry run of `what`.

        The call takes a seat at the cluster of the last dry run of `what`, and the user's turn at the database until
        the cluster is called.

        Raises:
            ResourceExhausted: too many calls wait for that cluster, or for their user's turn.
            PilothouseError: the cluster is known to be unreachable.
        """
        admission = self._admission
        self._dry_run = what
        if admission.dry_run_cluster(what) is None:
            # One at a time: a hundred concurrent ones would all use the database before the first shows the cluster.
            await self._take_dry_run_turn()
        if (cluster := admission.dry_run_cluster(what)) is None:
            return
        self._end_dry_run_turn()
        if (away := admission.known_away(cluster)) is not None:
            await self._wait_for_refusal()
            raise away
        await self.acquire_cluster(cluster)
        await self._take_dry_run_turn()

    def release(self) -> None:
        """Releases everything, for good."""
        self.state = State.RELEASED
        self._leave_burst()
        self._end_dry_run_turn()
        self._release_seats()

    async def _wait_for_refusal(self) -> None:
        """Returns when it is the turn of a refusal of this user.

        A unary call holds nothing during that time.
        """
        if not self._streams:
            self._leave_burst()
            self._end_dry_run_turn()
            self._release_seats()
        remaining = None if self._deadline is None else self._deadline - time.monotonic()
        await self._admission.refusal(self._user, remaining)

    async def _take_dry_run_turn(self) -> None:
        if self.state is not State.RELEASED:
            await self._admission.dry_runs.acquire(self._user)
            self._has_dry_run_turn = True
        if self.state is State.RELEASED:
            # The call ended while a task of its own was waiting.
            self._end_dry_run_turn()

    def _hold(self, queue: FairQueue, width: int, state: State) -> None:
        self._held.append((queue, self._user, width))
        if self.state is State.RELEASED:
            # The call ended while a task of its own was waiting.
            self._release_seats()
        else:
            self.state = state

    def _leave_burst(self) -> None:
        if self._in_burst:
            self._admission.burst_gate.leave(self)

    def _end_dry_run_turn(self) -> None:
        if self._has_dry_run_turn:
            self._has_dry_run_turn = False
            self._admission.dry_runs.release(self._user)

    def _release_seats(self) -> None:
        if self.state is not State.RELEASED:
            self.state = State.NEW
        while self._held:
            queue, user, width = self._held.pop()
            queue.release(user, width)


# The reservation of the call that is being served.
RESERVATION: ContextVar[Reservation | None] = ContextVar("reservation", default=None)


async def before_cluster(cluster: str) -> None:
    """Returns when the current call has a seat at the cluster.

    It returns immediately if there is no current call. '' stands for clusters that are not registered. Raises
    ResourceExhausted.
    """
    reservation = RESERVATION.get()
    if reservation is not None:
        await reservation.acquire_cluster(cluster)


async def before_dry_run(what: Hashable) -> None:
    """Returns when the current call may begin a dry run.

    See `Reservation.acquire_dry_run`.
    """
    reservation = RESERVATION.get()
    if reservation is not None:
        await reservation.acquire_dry_run(what)


@asynccontextmanager
async def read_slice() -> AsyncIterator[None]:
    """Does `Reservation.read_slice` for the current call.

    It enters immediately if there is no current call. The block must wait for nothing but the database.
    """
    reservation = RESERVATION.get()
    if reservation is None:
        yield
    else:
        async with reservation.read_slice():
            yield
