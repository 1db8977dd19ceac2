"""The amount of one resource that a pod requests, computed as Kubernetes' scheduler does.

Init containers run one by one and end before the main program and its sidecars start. A native sidecar starts in its
turn among the init containers and keeps running. A node must have room for the largest sum that runs at any time.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import TypeVar

N = TypeVar("N", int, Decimal)


def pod_request(running: Iterable[N], starting: Iterable[tuple[N, bool]], zero: N) -> N:
    """Returns the amount that a pod requests.

    `running`: the amounts of the main program and of the sidecars. `starting`: the amounts of the init containers in
    their order, each with whether it is a native sidecar.
    """
    staying = peak = zero
    for amount, stays in starting:
        if stays:
            staying += amount
        else:
            peak = max(peak, staying + amount)
    return max(sum(running, staying), peak)
