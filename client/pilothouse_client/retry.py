"""When and after how long a call that failed is sent again.

The client uses capped exponential backoff with full jitter, so that clients which failed together do not retry
together. It retries three failures: UNAVAILABLE (the server, its database or the connection is down),
RESOURCE_EXHAUSTED with a RetryInfo, and CANCELLED that neither the caller nor the deadline caused: a server that shuts
down cancels calls that arrive in its last moment. If a repetition could do harm, the call is repeated only if it is
certain that the failed attempt had no effect. Retries continue until the call's deadline, so that a call outlasts a
restart of the server; the last waits are shortened so that another attempt fits after them.

An unavailable *cluster* is different: the server reports it, and it may stay unavailable for days. A few attempts
suffice to find a server that reaches the cluster, if there is one. If the servers know that the cluster is away, the
call is not retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from pilothouse_client.errors import CancelledError, PilothouseError

# Seconds that a wait leaves for the attempt after it, if that many are left.
SECONDS_FOR_AN_ATTEMPT = 1.0
# The greatest number of attempts of a call that fails with one of the reasons below, because its cluster is away.
ATTEMPTS_AT_A_CLUSTER = 3
_CLUSTER_AWAY = frozenset({"CLUSTER_UNAVAILABLE", "CLUSTER_UNREACHABLE"})


def _random_unit() -> float:
    # Few calls fail, and the module takes as long to load as ten modules of the client.
    import random

    return random.random()  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which delays a call is retried. Delays are in seconds.

    `attempts` is the greatest number of attempts, the first one included: 1 switches retries off, None leaves the
    deadline as the only limit. `watch_patience` is how many seconds a watch is retried without a single response before
    it raises.

    >>> with Client(address, token=token, retry=RetryPolicy(attempts=1)) as impatient:
    ...     impatient.identity.who_am_i().user.username
    'admin'
    """

    attempts: int | None = None
    initial_delay: float = 0.1
    greatest_delay: float = 5.0
    multiplier: float = 2.0
    watch_patience: float = 300.0

    def __post_init__(self) -> None:
        if (
            (self.attempts is not None and self.attempts < 1)
            or self.initial_delay < 0
            or self.greatest_delay < self.initial_delay
            or self.multiplier < 1
        ):
            raise ValueError(
                "attempts >= 1, 0 <= initial_delay <= greatest_delay and multiplier >= 1 are needed"
            )

    def backoff(self, failures: int, random_unit: Callable[[], float] = _random_unit) -> float:
        """Returns the seconds to wait after the `failures`-th failure in a row (from 1).

        It is a random part of the growing ceiling, never less than a tenth of it, so that a server that fails
        immediately is not called in a tight loop.
        """
        # The exponent is bounded because a float overflows long before an integer does.
        ceiling = min(self.greatest_delay, self.initial_delay * self.multiplier ** min(failures - 1, 64))
        return ceiling * (0.1 + 0.9 * random_unit())

    def exhausted(self, failures: int) -> bool:
        """Returns whether all attempts are used up."""
        return self.attempts is not None and failures >= self.attempts

    def delay_before_retry(
        self, error: PilothouseError, *, repeatable: bool, failures: int, left: float | None = None
    ) -> float | None:
        """Returns the seconds to wait before the call is sent again, or None if it must not be.

        `left` is the number of seconds until the call's deadline; None: no limit."""
        if self.exhausted(failures) or (
            error.reason in _CLUSTER_AWAY
            and (error.metadata.get("away") or failures >= ATTEMPTS_AT_A_CLUSTER)
        ):
            return None
        if error.connection_problem:
            # Another attempt does not repair a certificate.
            return None
        delay = self.backoff(failures)
        if isinstance(error, CancelledError) and error.by_peer and repeatable:
            least = 0.0
        elif error.code is grpc.StatusCode.UNAVAILABLE and (repeatable or error.never_sent):
            least = error.retry_delay or 0.0
            delay = max(least, delay)
        elif error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_delay is not None:
            # The server refused the call before it did anything, so every call may be repeated. The jitter is added
            # to the delay that the server requested.
            least = error.retry_delay
            delay += least
        else:
            return None
        return delay if left is None else self.fitting(delay, least, left)

    def fitting(self, delay: float, least: float, left: float) -> float | None:
        """Returns `delay`, shortened if necessary so that an attempt fits into the `left` seconds.

        None if the shortened delay would not exceed `least` or `initial_delay`."""
        room = left - min(SECONDS_FOR_AN_ATTEMPT, left / 2)
        if delay <= room:
            return delay
        if room <= max(least, self.initial_delay):
            return None
        return least + (room - least) * (0.5 + 0.5 * _random_unit())


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds a call may take with all its retries: a read, a mutation, a call that waits for a cluster.

    >>> with Client(address, token=token, deadlines=Deadlines(read=60.0)) as patient:
    ...     patient.identity.who_am_i().user.username
    'admin'
    """

    read: float = 15.0
    mutation: float = 30.0
    cluster: float = 60.0


DEFAULT_RETRY = RetryPolicy()
DEFAULT_DEADLINES = Deadlines()


class Deadline:
    """The time by which a call must have ended; None seconds mean no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Returns the seconds left, never negative; None if endless."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def at_most(self, seconds: float) -> Deadline:
        """Returns this deadline, or the one in `seconds` if that is earlier."""
        left = self.left()
        return self if left is not None and left <= seconds else Deadline(max(0.0, seconds))
