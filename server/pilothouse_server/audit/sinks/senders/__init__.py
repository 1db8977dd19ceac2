"""One sender for each kind of sink. `send` returns once the sink has acknowledged the records, or raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# The time that a sink has to acknowledge a batch.
SEND_SECONDS = 30.0


class SinkFailed(Exception):
    """A sink did not accept a batch; it is sent again. `reason` is a word, `message` our text for people.

    `too_large`: the sink may accept a smaller batch.
    """

    def __init__(self, reason: str, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.too_large = too_large


class Sender(Protocol):
    """Sends encoded records to one sink."""

    async def send(self, items: Sequence[bytes]) -> None:
        """Returns once the sink has acknowledged the records. Raises SinkFailed."""

    async def close(self) -> None:
        """Ends connections and files."""
