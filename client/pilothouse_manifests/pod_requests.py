"""The amount of one resource that a pod requests, counted as the scheduler of Kubernetes does.

Init containers run one by one and end before the main program and its sidecars start. A native sidecar starts in its
place among them and stays. A node must have room for the largest sum that ever runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TypeVar

N = TypeVar("N", int, Decimal)


def pod_request(running: Iterable[N], starting: Iterable[tuple[N, bool]], zero: N) -> N:
    """The amount that a pod requests.

    `running`: those of the main program and of the sidecars. `starting`: those of the init containers in their order,
    each with whether it is a native sidecar.
    """
    staying = peak = zero
    for amount, stays in starting:
        if stays:
            staying += amount
        else:
            peak = max(peak, staying + amount)
    return max(sum(running, staying), peak)
