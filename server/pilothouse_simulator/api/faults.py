"""Faults a test or a developer asks of the simulated cluster.

The plan is one mutable object; the server reads it for every request. It is set in the same process, or over HTTP at
`/simulator/faults` when the simulator runs alone.
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

    `latency_seconds` delays every answer (real seconds). `error_rate` (0..1) is the share of requests answered with
    `error_code`. `refuse_connections` closes every connection without an answer. `retry_after_seconds` belongs to
    code 429. `webhooks` refuse writes (see `webhooks`). `storage_stalled` makes the storage behind the server stop
    answering; `storage_stopped` does too, and writes on their way to it are lost. `too_busy_for_bookmarks` keeps
    watches silent where nothing changes, until their time is over. `on_request` is called with method and path of
    each request before anything else. `restart` (kill, seconds away) is given by the server. Requests to
    `/simulator`, `/livez`, `/readyz` and `/healthz` are spared.
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
        """The next `count` requests answer with `code`."""
        self._failures.extend([code] * count)

    def lose_answers(self, count: int) -> None:
        """The next `count` writes are done and answered 504, as by a server whose storage took too long."""
        self._lost_answers += count

    def next_answer_is_lost(self) -> bool:
        """Whether the answer of this write, which has been done, shall be lost."""
        if self._lost_answers == 0:
            return False
        self._lost_answers -= 1
        return True

    @property
    def storage_stalled(self) -> bool:
        """Whether the storage does not answer. `stalling` describes the effect on each request."""
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
        """Whether the storage is not there at all."""
        return self._stopped

    @storage_stopped.setter
    def storage_stopped(self, stopped: bool) -> None:
        self.storage_stalled = stopped
        self._stopped = stopped

    async def storage_flows(self) -> None:
        """Waits until the storage answers."""
        await self._flows.wait()

    def drop_watches(self) -> None:
        """Ends all open watches in the middle of their body, as a server that is killed."""
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
        """The refusal this request shall get, or None."""
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
        """The state shown by GET /simulator/faults."""
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
