"""The classes of a server's calls, and the seats of one call.

    class            who has a seat                                              flow
    authentications  a call with a token that is looked up                      address
    strangers        a unary call of a method that needs no log-in              address
    calls            any other unary call                                       user
    wide pages       a unary call with a wide page, beside its seats; an        user
                     export or a verification of the log while it reads some
    large requests   a unary call with a request of more than 64 KiB, beside    user
                     its seats
    streams          a stream, for as long as it is open                        user (address without a log-in)
    cluster calls    a unary call from when it first waits for a cluster        user, of one cluster
    cluster streams  a stream that reads from a cluster, beside its first seat  user, of one cluster
    trials           what only tries something out, while the database does     user, one at a time
    health watches   a watch of the health service                              address
    reflections      a stream of the reflection service                         address

An address is the client's, past trusted proxies; of IPv6 its /64, as one customer has at least that. A call with a wide
answer (a page of 1,000) or a large request takes several seats.

Of a user one wide page is worked on at a time, whatever seats it has: three at once have two processors and as many
connections to the database. The others wait before they take a seat, so the user's small calls pass them, and what
hangs holds up nobody but its own user's wide pages. Between users nothing is shared but seats. It is the same of large
requests, which are read, checked, written and recorded: eight at once leave the event loop little for others.

Where a call waits for a cluster it is found by a context variable, because that happens deep in a noun, or in a task of
its own. What is done for nobody, as reconciling, has none, and waits for no seat.

A call that only tries something out writes it to the database, takes it back, and then asks the cluster. Where it is
known from one before which cluster that is, it takes its seat there first, and is refused where that cluster is known
to be away: so calls that come to nothing at a cluster that hangs cost the database nothing. Those of one user write one
after the other: eight at once have eight connections plan all that a create takes, which others wait for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import TypeVar
from weakref import ref

from prometheus_client import Counter, Gauge

from pilothouse_server.errors import PilothouseError, ResourceExhausted, Unavailable
from pilothouse_server.rpc.admission.arrivals import Arrivals
from pilothouse_server.rpc.admission.bodies import Bodies
from pilothouse_server.rpc.admission.limiter import Bounds, Limiter
from pilothouse_server.rpc.admission.paces import Paces
from pilothouse_server.rpc.admission.unsent import Unsent
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.paging import LARGEST_PAGE_SIZE, WIDE_PAGE_SIZE

T = TypeVar("T")

IN_USE = Gauge("pilothouse_admission_in_use", "Seats that calls hold.", ("class",))
WAITING = Gauge(
    "pilothouse_admission_waiting", "Calls that wait for a seat, or for their request.", ("class",)
)
REFUSED = Counter("pilothouse_admission_refused_total", "Calls that got no seat.", ("class",))

# A page of so many rows counts for one seat, and so does so much of a request.
_ROWS_PER_SEAT = 100
_BYTES_PER_SEAT = 64 * 1024
# So long a stream waits for its turn to read a stretch: it has read others before, and who began it is still there.
_STRETCH_WAIT_SECONDS = 30.0
# Clusters that are remembered although nobody waits for them.
_MOST_CLUSTERS = 1000
# Of each caller a second, after so many at once, and how long one waits at most: of refusals, of streams that begin, of
# calls that go to a cluster.
REFUSALS, OPENINGS, TRICKLES = (50.0, 20, 15.0), (40.0, 4, 15.0), (250.0, 0, 1.0)
# Of refusals whose caller's deadline comes before their turn: so long before it. Nobody waits for these.
HURRIED, _LEFT_SECONDS = (25.0, 10, 0.0), 1.0
# Of what was tried where.
_MOST_TRIALS = 10_000
# A draining server refuses new calls for so long at most, and goes on when none has come for a moment. A call that is
# refused is asked to come back later than that: one that comes in the moment of the stop may be cancelled.
REFUSING_SECONDS, _QUIET_SECONDS, _ELSEWHERE_SECONDS = 1.0, 0.05, 2.0
# Passes of the event loop between a call that gRPC hands over and its being counted, and some more.
_LOOP_PASSES = 10

CLUSTER_CALLS = "cluster calls"
CLUSTER_STREAMS = "cluster streams"


class Admission:
    """Who may be served by this process. `draining` is set when no new call is."""

    def __init__(self, settings: Settings) -> None:
        self._wait_seconds = settings.admission_wait_seconds
        by_address, outsiders = settings.max_calls_per_address, settings.max_health_watches_per_address
        self.authentications = self._class("authentications", 2 * by_address, by_address)
        self.strangers = self._class("strangers", 2 * by_address, by_address)
        self.calls = self._class(
            "calls", settings.max_concurrent_calls, settings.max_calls_per_user, waiting_per_seat=8
        )
        # As many wait as for seats.
        self.wide_pages = self._limited("wide pages", replace(self.calls.bounds, seats_per_flow=1))
        self.large_requests = self._limited("large requests", replace(self.calls.bounds, seats_per_flow=1))
        self.streams = self._class("streams", settings.max_streams, settings.max_streams_per_user)
        # These stay: who comes too many learns it at once.
        self.health_watches = self._class("health watches", 10 * outsiders, outsiders, waiting_per_seat=0)
        self.reflections = self._class("reflections", 10 * outsiders, outsiders, waiting_per_seat=0)
        self.requests = self._awaited("requests", settings)
        # Apart from the others, which cannot push a question for the server's health out.
        self.health_requests = self._awaited("health requests", settings)
        of_calls = self.calls.bounds
        self.trials = self._limited(
            "trials",
            replace(
                of_calls, seats_per_flow=1, waiting=of_calls.seats, waiting_per_flow=of_calls.seats_per_flow
            ),
        )
        self._of_clusters: dict[tuple[str, str], Limiter] = {}
        self._per_cluster = {
            CLUSTER_CALLS: self._bounds(settings.max_cluster_calls, settings.max_cluster_calls_per_user, 4),
            CLUSTER_STREAMS: self._bounds(
                settings.max_cluster_streams, settings.max_cluster_streams_per_user, 1
            ),
        }
        for name in self._per_cluster:
            _show(IN_USE, name, self, partial(Admission._sum, name=name, figure=_in_use))
            _show(WAITING, name, self, partial(Admission._sum, name=name, figure=_waiting))
        # The cluster at which something was tried out last, by method and namespace.
        self._tried_at: dict[Hashable, str] = {}
        # Of each user: of its calls that go to a cluster while others of it are there.
        self._trickles = Paces(*TRICKLES)
        # The error for a cluster that is known not to answer.
        self.known_away: Callable[[str], PilothouseError | None] = lambda _cluster: None
        self.arrivals = Arrivals(settings.admission_wait_seconds, _refusals("arrivals"))
        _show(WAITING, "arrivals", self.arrivals, _waiting)
        self.refusing = Paces(*REFUSALS)
        self.hurried = Paces(*HURRIED)
        # Who may have many open may open them faster: all within five seconds.
        per_second, first, most_seconds = OPENINGS
        self.openings = Paces(max(per_second, settings.max_streams_per_user / 5), first, most_seconds)
        self.unsent = Unsent(_refusals("unsent answers"))
        self.draining = False
        # Calls that are being served.
        self.in_flight = 0
        # Unary calls that have come so far.
        self._came = 0

    def came(self, *, streams: bool = False) -> None:
        """Counts a call that has come; `went` is to follow."""
        self.in_flight += 1
        self._came += not streams

    def went(self) -> None:
        """Counts a call that has ended."""
        self.in_flight -= 1

    async def refusal(self, caller: Hashable, remaining: float | None) -> None:
        """Returns when it is the turn of a refusal of this caller, or, for some, when the call's time is nearly over:
        who hears nothing knows neither why nor when to come back. `remaining` are the seconds until then, None without
        an end.
        """
        if remaining is None:
            await self.refusing.turn(caller)
            return
        rest = min(_LEFT_SECONDS, remaining / 2)
        try:
            async with asyncio.timeout(remaining - rest):
                await self.refusing.turn(caller)
        except TimeoutError:
            # Were all told then, short deadlines would be a way around the pace. The others' deadlines end them: gRPC
            # does, not this clock, which may be a little before it.
            if not self.hurried.takes_now(caller):
                await asyncio.sleep(rest + _LEFT_SECONDS)

    @asynccontextmanager
    async def out_of_flight(self) -> AsyncIterator[None]:
        """The time in which a call is not served, only waits to be told that it is not."""
        self.in_flight -= 1
        try:
            yield
        finally:
            self.in_flight += 1

    def refuse_if_draining(self) -> None:
        """Raises Unavailable where this server is shutting down."""
        if self.draining:
            raise Unavailable(
                "this server is shutting down, go on with another one",
                reason="SHUTTING_DOWN",
                retry_after_seconds=_ELSEWHERE_SECONDS,
            )

    async def drain(self, grace_seconds: float) -> None:
        """Returns when gRPC's server may be stopped, at the latest after about half of the grace.

        gRPC's stop cancels the calls that it holds and no handler has taken. So calls are served until a moment passes
        without a new one, for clients that heed the health service or the end of their streams; then they are refused
        until a moment passes without one, so that few are left to be cancelled. Calls in flight are not waited for:
        the stop does that.
        """
        now = asyncio.get_running_loop().time()
        await self._no_new_call(now + grace_seconds / 3)
        self.draining = True
        self.arrivals.end()
        self.refusing.end()
        self.hurried.end()
        self.openings.end()
        self._trickles.end()
        now = asyncio.get_running_loop().time()
        await self._no_new_call(now + min(REFUSING_SECONDS, grace_seconds / 4))

    async def _no_new_call(self, until: float) -> None:
        """Returns when no unary call has come for a moment, or at a time of the loop. Streams are sent elsewhere, and
        may come back faster than that.
        """
        loop = asyncio.get_running_loop()
        came = -1
        while (now := loop.time()) < until and came != self._came:
            came = self._came
            await asyncio.sleep(min(_QUIET_SECONDS, until - now))
            # A loop that was busy runs its timers before it takes the calls that have come meanwhile.
            for _ in range(_LOOP_PASSES):
                await asyncio.sleep(0)

    def of_cluster(self, name: str, cluster: str) -> Limiter:
        """Returns the seats of the class of this name at one cluster; '' stands for those that are not registered."""
        found = self._of_clusters.get((name, cluster))
        if found is None:
            if len(self._of_clusters) >= _MOST_CLUSTERS:
                # Names come from requests, too.
                self._of_clusters = {key: each for key, each in self._of_clusters.items() if each.flows}
            found = self._of_clusters[name, cluster] = Limiter(name, self._per_cluster[name], _refusals(name))
        return found

    def tried_at(self, what: Hashable) -> str | None:
        """Returns the cluster at which that was tried out last, if it was."""
        return self._tried_at.get(what)

    async def trickle(self, user: Hashable) -> None:
        """Returns when it is the turn of a user's call; how many others wait for theirs is nothing to it."""
        await self._trickles.turn(user)

    def note_trial(self, what: Hashable, cluster: str) -> None:
        """Learns at which cluster that is tried out."""
        if len(self._tried_at) >= _MOST_TRIALS:
            self._tried_at.clear()
        self._tried_at[what] = cluster

    def _sum(self, name: str, figure: Callable[[Limiter], int]) -> int:
        # Over all clusters.
        return sum(figure(each) for (own, _), each in self._of_clusters.items() if own == name)

    def _class(self, name: str, seats: int, seats_per_flow: int, waiting_per_seat: int = 1) -> Limiter:
        return self._limited(name, self._bounds(seats, seats_per_flow, waiting_per_seat))

    def _limited(self, name: str, bounds: Bounds) -> Limiter:
        made = Limiter(name, bounds, _refusals(name))
        _show(IN_USE, name, made, _in_use)
        _show(WAITING, name, made, _waiting)
        return made

    def _bounds(self, seats: int, seats_per_flow: int, waiting_per_seat: int) -> Bounds:
        return Bounds(
            seats=seats,
            seats_per_flow=min(seats, seats_per_flow),
            waiting=waiting_per_seat * seats,
            waiting_per_flow=waiting_per_seat * seats_per_flow,
            wait_seconds=self._wait_seconds,
        )

    def _awaited(self, name: str, settings: Settings) -> Bodies:
        made = Bodies(settings.max_awaited_requests, settings.request_seconds, _refusals(name))
        _show(WAITING, name, made, _waiting)
        return made


class Ticket:
    """The seats that one call holds. `close` gives them back, and is to be called however the call ends."""

    __slots__ = (
        "_admission",
        "_arrived",
        "_at_clusters",
        "_closed",
        "_deadline",
        "_held",
        "_streams",
        "_trial",
        "_tries",
        "_user",
    )

    def __init__(self, admission: Admission, *, streams: bool, deadline: float | None = None) -> None:
        self._admission = admission
        self._streams = streams
        # By the monotonic clock; None where the call has none.
        self._deadline = deadline
        self._user: Hashable = None
        # The first is of calls or of streams, those after it of clusters.
        self._held: list[tuple[Limiter, Hashable, int]] = []
        self._at_clusters: set[str] = set()
        # Whether it stood among those that arrived together, and may have a place of them.
        self._arrived = False
        # What it tries out.
        self._trial: Hashable = None
        # Whether it is its user's trial that the database is asked for.
        self._tries = False
        self._closed = False

    async def arrive(self, caller: Hashable) -> None:
        """Returns when a call that may not pass at once may go on: see `Arrivals`.

        Raises:
            ResourceExhausted: too many have come. Unavailable: this server is shutting down.
        """
        self._arrived = True
        await self._admission.arrivals.turn(caller, self)
        self._admission.refuse_if_draining()

    def sits(self, limiter: Limiter, user: Hashable, width: int = 1) -> bool:
        """Takes the first seats if they are free; returns whether they were."""
        if width > 1:
            width = limiter.fitting(width)
        if not limiter.take_now(user, width):
            return False
        self._user = user
        self._hold(limiter, width)
        return True

    async def sit(
        self, limiter: Limiter, user: Hashable, width: int = 1, *, turns: Limiter | None = None
    ) -> None:
        """Takes the first seats; where `turns` are taken its user's turn before, with no seat held meanwhile, and both
        take no longer than one may. Raises ResourceExhausted.
        """
        self._user = user
        until = None
        if turns is not None:
            until = asyncio.get_running_loop().time() + turns.bounds.wait_seconds
            await turns.take(user, 1, until)
            self._hold(turns, 1)
        width = limiter.fitting(width)
        try:
            await limiter.take(user, width, until)
        except BaseException:
            # Those that wait go on before it is told that this one does not.
            self._give_back()
            raise
        self._hold(limiter, width)

    async def begin(self) -> None:
        """Returns when a call that has its seats may begin; of a user's streams so many do in a second, once all calls
        that came with them are taken in.
        """
        if self._streams:
            admission = self._admission
            self._leave_place()
            await admission.arrivals.all_taken_in(self._user)
            await admission.openings.turn(self._user)
            # Who waited for a turn may have got company meanwhile.
            await admission.arrivals.all_taken_in(self._user)
            # It would be ended as soon as it has begun.
            admission.refuse_if_draining()

    @asynccontextmanager
    async def reads_a_stretch(self) -> AsyncIterator[None]:
        """The time in which a stream reads as much as a wide page, when it is its user's turn. Raises
        ResourceExhausted.
        """
        wide, user = self._admission.wide_pages, self._user
        await wide.take(user, 1, asyncio.get_running_loop().time() + _STRETCH_WAIT_SECONDS)
        try:
            yield
        finally:
            wide.give_back(user)

    async def go_to_cluster(self, cluster: str) -> None:
        """Takes a seat at a cluster before it is asked; a unary call gives back the one it has. Raises
        ResourceExhausted.
        """
        self._has_tried()
        if self._closed or cluster in self._at_clusters:
            return
        if self._trial is not None:
            self._admission.note_trial(self._trial, cluster)
        self._leave_place()
        limiter = self._admission.of_cluster(CLUSTER_STREAMS if self._streams else CLUSTER_CALLS, cluster)
        if limiter.holds(self._user):
            # Those after the first come one by one. Each keeps its first seat until then: no more come than have one.
            await self._admission.trickle(self._user)
        try:
            limiter.check(self._user)
        except ResourceExhausted:
            await self._wait_to_be_refused()
            raise
        if not self._streams and not self._at_clusters:
            self._give_back()
        self._at_clusters.add(cluster)
        try:
            await limiter.take(self._user)
        except BaseException as error:
            self._at_clusters.discard(cluster)
            if isinstance(error, ResourceExhausted):
                await self._wait_to_be_refused()
            raise
        self._hold(limiter, 1)

    async def go_to_trial(self, what: Hashable) -> None:
        """Says what is only tried out, before anything is done; takes a seat at the cluster where that was tried last,
        and has the user's turn at the database until the cluster is asked.

        Raises:
            ResourceExhausted: too many wait for that cluster, or for their user's turn.
            PilothouseError: it is known to be away.
        """
        admission = self._admission
        self._trial = what
        if admission.tried_at(what) is None:
            # A hundred that come at once would all ask the database before the first one knows.
            await self._have_turn()
        if (cluster := admission.tried_at(what)) is None:
            return
        self._has_tried()
        if (away := admission.known_away(cluster)) is not None:
            await self._wait_to_be_refused()
            raise away
        await self.go_to_cluster(cluster)
        await self._have_turn()

    async def _wait_to_be_refused(self) -> None:
        """Returns when it is the turn of a refusal of this user, as for calls that get no seat; a unary call holds
        nothing meanwhile.
        """
        if not self._streams:
            self._leave_place()
            self._has_tried()
            self._give_back()
        remaining = None if self._deadline is None else self._deadline - time.monotonic()
        await self._admission.refusal(self._user, remaining)

    async def _have_turn(self) -> None:
        if not self._closed:
            await self._admission.trials.take(self._user)
            self._tries = True
        if self._closed:
            # The call ended while a task of its own was waiting.
            self._has_tried()

    def _hold(self, limiter: Limiter, width: int) -> None:
        self._held.append((limiter, self._user, width))
        if self._closed:
            # The call ended while a task of its own was waiting.
            self._give_back()

    def close(self) -> None:
        """Gives all back."""
        self._closed = True
        self._leave_place()
        self._has_tried()
        self._give_back()

    def _leave_place(self) -> None:
        if self._arrived:
            self._admission.arrivals.leave(self)

    def _has_tried(self) -> None:
        if self._tries:
            self._tries = False
            self._admission.trials.give_back(self._user)

    def _give_back(self) -> None:
        while self._held:
            limiter, user, width = self._held.pop()
            limiter.give_back(user, width)


# Of the call that is being served.
TICKET: ContextVar[Ticket | None] = ContextVar("ticket", default=None)


async def before_cluster(cluster: str) -> None:
    """Returns once the call that this is done for has a seat at the cluster; at once where it is done for none.

    '' stands for clusters that are not registered. Raises ResourceExhausted.
    """
    ticket = TICKET.get()
    if ticket is not None:
        await ticket.go_to_cluster(cluster)


async def before_trial(what: Hashable) -> None:
    """Returns once the call that tries this out may begin; see `Ticket.go_to_trial`."""
    ticket = TICKET.get()
    if ticket is not None:
        await ticket.go_to_trial(what)


@asynccontextmanager
async def reading_a_stretch() -> AsyncIterator[None]:
    """The same for the call that it is done for; at once where it is done for none.

    Nobody may be waited for in it but the database.
    """
    ticket = TICKET.get()
    if ticket is None:
        yield
    else:
        async with ticket.reads_a_stretch():
            yield


def is_wide(page_size: int) -> bool:
    """Returns whether a page of so many rows takes its user's turn for those."""
    return page_size > WIDE_PAGE_SIZE


def is_large(request_bytes: int) -> bool:
    """Returns whether a request of so many bytes takes its user's turn for those."""
    return request_bytes > _BYTES_PER_SEAT


def seats_for(page_size: int, request_bytes: int) -> int:
    """Returns how many seats a unary call takes that asks for so many rows by a request of so many bytes."""
    rows = min(page_size, LARGEST_PAGE_SIZE)
    return 1 + max(0, rows - 1) // _ROWS_PER_SEAT + request_bytes // _BYTES_PER_SEAT


def _show(gauge: Gauge, name: str, owner: T, figure: Callable[[T], int]) -> None:
    """Has the gauge of a class ask its owner, which it does not keep alive."""
    weak = ref(owner)

    def ask() -> float:
        living = weak()
        return 0.0 if living is None else float(figure(living))

    gauge.labels(_label(name)).set_function(ask)


def _in_use(limiter: Limiter) -> int:
    return limiter.in_use


def _waiting(queue: Limiter | Bodies | Arrivals) -> int:
    return queue.waiting


def _refusals(name: str) -> Callable[[], None]:
    return REFUSED.labels(_label(name)).inc


def _label(name: str) -> str:
    return name.replace(" ", "_")
