"""Hashing of passwords: Argon2id (19 MiB, 2 passes, 1 lane), in a few threads apart from the event loop.

A hash costs some 20 ms of a core on purpose. `argon2-cffi` releases the interpreter's lock during that time, so a small
pool of threads keeps the event loop free. The pool's size limits the memory and the cores that anonymous callers can
make the server spend. Bounded fair queues feed the pool: an attempt whose queue is full is refused, instead of waiting
behind thousands of others.

There are two queues of equal length: one for *known* attempts (from a device or an address that logged in before), and
one for all others. Each queue serves its waiting addresses or accounts in turn. While attempts wait in both queues, the
queues alternate. Unknown attempts never occupy the last thread, so their hashes use at most one core fewer than there
are threads.

If there is no hash to verify (an unknown user, or a user without a password), a dummy with the same parameters is
verified, so that both cases take the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from pilothouse_server.errors import ResourceExhausted
from pilothouse_server.flowcontrol.fair_queue import FairQueue, QueueBounds
from pilothouse_server.identity.model import NO_PASSWORD

T = TypeVar("T")

MEMORY_KIBIBYTES: Final = 19 * 1024
PASSES: Final = 2
LANES: Final = 1
_THREADS: Final = 2
# The maximum number of waiting attempts; half of the places are for known attempts.
_LONGEST_QUEUE: Final = 256
# The maximum number of waiting attempts of one address or account: people behind one address may all log in in the
# morning.
_LONGEST_OF_ONE: Final = 64


# The longest wait: enough for 64 attempts of one account with a hash of 20 ms each on a busy machine.
_LONGEST_WAIT_SECONDS: Final = 30.0

# Added to the niceness of a hashing thread, so that the event loop has priority if both need the processor.
_NICENESS: Final = 10


def _give_way() -> None:
    """Lowers the priority of this thread on Linux; other systems could only lower that of the whole process."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def login_busy() -> ResourceExhausted:
    """Returns the error for a log-in attempt while too many other attempts wait."""
    return ResourceExhausted(
        "too many concurrent log-ins; retry with backoff", reason="LOGIN_BUSY", retry_after_seconds=1.0
    )


def _queue(seats: int, waiting: int, waiting_of_one: int) -> FairQueue:
    bounds = QueueBounds(seats, seats, waiting, waiting_of_one, _LONGEST_WAIT_SECONDS)
    return FairQueue("password hashes", bounds, refusal=lambda _of_caller: login_busy())


class Passwords:
    """Hashes and verifies passwords.

    Each server has one instance; `close` ends its threads.
    """

    def __init__(self, *, threads: int = _THREADS, longest_queue: int = _LONGEST_QUEUE) -> None:
        self._hasher = PasswordHasher(
            time_cost=PASSES, memory_cost=MEMORY_KIBIBYTES, parallelism=LANES, type=Type.ID
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords", initializer=_give_way)
        waiting = longest_queue // 2
        of_one = min(waiting, _LONGEST_OF_ONE)
        # One more than there are threads, so that a known attempt always competes with the unknown ones for the next
        # free thread.
        self._known = _queue(threads + 1, waiting, of_one)
        self._unknown = _queue(max(1, threads - 1), waiting, of_one)
        self._seats = _queue(threads, 2 * threads + 2, 2 * threads + 2)
        self._dummy = self._hasher.hash(secrets.token_urlsafe(32))

    @contextlib.asynccontextmanager
    async def turn(self, who: str = "", *, known: bool = False) -> AsyncIterator[None]:
        """Waits for a free thread and reserves it; call it without an open transaction.

        The queue is fair between the values of `who`. `known` attempts have a queue of their own.

        Raises:
            ResourceExhausted: LOGIN_BUSY, too many attempts are waiting.
        """
        async with (self._known if known else self._unknown).seat(who), self._seats.seat(known):
            yield

    async def hash(self, password: str, who: str = "") -> str:
        """Returns the hash of a new password, in PHC form; `who` is the requesting caller.

        Raises:
            ResourceExhausted: LOGIN_BUSY, too many attempts are waiting.
        """
        async with self.turn(who, known=True):
            return await self.hash_in_turn(password)

    async def hash_in_turn(self, password: str) -> str:
        """Returns the hash of a new password, in PHC form; call it within `turn` only."""
        return await self._in_thread(lambda: self._hasher.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Returns whether the password matches the hash, None for an unknown user; call it within `turn` only."""
        known = password_hash is not None and password_hash != NO_PASSWORD
        stored = password_hash if known and password_hash is not None else self._dummy
        matches = await self._in_thread(lambda: self._matches(stored, password))
        return matches and known

    def needs_rehash(self, password_hash: str) -> bool:
        """Returns whether the hash was made with parameters other than the current ones."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Ends the threads after their current hashes, and drops the waiting work."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
