"""The probes of a simulated container: when it counts as started and ready, and when it is killed for being dead.

A probe finds what the pod's behaviour says. An exec probe whose command is known to fail (`false`, `exit 1`) fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pilothouse_simulator.nodes.pod_containers import Role
from pilothouse_simulator.nodes.pod_programs import exec_fails
from pilothouse_simulator.values.pod_behavior import Behavior

if TYPE_CHECKING:
    from pilothouse_simulator.nodes.pod_containers import Container
    from pilothouse_simulator.nodes.pod_worker import PodWorker

JsonObject = dict[str, Any]

_FIRST_LOOK_SECONDS = 0.05


def needs_probing(container: Container) -> bool:
    """Whether a probe decides if the container is started and ready."""
    if container.role is Role.INIT:
        return False
    return not (container.started and container.ready) and (
        "readinessProbe" in container.spec or "startupProbe" in container.spec
    )


async def probe(worker: PodWorker, container: Container) -> None:
    """Lets the container become started and ready as its probes would find it."""
    startup = container.spec.get("startupProbe")
    if startup is not None and not container.started:
        await _until_success(worker, container, startup, "Startup")
        container.started = True
        if "readinessProbe" not in container.spec:
            container.ready = worker.behavior.kind is not Behavior.READINESS_FAILING
        worker.publish()
    readiness = container.spec.get("readinessProbe")
    if readiness is not None:
        await _until_success(worker, container, readiness, "Readiness")
        container.ready = True
        worker.publish()


async def until_dead(worker: PodWorker, container: Container) -> None:
    """Returns when the liveness probe has failed often enough; never where it does not fail."""
    settings = container.spec["livenessProbe"]
    clock, attempt = worker.node.clock, container.current
    period = float(settings.get("periodSeconds", 10))
    # The first look comes after a part of a period.
    await clock.sleep(float(settings.get("initialDelaySeconds", 0)) + 0.9 * period)
    failures = 0
    while True:
        if container.current is attempt and container.is_running:
            worker.event(container, "Unhealthy", "Liveness probe failed: ", warning=True)
            failures += 1
            if failures >= int(settings.get("failureThreshold", 3)):
                return
        await clock.sleep(period)


def is_found_dead(container: Container) -> bool:
    """Whether the container has a liveness probe that is known to fail."""
    settings = container.spec.get("livenessProbe")
    return settings is not None and exec_fails((settings.get("exec") or {}).get("command") or [])


async def _until_success(worker: PodWorker, container: Container, settings: JsonObject, kind: str) -> None:
    clock, attempt = worker.node.clock, container.current
    if attempt is None:
        return

    def elapsed() -> float:
        return (clock.now() - attempt.started_at).total_seconds()

    await clock.sleep(float(settings.get("initialDelaySeconds", 0)) + _FIRST_LOOK_SECONDS - elapsed())
    successes = 0
    failing = kind == "Readiness" and worker.behavior.kind is Behavior.READINESS_FAILING
    failing |= exec_fails((settings.get("exec") or {}).get("command") or [])
    while True:
        if failing or elapsed() < worker.behavior.start_seconds:
            successes = 0
            message = f"{kind} probe failed: the simulated container does not serve"
            worker.event(container, "Unhealthy", message, warning=True)
        else:
            successes += 1
            if successes >= int(settings.get("successThreshold", 1)):
                return
        await clock.sleep(float(settings.get("periodSeconds", 10)))
