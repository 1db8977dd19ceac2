"""When and after how long a call that failed is sent again.

Exponential backoff with full jitter, so that clients which failed together do not come back together. Two
failures are worth repeating: UNAVAILABLE (the server, its database or the connection is away) and
RESOURCE_EXHAUSTED that says by RetryInfo when to come back. A call whose repetition could do harm is repeated
only if it surely had no effect.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from pilothouse_client.errors import PilothouseError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`attempts` counts the first one, 1 switches retries off; delays are seconds. `watch_patience` is how
    many seconds a watch goes on trying without a single answer before it raises."""

    attempts: int = 6
    initial_delay: float = 0.1
    greatest_delay: float = 5.0
    multiplier: float = 2.0
    watch_patience: float = 300.0

    def __post_init__(self) -> None:
        if (
            self.attempts < 1
            or self.initial_delay < 0
            or self.greatest_delay < self.initial_delay
            or self.multiplier < 1
        ):
            raise ValueError(
                "attempts >= 1, 0 <= initial_delay <= greatest_delay and multiplier >= 1 are needed"
            )

    def backoff(self, failures: int, random_unit: Callable[[], float] = random.random) -> float:
        """Seconds to wait after the `failures`-th failure in a row (from 1): a random part of the growing
        ceiling, never less than a tenth of it, so that a server that fails at once is not called in a tight
        loop."""
        # The exponent is bounded because a float overflows long before an integer does.
        ceiling = min(self.greatest_delay, self.initial_delay * self.multiplier ** min(failures - 1, 64))
        return ceiling * (0.1 + 0.9 * random_unit())

    def delay_before_retry(self, error: PilothouseError, *, repeatable: bool, failures: int) -> float | None:
        """Seconds to wait before the call is sent again, or None if it must not be."""
        if failures >= self.attempts:
            return None
        if error.code is grpc.StatusCode.UNAVAILABLE and (repeatable or error.never_sent):
            return max(error.retry_delay or 0.0, self.backoff(failures))
        if error.code is grpc.StatusCode.RESOURCE_EXHAUSTED and error.retry_delay is not None:
            # Refused before anything was done: safe for every call. The jitter comes on top of what was
            # asked.
            return error.retry_delay + self.backoff(failures)
        return None


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds a call may take with all its retries, by kind: a read, a mutation, one that waits for a
    cluster."""

    read: float = 15.0
    mutation: float = 30.0
    cluster: float = 60.0


DEFAULT_RETRY = RetryPolicy()
DEFAULT_DEADLINES = Deadlines()
