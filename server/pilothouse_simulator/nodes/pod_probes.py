"""The probes of a simulated container: when it becomes started and ready, and when its liveness probe kills it.

The pod's behaviour determines the result of a probe. An exec probe whose command is known to fail (`false`, `exit 1`)
fails.
"""

from __future__ import annotations

from typing import Any

from pilothouse_simulator.nodes.node_pod import NodePod
from pilothouse_simulator.nodes.pod_containers import ContainerRole, RunningContainer
from pilothouse_simulator.nodes.pod_programs import exec_fails
from pilothouse_simulator.values.pod_behavior import Behavior

JsonObject = dict[str, Any]

_FIRST_LOOK_SECONDS = 0.05


def needs_probing(container: RunningContainer) -> bool:
    """Returns whether a probe must still succeed before the container is started and ready."""
    if container.role is ContainerRole.INIT:
        return False
    return not (container.started and container.ready) and (
        "readinessProbe" in container.spec or "startupProbe" in container.spec
    )


async def probe(pod: NodePod, container: RunningContainer) -> None:
    """Marks the container as started and ready when its probes succeed."""
    startup = container.spec.get("startupProbe")
    if startup is not None and not container.started:
        await _until_success(pod, container, startup, "Startup")
        container.started = True
        if "readinessProbe" not in container.spec:
            container.ready = pod.behavior.kind is not Behavior.READINESS_FAILING
        pod.publish()
    readiness = container.spec.get("readinessProbe")
    if readiness is not None:
        await _until_success(pod, container, readiness, "Readiness")
        container.ready = True
        pod.publish()


async def until_dead(pod: NodePod, container: RunningContainer) -> None:
    """Returns when the liveness probe, which is known to fail, has failed `failureThreshold` times."""
    settings = container.spec["livenessProbe"]
    clock, attempt = pod.node.clock, container.current
    period = float(settings.get("periodSeconds", 10))
    # The first probe runs after a part of a period.
    await clock.sleep(float(settings.get("initialDelaySeconds", 0)) + 0.9 * period)
    failures = 0
    while True:
        if container.current is attempt and container.is_running:
            pod.event(container, "Unhealthy", "Liveness probe failed: ", warning=True)
            failures += 1
            if failures >= int(settings.get("failureThreshold", 3)):
                return
        await clock.sleep(period)


def is_found_dead(container: RunningContainer) -> bool:
    """Returns whether the container has a liveness probe that is known to fail."""
    settings = container.spec.get("livenessProbe")
    return settings is not None and exec_fails((settings.get("exec") or {}).get("command") or [])


async def _until_success(pod: NodePod, container: RunningContainer, settings: JsonObject, kind: str) -> None:
    clock, attempt = pod.node.clock, container.current
    if attempt is None:
        return

    def elapsed() -> float:
        return (clock.now() - attempt.started_at).total_seconds()

    await clock.sleep(float(settings.get("initialDelaySeconds", 0)) + _FIRST_LOOK_SECONDS - elapsed())
    successes = 0
    failing = kind == "Readiness" and pod.behavior.kind is Behavior.READINESS_FAILING
    failing |= exec_fails((settings.get("exec") or {}).get("command") or [])
    while True:
        if failing or elapsed() < pod.behavior.start_seconds:
            successes = 0
            message = f"{kind} probe failed: the simulated container does not serve"
            pod.event(container, "Unhealthy", message, warning=True)
        else:
            successes += 1
            if successes >= int(settings.get("successThreshold", 1)):
                return
        await clock.sleep(float(settings.get("periodSeconds", 10)))
