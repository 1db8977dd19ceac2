"""One sender a kind of sink. Each returns once the sink has acknowledged the records, else it raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

# So long a sink may take to acknowledge a batch.
SEND_SECONDS = 30.0


class SinkFailed(Exception):
    """A sink did not take a batch; it is sent again. `reason` is a word, `message` a text for people, in our words.

    `too_large`: it may take a smaller one.
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
