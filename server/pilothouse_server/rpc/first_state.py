"""The first state of a watch: read ahead of its reader, into a bounded buffer.

The state must be that of one moment, so it is read in one repeatable-read transaction, which occupies a
connection from the first row to the last. A separate task reads the rows, and the watch sends them while later rows are
still being read. So the first response does not wait for the last row, and no more than the buffer is kept in memory.

A reader that takes rows more slowly than they are read fills the buffer. The task then waits, with its connection, for
seconds only: each time until half of the buffer is taken, and for a bounded time in all. After that the transaction
ends, the buffer is emptied, and the watch ends with SLOW_CONSUMER as soon as its reader can receive that. The watch has
no token yet, so its client begins a new watch.

All buffers of first states together are bounded, too (`BufferMemory`): the fuller they are, the less each may
contain. A reader that keeps up needs little buffer; many stalled readers together cannot exhaust memory.

Few first states are read concurrently, and at most two of one caller (`first_states`), so that stalled readers cannot
occupy all connections. Further watches wait for their turn without a connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pilothouse_server.errors import Unavailable
from pilothouse_server.flowcontrol.fair_queue import FairQueue, QueueBounds
from pilothouse_server.rpc.call import too_slow
from pilothouse_server.runtime.tasks import cancel_and_wait

T = TypeVar("T")
# The longest wait for a turn. It exceeds the time for which the caller's other readers may stall (`waiting_seconds`).
TURN_SECONDS: Final = 75.0
# Never reached: each waiting watch is a stream that has a seat, and the bounds of streams are lower.
_MOST_WAITING: Final = 100_000


class BufferMemory:
    """The number of bytes that all buffers of a process contain.

    Each buffer may contain a quarter of the rest of `most_bytes`, but always `least_bytes`.
    """

    def __init__(self, most_bytes: int = 32 << 20, least_bytes: int = 16 << 10) -> None:
        self.held_bytes = 0
        self._most_bytes = most_bytes
        self._least_bytes = least_bytes

    def share(self, size_bytes: int) -> int:
        """Returns how many bytes a buffer of `size_bytes` may contain at this moment."""
        left = (self._most_bytes - self.held_bytes) // 4
        return min(size_bytes, max(self._least_bytes, left))


@dataclass(frozen=True, slots=True)
class AheadLimits:
    """How far a first state is read ahead, and how long its task waits for a stalled reader.

    The buffer is full at `answers` responses or at `size_bytes`, whichever comes first; one response may exceed the
    latter. The buffer's share of `memory` may be smaller.
    """

    answers: int = 1_000
    size_bytes: int = 4 << 20
    stalled_seconds: float = 5.0
    waiting_seconds: float = 60.0
    memory: BufferMemory = field(default_factory=BufferMemory)


def first_states(seats: int = 16, seats_per_caller: int = 2) -> FairQueue:
    """Returns the queue in which watches wait to read their first states.

    It has `seats` in all, and `seats_per_caller` for each caller.

    A watch has a `seat` of it while it reads its first state. Raises Unavailable if the turn does not come in time.
    """
    bounds = QueueBounds(seats, seats_per_caller, _MOST_WAITING, _MOST_WAITING, TURN_SECONDS)
    return FairQueue("first states", bounds, refusal=lambda _of_caller: _too_many())


def _too_many() -> Unavailable:
    return Unavailable(
        "too many watches are starting now; retry with backoff",
        reason="TOO_MANY_FIRST_STATES",
        retry_after_seconds=1.0,
    )


class ReadAhead(Generic[T]):
    """The responses that `read` puts into the buffer, and its result at the end.

    Entering the context starts the task that reads. When the context is left, the task has ended and released its
    connection.
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
        """Cancels the reading if it has not ended."""
        assert self._task is not None
        # Drops the reference to the task: its error refers to the task's frames, which refer to this object.
        task, self._task = self._task, None
        try:
            await cancel_and_wait(task)
        finally:
            self._empty()

    @property
    def buffered(self) -> int:
        """The number of responses that the client has not taken yet."""
        return len(self._answers)

    async def put(self, answer: bytes) -> None:
        """Adds a response; waits for the reader if the buffer is full.

        Raises:
            ResourceExhausted: the reader does not take enough in time; the responses that it has not taken are
                dropped.
        """
        if self._full:
            await self._wait()
        self._answers.append(answer)
        self._grow(len(answer))
        self._filled.set()

    async def answers(self) -> AsyncGenerator[bytes, None]:
        """Yields the responses in order until all are read.

        Raises:
            PilothouseError: the error of `read`, after the responses that it added before.
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
        """The result of `read`; only available after all responses were taken."""
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
        return self._limits.memory.share(self._limits.size_bytes)

    def _grow(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        self._limits.memory.held_bytes += size_bytes

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
