"""Reports expiry, before and after it: once, and then every day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog

from pilothouse_server.rpc.tls.files import EXPIRY

log = structlog.get_logger(__name__)

# How long before expiry the reports begin. For a shorter life they begin with its last third.
_BEFORE: Final = timedelta(days=14)
_EVERY: Final = timedelta(days=1)


class Lasting(Protocol):
    """A value that is valid for a time."""

    @property
    def not_before(self) -> datetime: ...

    @property
    def not_after(self) -> datetime: ...


class Expiry:
    """Reports when `what` expires."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._warned_at: datetime | None = None
        self._warned_expired = False

    def look(self, lasting: Lasting, now: datetime | None = None) -> None:
        """Sets the metric, and writes to the log when a report is due."""
        now = datetime.now(UTC) if now is None else now
        EXPIRY.labels(self._what).set(lasting.not_after.timestamp())
        left = lasting.not_after - now
        if left > min(_BEFORE, (lasting.not_after - lasting.not_before) / 3):
            self._warned_at, self._warned_expired = None, False
            return
        over = left <= timedelta(0)
        if self._warned_at is not None and now - self._warned_at < _EVERY and over == self._warned_expired:
            return
        self._warned_at, self._warned_expired = now, over
        when = lasting.not_after.isoformat(timespec="seconds")
        if over:
            log.error("a TLS certificate or revocation list has expired", what=self._what, expired=when)
        else:
            log.warning("a TLS certificate or revocation list expires soon", what=self._what, expires=when)
