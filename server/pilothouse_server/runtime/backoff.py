"""The one retry policy of the server: capped exponential backoff with jitter.

All code that retries computes its pause here; a statement that schedules the next attempt gets it as a parameter.
"""

from __future__ import annotations

import random


def backoff_seconds(attempts: int, first: float, most: float) -> float:
    """Returns the pause after failure number `attempts` (from 1).

    It is between half and all of `first`, doubled with each failure. `most` caps the doubled time. Jitter keeps two
    servers that failed together from trying again together.
    """
    full = min(most, first * 2.0 ** min(attempts - 1, 32))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
