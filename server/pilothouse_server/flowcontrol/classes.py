"""One table of all classes of seats, and the rates that are paced.

A class has a flow, seats, a weight and a wait. docs/limits.md shows the classes and the rates (`make limits`);
`make lint` compares it with this module.

An address is the client's, as trusted proxies report it. An IPv6 address counts as its /64, because one customer has at
least a /64.

The reasons for these bounds:

- The server looks up a token before it knows the user, so those calls count by address, as calls without a log-in do.
  Users may share an address, so it has ten times the calls of a user.
- Each user may have one wide page in progress, however many seats the user has. Three would occupy two
  cores and three database connections. The user's other wide pages wait before they take a seat, so the user's small
  calls overtake them. The same holds for large requests, which are read, checked, written and recorded: eight
  together leave the event loop little time.
- A dry run is written to the database, rolled back, and then sent to the cluster. Each user may have one in progress:
  eight would have eight connections plan every statement of a create, while other calls wait for a connection.
- An apply of 500 objects holds a connection for a second. Four at a time leave most connections to small calls.
- Health watches and reflection streams stay open, so a caller with too many is refused immediately.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from pilothouse_server.flowcontrol.fair_queue import QueueBounds

# A page takes one seat for every 100 rows, and a request takes one more for every 64 KiB. A page with more rows than
# the first number is wide; a request with more bytes than the second is large.
WIDE_PAGE_ROWS: Final = 100
LARGE_REQUEST_BYTES: Final = 64 * 1024
# The number of seats that the widest page takes.
_MOST_SEATS_FOR_ROWS: Final = 10


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The numbers that bound the calls and connections of one process.

    The first four are settings. `make soak PART=hostile` attacks a server that has these numbers.
    """

    max_concurrent_calls: int = 256
    max_calls_per_user: int = 32
    max_streams: int = 2000
    max_streams_per_user: int = 200
    # An API server serves 400 calls at a time by default (`max-requests-inflight`), and others call it as well.
    max_cluster_calls: int = 32
    max_cluster_calls_per_user: int = 8
    # Each is a connection to the cluster.
    max_cluster_streams: int = 96
    max_cluster_streams_per_user: int = 24
    # Clients and load balancers watch each replica, and many may share an address.
    max_health_watches_per_address: int = 100
    # A body usually arrives with its call, so only slow clients have pending requests.
    max_pending_requests: int = 500
    # Enough for 4 MiB at 3 Mbit/s.
    request_seconds: float = 10.0
    # A third of the 15 s that our client gives a read with its retries.
    wait_seconds: float = 5.0
    # RFC 9113 (6.5.2) recommends at least 100.
    max_calls_per_connection: int = 100
    # The default of gRPC.
    max_message_bytes: int = 4 * 1024 * 1024
    handshake_seconds: float = 15.0
    # The server then asks the client to reconnect, so that replicas share the load.
    max_connection_age_seconds: int = 3600
    # The client reconnects with its next call.
    max_connection_idle_seconds: float = 15.0

    @property
    def max_calls_per_address(self) -> int:
        """The limit of calls without a log-in of one address.

        It is ten times a user's, because users may share an address.
        """
        return 10 * self.max_calls_per_user


class Size(NamedTuple):
    """A field of `CallLimits` multiplied by `times`; without a field `times` itself."""

    limit: str = ""
    times: int = 1

    def of(self, limits: CallLimits) -> int:
        """Returns the number."""
        return self.times * int(getattr(limits, self.limit)) if self.limit else self.times


class SeatClass(NamedTuple):
    """A class: its name, which calls hold a seat, the key of a flow, and its numbers.

    `waiting_per_seat` calls may wait for each seat.
    """

    name: str
    holders: str
    flow: str
    seats: Size
    per_flow: Size
    waiting_per_seat: int = 1
    weight: str = "1"

    @property
    def label(self) -> str:
        """The name as metrics and errors show it."""
        return self.name.replace(" ", "_")

    def bounds(self, limits: CallLimits) -> QueueBounds:
        """Returns the bounds of its queue."""
        seats, per_flow = self.seats.of(limits), self.per_flow.of(limits)
        return QueueBounds(
            seats=seats,
            seats_per_flow=min(seats, per_flow),
            waiting=self.waiting_per_seat * seats,
            # For a class with one seat for each user, as many calls of the user may wait as for its ordinary seats.
            waiting_per_flow=self.waiting_per_seat
            * (_SEATS_OF_USER.of(limits) if self.per_flow == ONE else per_flow),
            wait_seconds=limits.wait_seconds,
        )


ONE = Size()
_SEATS_OF_USER = Size("max_calls_per_user")
_USER, _ADDRESS = "user", "address"
_USER_AT_CLUSTER = "user, at one cluster"
_BY_SIZE = "1, and 1 more for each further 100 rows and for each 64 KiB of its request"

AUTHENTICATIONS = SeatClass(
    "authentications",
    "calls whose token is looked up",
    _ADDRESS,
    Size("max_calls_per_address", 2),
    Size("max_calls_per_address"),
)
ANONYMOUS_CALLS = SeatClass(
    "strangers",
    "unary calls of methods that need no log-in",
    _ADDRESS,
    Size("max_calls_per_address", 2),
    Size("max_calls_per_address"),
)
CALLS = SeatClass(
    "calls",
    "other unary calls",
    _USER,
    Size("max_concurrent_calls"),
    Size("max_calls_per_user"),
    8,
    _BY_SIZE,
)
WIDE_PAGES = SeatClass(
    "wide pages",
    "pages of more than 100 rows, in addition to their seats; exports and verifications of the log while they read",
    _USER,
    Size("max_concurrent_calls"),
    ONE,
    8,
)
LARGE_REQUESTS = SeatClass(
    "large requests",
    "requests of more than 64 KiB, in addition to their seats",
    _USER,
    Size("max_concurrent_calls"),
    ONE,
    8,
)
APPLIES = SeatClass(
    "applies",
    "calls that write the objects of an application, in addition to their seats",
    _USER,
    Size(times=4),
    ONE,
    8,
)
STREAMS = SeatClass(
    "streams",
    "open streams",
    "user; address without a log-in",
    Size("max_streams"),
    Size("max_streams_per_user"),
)
CLUSTER_CALLS = SeatClass(
    "cluster calls",
    "unary calls from the moment they first wait for a cluster, instead of their first seats",
    _USER_AT_CLUSTER,
    Size("max_cluster_calls"),
    Size("max_cluster_calls_per_user"),
    4,
)
CLUSTER_STREAMS = SeatClass(
    "cluster streams",
    "streams that read from a cluster, in addition to their first seat",
    _USER_AT_CLUSTER,
    Size("max_cluster_streams"),
    Size("max_cluster_streams_per_user"),
)
DRY_RUNS = SeatClass(
    "trials",
    "calls with `validate_only`, while the database works for them",
    _USER,
    Size("max_concurrent_calls"),
    ONE,
)
HEALTH_WATCHES = SeatClass(
    "health watches",
    "watches of the health service",
    _ADDRESS,
    Size("max_health_watches_per_address", 10),
    Size("max_health_watches_per_address"),
    0,
)
REFLECTIONS = SeatClass(
    "reflections",
    "streams of the reflection service",
    _ADDRESS,
    Size("max_health_watches_per_address", 10),
    Size("max_health_watches_per_address"),
    0,
)
CLASSES: Final = (
    AUTHENTICATIONS,
    ANONYMOUS_CALLS,
    CALLS,
    WIDE_PAGES,
    LARGE_REQUESTS,
    APPLIES,
    STREAMS,
    CLUSTER_CALLS,
    CLUSTER_STREAMS,
    DRY_RUNS,
    HEALTH_WATCHES,
    REFLECTIONS,
)


class Rate(NamedTuple):
    """A rate for each user, or each address without a log-in.

    It has the tokens a second, the burst, and the longest wait.
    """

    per_second: float
    burst: int
    longest_seconds: float


REFUSALS: Rate = Rate(50.0, 20, 15.0)
# For refusals whose turn would come after their caller's deadline. They do not wait.
LATE_REFUSALS: Rate = Rate(25.0, 10, 0.0)
STREAM_OPENS: Rate = Rate(40.0, 4, 15.0)
CLUSTER_CALL_RATE: Rate = Rate(250.0, 1, 1.0)
RATES: Final = {
    "refusals": REFUSALS,
    "refusals whose deadline comes first": LATE_REFUSALS,
    "streams that open (at least; a fifth of `PILOTHOUSE_MAX_STREAMS_PER_USER` if that is more)": STREAM_OPENS,
    "calls to one cluster after the first": CLUSTER_CALL_RATE,
}


def is_wide(page_size: int) -> bool:
    """Returns whether a page of this many rows needs its user's turn for wide pages."""
    return page_size > WIDE_PAGE_ROWS


def is_large(request_bytes: int) -> bool:
    """Returns whether a request of this size needs its user's turn for large requests."""
    return request_bytes > LARGE_REQUEST_BYTES


def seats_for(page_size: int, request_bytes: int) -> int:
    """Returns the number of seats of a unary call, by its page and request size."""
    rows = min(_MOST_SEATS_FOR_ROWS - 1, max(0, page_size - 1) // WIDE_PAGE_ROWS)
    return 1 + rows + request_bytes // LARGE_REQUEST_BYTES


def tables(is_setting: Callable[[str], bool]) -> str:
    """Returns both tables in Markdown, as docs/limits.md shows them."""
    limits = CallLimits()

    def number(size: Size) -> str:
        if not is_setting(size.limit):
            return str(size.of(limits))
        times = "" if size.times == 1 else f"{size.times} × "
        return f"{times}`PILOTHOUSE_{size.limit.upper()}` ({size.of(limits)})"

    lines = [
        "| class | a seat is held by | flow | seats | of one flow | seats a call takes | wait at most |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in CLASSES:
        wait = f"{limits.wait_seconds:g} s, {each.bounds(limits).waiting} calls"
        lines.append(
            f"| `{each.label}` | {each.holders} | {each.flow} | {number(each.seats)} | {number(each.per_flow)} |"
            f" {each.weight} | {wait if each.waiting_per_seat else 'no wait'} |"
        )
    lines += ["", "| of each user or address | a second | at first | wait at most |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {rate.per_second:g} | {rate.burst} | {rate.longest_seconds:g} s |"
        for name, rate in RATES.items()
    ]
    return "\n".join(lines) + "\n"
