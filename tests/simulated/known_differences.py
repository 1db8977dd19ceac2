"""Where the simulated cluster is allowed to differ from the recordings, and why.

`check` in `replay` fails when an entry no longer occurs, so the list cannot outlive its reasons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .replay_compare import Difference


@dataclass(frozen=True)
class KnownDifference:
    """`path` is a regular expression that must match the whole path; `exchange` None means any."""

    recording: str
    exchange: int | None
    path: str
    reason: str

    def matches(self, difference: Difference) -> bool:
        """Whether this entry speaks of the difference."""
        return self.exchange in (None, difference.exchange) and bool(re.fullmatch(self.path, difference.path))


KNOWN: tuple[KnownDifference, ...] = ()
