"""Hashing of passwords: Argon2id (19 MiB, 2 passes, 1 lane), in a few threads beside the event loop.

A hash costs some 20 ms of a core on purpose. `argon2-cffi` lets go of the interpreter's lock meanwhile, so
a small pool of threads keeps the loop free, and its size bounds memory and cores that strangers can make
the server spend. The queue before it is bounded and fair (`hash_queue`): who finds it full is told to come back,
instead of waiting behind thousands of others.

Where there is no hash to verify (an unknown user, one without a password) a dummy is verified, made with
the same parameters, so that both cases take the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from pilothouse_server.identity.hash_queue import HashQueue
from pilothouse_server.identity.model import NO_PASSWORD

T = TypeVar("T")

MEMORY_KIBIBYTES: Final = 19 * 1024
PASSES: Final = 2
LANES: Final = 1
_THREADS: Final = 2
_LONGEST_QUEUE: Final = 256
# Of one address or account: people behind one address may come together in the morning.
_LONGEST_OF_ONE: Final = 64


# What is added to the niceness of a thread that hashes: the event loop goes first where both want a processor.
_NICENESS: Final = 10


def _give_way() -> None:
    """Lowers the priority of this thread alone, which Linux can do; elsewhere it would be the whole process's."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class Passwords:
    """Hashes and verifies passwords. One a server; `close` ends its threads."""

    def __init__(self, *, threads: int = _THREADS, longest_queue: int = _LONGEST_QUEUE) -> None:
        self._hasher = PasswordHasher(
            time_cost=PASSES, memory_cost=MEMORY_KIBIBYTES, parallelism=LANES, type=Type.ID
        )
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="passwords", initializer=_give_way)
        self._queue = HashQueue(
            threads, longest=longest_queue, longest_of_one=min(longest_queue, _LONGEST_OF_ONE)
        )
        self._dummy = self._hasher.hash(secrets.token_urlsafe(32))

    def turn(self, who: str = "", *, known: bool = False) -> AbstractAsyncContextManager[None]:
        """Waits for a thread to be free, and keeps it. No transaction is open meanwhile, nor while it hashes.

        `who` has its turns in a row of its own, a `known` one before strangers.

        Raises:
            ResourceExhausted: LOGIN_BUSY, too many wait already.
        """
        return self._queue.place(who, known=known)

    async def hash(self, password: str, who: str = "") -> str:
        """The hash of a new password, in PHC form; `who` asks for it.

        Raises:
            ResourceExhausted: too many wait already.
        """
        async with self.turn(who, known=True):
            return await self.hash_in_turn(password)

    async def hash_in_turn(self, password: str) -> str:
        """The same; only within `turn`."""
        return await self._in_thread(lambda: self._hasher.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether `password` is the one of the hash; only within `turn`. None is an unknown user's."""
        known = password_hash is not None and password_hash != NO_PASSWORD
        stored = password_hash if known and password_hash is not None else self._dummy
        matches = await self._in_thread(lambda: self._matches(stored, password))
        return matches and known

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Lets the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
