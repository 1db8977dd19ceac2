"""How long the steps of a simulated kubelet take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timings:
    """How long the steps of a kubelet take, in simulated seconds; about those recorded of a real one, or
    shorter."""

    sandbox: float = 0.2
    pull: float = 0.15
    create: float = 0.01
    start: float = 0.05
    notice: float = 0.25
    show_back_off: float = 1.0
    end_back_off: float = 0.0
    stop: float = 0.08
    remove: float = 0.3
