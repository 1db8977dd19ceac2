"""How much cpu and memory simulated containers use.

Usage is a function of time and is not counted: each container has a level, its cpu varies around the level as a sine,
and the cumulative counter is the integral. So two samples always agree with the level between them, a counter never
decreases while its container runs, and no state is stored. Levels come from the pod's annotations (then they are
steady) or from the requests. Usage never exceeds limits, except for a level that ends in an OOM kill.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilothouse_simulator.nodes.node_pod import NodePod
from pilothouse_simulator.nodes.pod_containers import ContainerAttempt, ContainerRole, RunningContainer
from pilothouse_simulator.values.quantities import parse_quantity

JsonObject = dict[str, Any]

SAMPLE_SECONDS = 10.0
_CYCLE_SECONDS = 240.0
_SWING = 0.25
_SHARE_OF_REQUEST = 0.6
_SHARE_OF_LIMIT = 0.3
_DEFAULT_CORES = 0.004
_DEFAULT_MEMORY = 24 * 2**20
_WARM_UP_SECONDS = 20.0


@dataclass(frozen=True)
class Level:
    """The mean usage of a container: cores, with the relative swing around them, and bytes of memory."""

    cores: float
    swing: float
    phase: float
    memory_bytes: int
    memory_limit_bytes: int

    def core_seconds(self, seconds: float) -> float:
        """Returns the core-seconds used in the first `seconds` of a run."""
        if seconds <= 0:
            return 0.0
        turn = 2 * math.pi / _CYCLE_SECONDS
        wave = (math.cos(self.phase) - math.cos(turn * seconds + self.phase)) / turn
        return self.cores * (seconds + self.swing * wave)

    def working_set_bytes(self, seconds: float) -> int:
        """Returns the bytes in use `seconds` after the start. Memory first grows to the level."""
        share = min(1.0, 0.4 + 0.6 * max(0.0, seconds) / _WARM_UP_SECONDS)
        pages = int(self.memory_bytes * share) // 4096
        return pages * 4096


@dataclass(frozen=True)
class PodSample:
    """One measurement. `cores` is the mean since the previous sample, zero in the first sample."""

    time: datetime
    core_seconds: float
    cores: float
    working_set_bytes: int


def level_of(pod: NodePod, container: RunningContainer) -> Level:
    """Returns the level of a container's usage."""
    resources = container.spec.get("resources") or {}
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    behavior = pod.behavior if container.role is ContainerRole.MAIN else None
    cores_asked = behavior.cpu if behavior is not None else None
    swing = 0.0 if cores_asked is not None else _SWING
    cores = (
        float(cores_asked) if cores_asked is not None else _default(requests, limits, "cpu", _DEFAULT_CORES)
    )
    if "cpu" in limits:
        cores = min(cores, float(parse_quantity(limits["cpu"])) / (1 + swing))
    limit = int(parse_quantity(limits["memory"])) if "memory" in limits else 0
    memory_asked = behavior.memory if behavior is not None else None
    memory = (
        float(memory_asked)
        if memory_asked is not None
        else _default(requests, limits, "memory", _DEFAULT_MEMORY)
    )
    if limit:
        memory = min(memory, limit)
    return Level(cores, swing, _phase(pod.uid + container.name), int(memory), limit)


def _default(requests: JsonObject, limits: JsonObject, resource: str, otherwise: float) -> float:
    if resource in requests:
        return float(parse_quantity(requests[resource])) * _SHARE_OF_REQUEST
    if resource in limits:
        return float(parse_quantity(limits[resource])) * _SHARE_OF_LIMIT
    return otherwise


def _phase(seed: str) -> float:
    """Returns a stable phase angle, so that the containers do not swing in step."""
    return int.from_bytes(hashlib.blake2b(seed.encode(), digest_size=4).digest(), "big") / 2**32 * 2 * math.pi


def sample(level: Level, attempt: ContainerAttempt, now: datetime) -> PodSample:
    """Returns the newest measurement of a run: taken at its start, then every ten seconds."""
    end = attempt.finished_at or now
    age = max(0.0, (min(now, end) - attempt.started_at).total_seconds())
    taken = age // SAMPLE_SECONDS * SAMPLE_SECONDS
    used = level.core_seconds(taken)
    cores = 0.0
    if taken >= SAMPLE_SECONDS:
        cores = (used - level.core_seconds(taken - SAMPLE_SECONDS)) / SAMPLE_SECONDS
    return PodSample(
        attempt.started_at + (min(now, end) - attempt.started_at) * (taken / age if age else 0.0),
        used,
        cores,
        level.working_set_bytes(taken),
    )


def pod_core_seconds(pod: NodePod, now: datetime) -> float:
    """Returns the core-seconds of all runs of all containers of a pod, up to their newest samples."""
    total = 0.0
    for container in pod.containers:
        if container.current is None:
            continue
        level = level_of(pod, container)
        total += level.cores * container.earlier_run_seconds
        if container.is_running:
            total += sample(level, container.current, now).core_seconds
        else:
            total += level.cores * run_seconds(container.current)
    return total


def run_seconds(attempt: ContainerAttempt) -> float:
    """Returns how long an ended run lasted."""
    if attempt.finished_at is None:
        return 0.0
    return max(0.0, (attempt.finished_at - attempt.started_at).total_seconds())
