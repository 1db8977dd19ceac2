"""The first state of a watch: read ahead of its reader, into a buffer with a bound.

The state must be that of one moment, so it is read in one repeatable-read transaction, and that keeps a connection from
the first row to the last. A task of its own reads, and the watch sends what is there while later rows are still read:
the first answer does not wait for the last row, and no more than the buffer is held in memory.

A reader that takes less than is read fills the buffer. The task then waits for it, with its connection, for seconds and
no longer: each time until half of the buffer is taken, and a bounded time in all. After that the transaction ends, the
buffer is emptied, and so does the watch end with SLOW_CONSUMER, as soon as its reader can be told. It has no token yet,
so its client begins anew.

The buffers of all first states have a bound together, too (`Together`): the fuller they are, the less a further one may
hold. A reader who takes what it is sent needs little, and many who take nothing do not fill the memory.

So that readers that stall cannot hold all connections together, few first states are read at once (`Readers`), and of
one caller two; the next waits for its turn, with nothing held.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pilothouse_server.errors import Unavailable
from pilothouse_server.rpc.call import too_slow
from pilothouse_server.runtime.tasks import cancel_and_wait

T = TypeVar("T")
# So long one waits for its turn: longer than others may let their caller's wait (`AheadLimits.waiting_seconds`).
TURN_SECONDS: Final = 75.0


class Together:
    """How many bytes all buffers of a process hold.

    Each may hold a quarter of what is left of `most_bytes`, and `least_bytes` in any case.
    """

    def __init__(self, most_bytes: int = 32 << 20, least_bytes: int = 16 << 10) -> None:
        self.held_bytes = 0
        self._most_bytes = most_bytes
        self._least_bytes = least_bytes

    def share(self, size_bytes: int) -> int:
        """How many bytes one buffer may hold now that would hold `size_bytes` by itself."""
        left = (self._most_bytes - self.held_bytes) // 4
        return min(size_bytes, max(self._least_bytes, left))


@dataclass(frozen=True, slots=True)
class AheadLimits:
    """How far a first state is read ahead, and how long its reader is waited for while a connection is held.

    The buffer is full at `answers` or at `size_bytes`, whichever comes first; one answer may go beyond the latter. Its
    share of what all hold `together` may be less.
    """

    answers: int = 1_000
    size_bytes: int = 4 << 20
    stalled_seconds: float = 5.0
    waiting_seconds: float = 60.0
    together: Together = field(default_factory=Together)


class Readers:
    """Which first states are read at once in this process: `most` in all, and `most_of_one` caller."""

    def __init__(self, most: int = 16, most_of_one: int = 2) -> None:
        self._most_of_one = most_of_one
        self._all = asyncio.Semaphore(most)
        # Callers who read or wait: how many of theirs, and which of them may read.
        self._callers: dict[int, tuple[int, asyncio.Semaphore]] = {}

    @asynccontextmanager
    async def turn(self, caller: int) -> AsyncIterator[None]:
        """The time of reading one.

        Raises:
            Unavailable: the turn did not come in time.
        """
        count, own = self._callers.get(caller, (0, asyncio.Semaphore(self._most_of_one)))
        self._callers[caller] = count + 1, own
        try:
            async with AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(TURN_SECONDS):
                        await stack.enter_async_context(own)
                        await stack.enter_async_context(self._all)
                except TimeoutError:
                    raise Unavailable(
                        "too many watches begin at once, try again",
                        reason="TOO_MANY_FIRST_STATES",
                        retry_after_seconds=1.0,
                    ) from None
                yield
        finally:
            count = self._callers[caller][0] - 1
            if count:
                self._callers[caller] = count, own
            else:
                del self._callers[caller]


class ReadAhead(Generic[T]):
    """The answers that `read` puts into its buffer, and what it returns at the end.

    Entered, it starts the task that reads; left, the task has ended and given its connection back.
    """

    def __init__(self, limits: AheadLimits, read: Callable[[ReadAhead[T]], Coroutine[Any, Any, T]]) -> None:
        self._limits = limits
        self._read = read
        self._answers: deque[bytes] = deque()
        self._size_bytes = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._patience = limits.waiting_seconds
        self._task: asyncio.Task[T] | None = None

    async def __aenter__(self) -> ReadAhead[T]:
        """Starts to read."""
        self._task = asyncio.create_task(self._read(self), name="first state")
        self._task.add_done_callback(lambda _task: self._filled.set())
        return self

    async def __aexit__(self, *_exception: object) -> None:
        """Ends the reading, wherever it is."""
        assert self._task is not None
        # Nor does this know how it ended: an error knows the task's frames, and these know this.
        task, self._task = self._task, None
        try:
            await cancel_and_wait(task)
        finally:
            self._empty()

    @property
    def buffered(self) -> int:
        """How many answers are read and not yet taken."""
        return len(self._answers)

    async def put(self, answer: bytes) -> None:
        """Adds an answer; waits for the reader where the buffer is full.

        Raises:
            ResourceExhausted: the reader does not take enough in time; what it has not taken is gone.
        """
        if self._full:
            await self._wait()
        self._answers.append(answer)
        self._grow(len(answer))
        self._filled.set()

    async def answers(self) -> AsyncGenerator[bytes, None]:
        """Yields the answers in order until all are read.

        Raises:
            PilothouseError: what the reading raised, after what it has put in before.
        """
        assert self._task is not None
        while self._answers or not self._task.done():
            while self._answers:
                answer = self._answers.popleft()
                self._grow(-len(answer))
                if self._half_empty:
                    self._room.set()
                yield answer
            self._filled.clear()
            if not self._task.done():
                await self._filled.wait()
        self._task.result()

    @property
    def result(self) -> T:
        """What `read` returned; only after all answers were taken."""
        assert self._task is not None
        return self._task.result()

    @property
    def _full(self) -> bool:
        return len(self._answers) >= self._limits.answers or self._size_bytes >= self._share_bytes

    @property
    def _half_empty(self) -> bool:
        return len(self._answers) * 2 <= self._limits.answers and self._size_bytes * 2 <= self._share_bytes

    @property
    def _share_bytes(self) -> int:
        return self._limits.together.share(self._limits.size_bytes)

    def _grow(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        self._limits.together.held_bytes += size_bytes

    def _empty(self) -> None:
        self._answers.clear()
        self._grow(-self._size_bytes)

    async def _wait(self) -> None:
        """Waits until half of the buffer is taken."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._room.clear()
        try:
            async with asyncio.timeout(min(self._limits.stalled_seconds, self._patience)):
                await self._room.wait()
        except TimeoutError:
            self._empty()
            raise too_slow("") from None
        self._patience -= loop.time() - began
