"""Faults that a test or a developer injects into the simulated cluster.

The plan is one mutable object that the server reads at every request. Tests set it in the same process; if the
simulator runs on its own, clients set it over HTTP at `/simulator/faults`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from pilothouse_simulator.admission.webhooks import Webhook
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ApiError

JsonObject = dict[str, Any]


# The fields that a document sets directly, with their types.
_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "latency_seconds": float,
    "error_rate": float,
    "error_code": int,
    "retry_after_seconds": int,
    "refuse_connections": bool,
    "storage_stalled": bool,
    "storage_stopped": bool,
    "too_busy_for_bookmarks": bool,
}


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _with_tuples(entry: JsonObject) -> JsonObject:
    return {name: tuple(each) if isinstance(each, list) else each for name, each in entry.items()}


@dataclass
class FaultPlan:
    """The faults to simulate, and their rates.

    `latency_seconds` delays every response (real seconds). `error_rate` (0..1) is the share of requests that fail with
    `error_code`. `refuse_connections` closes every connection without a response. `retry_after_seconds` is sent with
    code 429. `webhooks` refuse writes (see the module `webhooks`). `storage_stalled` makes the storage behind the
    server unresponsive; `storage_stopped` also loses the writes in progress. `too_busy_for_bookmarks` suppresses
    bookmarks, so that watches without changes send nothing until they end. `on_request` is called first, with method
    and path of each request. The server sets `restart` (kill, seconds down). Requests to `/simulator`, `/livez`,
    `/readyz` and `/healthz` get no injected errors and no latency.
    """

    latency_seconds: float = 0.0
    error_rate: float = 0.0
    error_code: int = 500
    refuse_connections: bool = False
    too_busy_for_bookmarks: bool = False
    retry_after_seconds: int = 1
    randomness: random.Random = field(default_factory=random.Random)
    restart: Callable[[bool, float], None] | None = None
    on_request: Callable[[str, str], None] | None = None
    webhooks: list[Webhook] = field(default_factory=list)
    _failures: list[int] = field(default_factory=list)
    _lost_answers: int = 0
    _stopped: bool = False
    _flows: asyncio.Event = field(default_factory=_set_event)
    _drop_watches: list[Callable[[], None]] = field(default_factory=list)

    def fail_next(self, count: int, code: int = 500) -> None:
        """Makes the next `count` requests fail with `code`."""
        self._failures.extend([code] * count)

    def lose_answers(self, count: int) -> None:
        """Makes the next `count` writes succeed but return 504, like a server whose storage took too long."""
        self._lost_answers += count

    def next_answer_is_lost(self) -> bool:
        """Returns whether the response to this completed write must be lost, and counts it."""
        if self._lost_answers == 0:
            return False
        self._lost_answers -= 1
        return True

    @property
    def storage_stalled(self) -> bool:
        """Returns whether the storage is unresponsive. The module `stalling` describes the effect on each request."""
        return not self._flows.is_set()

    @storage_stalled.setter
    def storage_stalled(self, stalled: bool) -> None:
        if stalled:
            self._flows.clear()
        else:
            self._stopped = False
            self._flows.set()

    @property
    def storage_stopped(self) -> bool:
        """Returns whether the storage is down, so that stalled writes are lost."""
        return self._stopped

    @storage_stopped.setter
    def storage_stopped(self, stopped: bool) -> None:
        self.storage_stalled = stopped
        self._stopped = stopped

    async def storage_flows(self) -> None:
        """Waits until the storage responds."""
        await self._flows.wait()

    def drop_watches(self) -> None:
        """Ends all open watches in the middle of their body, like a killed server."""
        for drop in tuple(self._drop_watches):
            drop()

    def clear(self) -> None:
        """Removes all faults."""
        self.latency_seconds = self.error_rate = 0.0
        self.refuse_connections = self.storage_stalled = self.too_busy_for_bookmarks = False
        self._failures.clear()
        self.webhooks.clear()
        self._lost_answers = 0

    def on_drop_watches(self, drop: Callable[[], None]) -> Callable[[], None]:
        """Registers an open watch; the result unregisters it."""
        self._drop_watches.append(drop)
        return lambda: self._drop_watches.remove(drop)

    def next_error(self) -> ApiError | None:
        """Returns the injected error for this request, or None."""
        code = None
        if self._failures:
            code = self._failures.pop(0)
        elif self.error_rate and self.randomness.random() < self.error_rate:
            code = self.error_code
        if code is None:
            return None
        if code == 429:
            return api_errors.too_many_requests(self.retry_after_seconds)
        reasons = {500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout", 403: "Forbidden"}
        return api_errors.failure(code, "fault injected by the simulator", reasons.get(code))

    def update(self, document: JsonObject) -> None:
        """Applies the JSON of POST /simulator/faults. Raises ValueError for unknown or bad entries."""
        actions: dict[str, Callable[[Any], None]] = {
            "lose_answers": lambda value: self.lose_answers(int(value)),
            "fail_next": lambda value: self.fail_next(int(value["count"]), int(value.get("code", 500))),
            "webhooks": self._set_webhooks,
            "restart": self._restart,
            "drop_watches": lambda value: self.drop_watches() if value else None,
            "clear": lambda value: self.clear() if value else None,
        }
        for name, value in document.items():
            if name in _SETTINGS:
                setattr(self, name, _SETTINGS[name](value))
            elif name in actions:
                actions[name](value)
            else:
                raise ValueError(f"unknown fault: {name}")

    def _set_webhooks(self, entries: list[JsonObject]) -> None:
        self.webhooks[:] = [Webhook(**_with_tuples(entry)) for entry in entries]

    def _restart(self, how: JsonObject) -> None:
        if self.restart is None:
            raise ValueError("this server cannot be restarted")
        self.restart(bool(how.get("kill", False)), float(how.get("down_seconds", 2.0)))

    def to_json(self) -> JsonObject:
        """Returns the state shown by GET /simulator/faults."""
        return {
            "latency_seconds": self.latency_seconds,
            "error_rate": self.error_rate,
            "error_code": self.error_code,
            "refuse_connections": self.refuse_connections,
            "retry_after_seconds": self.retry_after_seconds,
            "failures_to_come": len(self._failures),
            "answers_to_lose": self._lost_answers,
            "storage_stalled": self.storage_stalled,
            "storage_stopped": self.storage_stopped,
            "too_busy_for_bookmarks": self.too_busy_for_bookmarks,
            "webhooks": [asdict(webhook) for webhook in self.webhooks],
        }
