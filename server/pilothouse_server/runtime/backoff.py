"""The one retry policy of the server: capped exponential backoff with jitter.

Every part that tries again computes its pause here; a statement that schedules the next attempt gets it as a parameter.
"""

from __future__ import annotations

import random


def backoff_seconds(attempts: int, first: float, most: float) -> float:
    """Returns the pause after failure number `attempts` (from 1): between half and all of `first`, doubled each time.

    `most` caps the doubled time. Jitter keeps two servers that failed together from trying again together.
    """
    full = min(most, first * 2.0 ** min(attempts - 1, 32))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
