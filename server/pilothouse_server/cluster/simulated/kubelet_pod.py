"""The life of one pod on its node: starting, running, restarting, ending.

`PodWorker.live` is the whole life as one coroutine on the clock: sandbox, init containers one by one, then
the main containers side by side, each with pulls, probes, restarts and back-off. `PodWorker.terminate` is
its end after a deletion. Every step that a client could see is published as a status, in the order a real
kubelet reports them.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .api_errors import ApiError
from .exec_environment import environment_of
from .pod_behavior import Behavior, behavior_of, pull_failure
from .pod_containers import Container, Role, containers_of, restore
from .pod_programs import KILLED, exec_fails
from .pod_status import Sandbox, build_status
from .quantities import parse_quantity
from .resources import PODS
from .store import format_time

if TYPE_CHECKING:
    from .kubelet import Kubelet

JsonObject = dict[str, Any]

KUBELET = "kubelet"
_LONGEST_BACK_OFF_SECONDS = 300
_FIRST_BACK_OFF_SECONDS = 10
_BACK_OFF_RESET_SECONDS = 600.0
_PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff"})


class PodWorker:
    """Runs one pod on one node."""

    def __init__(self, node: Kubelet, pod: JsonObject) -> None:
        self.node = node
        self.pod = pod
        self.behavior = behavior_of(pod)
        status = pod["status"]
        self.restored = bool(status.get("containerStatuses"))
        self.containers = restore(pod, self.behavior) if self.restored else containers_of(pod)
        self.sandbox = Sandbox(node.ip, status.get("startTime") or format_time(node.clock.now()))
        if self.restored and status.get("podIP"):
            self.sandbox.pod_ip, self.sandbox.is_up = status["podIP"], True
            node.addresses.keep(status["podIP"])

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    async def live(self) -> None:
        """Runs the pod until it has completed; for ever if it never does. Cancelled when the pod is
        deleted."""
        if self.pod["status"].get("phase") in ("Succeeded", "Failed"):
            return
        timings = self.node.timings
        if not self.sandbox.is_up:
            self.publish()
            async with self.node.start_slots:
                await self.node.clock.sleep(timings.sandbox)
            self.sandbox.is_up = True
            self.publish()
            self.sandbox.pod_ip = self.node.addresses.take()
        async with asyncio.TaskGroup() as sidecars:
            started = []
            succeeded = True
            for container in self.containers:
                if container.role is Role.SIDECAR:
                    started.append(await self._start_sidecar(container, sidecars))
                elif container.role is Role.INIT and not await self._run_init(container):
                    succeeded = False
                    break
            if succeeded:
                await self._run_main()
            for task in started:
                task.cancel()
        await self._complete()

    async def terminate(self) -> None:
        """Stops what runs and removes the pod from the API. For a pod that is being deleted."""
        clock, timings = self.node.clock, self.node.timings
        grace = float(self.pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        for container in self.containers:
            if container.waiting is not None and container.waiting[0] in _PULL_REASONS:
                container.waiting = ("ContainerCreating", "")
        self.publish()
        running = [container for container in self.containers if container.is_running]
        for container in running:
            self._event(container, "Killing", f"Stopping container {container.name}")
        stubborn = [entry for entry in running if entry.current and entry.current.program.on_term is None]
        if running:
            await clock.sleep(min(timings.stop, grace) if stubborn else timings.stop)
        for container in running:
            code = container.current.program.on_term if container.current else None
            if code is not None:
                container.end(clock.now(), code)
        if stubborn:
            await clock.sleep(max(0.0, grace - timings.stop))
            for container in stubborn:
                container.end(clock.now(), KILLED)
        self.sandbox.is_up = False
        if any(container.role is Role.MAIN and container.current is None for container in self.containers):
            self.publish()
        for container in self.containers:
            if container.current is not None:
                container.waiting = None
            elif container.waiting is not None and container.waiting[0] != "PodInitializing":
                container.waiting, container.never_ran = None, True
            container.ready = container.ready and container.role is Role.INIT
        self.publish(over=True)
        await clock.sleep(timings.remove)
        metadata = self.pod["metadata"]
        stored = self.node.store.get(PODS, metadata["namespace"], metadata["name"])
        if stored is not None and stored["metadata"]["uid"] == self.uid:
            self.node.store.delete(PODS, metadata["namespace"], metadata["name"], grace_period_seconds=0)

    def release(self) -> None:
        """Ends what may still run and gives the pod's address back. The pod is gone from the API."""
        for container in self.containers:
            if container.is_running:
                container.end(self.node.clock.now(), KILLED)
        if self.sandbox.pod_ip:
            self.node.addresses.give_back(self.sandbox.pod_ip)

    def publish(self, *, over: bool = False) -> None:
        """Writes the status, if the pod still exists."""
        metadata = self.pod["metadata"]
        store = self.node.store
        stored = store.get(PODS, metadata["namespace"], metadata["name"])
        if stored is None or stored["metadata"]["uid"] != self.uid:
            return
        now = self.node.clock.now()
        status = build_status(stored, self.containers, self.sandbox, now, over=over)
        try:
            self.pod = store.update_status(PODS, {**stored, "status": status}, KUBELET)
        except ApiError:
            # Removed between two steps; the deletion is on its way to this worker.
            return

    # Containers

    async def _start_sidecar(self, container: Container, tasks: asyncio.TaskGroup) -> asyncio.Task[None]:
        running = asyncio.Event()
        task = tasks.create_task(self._supervise(container, running))
        await running.wait()
        return task

    async def _run_init(self, container: Container) -> bool:
        """Runs an init container to its good end; False when it failed for good."""
        if container.current is not None and not container.is_running and container.current.exit_code == 0:
            return True
        await self._supervise(container)
        return container.current is not None and container.current.exit_code == 0

    async def _run_main(self) -> None:
        main = [container for container in self.containers if container.role is Role.MAIN]
        if len(main) == 1:
            await self._supervise(main[0])
            return
        async with asyncio.TaskGroup() as tasks:
            for container in main:
                tasks.create_task(self._supervise(container))

    async def _supervise(self, container: Container, running: asyncio.Event | None = None) -> None:
        """Keeps one container running as the restart policy says; returns when it has ended for good."""
        if container.current is not None and not container.is_running:
            if not self._restarts(container):
                return
            await self._back_off(container)
        while True:
            if not container.is_running:
                await self._pull(container)
                await self._start(container)
            if running is not None:
                running.set()
            await self._run_to_end(container)
            restarts = self._restarts(container)
            if restarts and container.restarts > 0:
                self._back_off_event(container)
            self.publish()
            if not restarts:
                return
            if container.restarts > 0:
                await self._back_off(container)

    def _restarts(self, container: Container) -> bool:
        policy = self.pod["spec"].get("restartPolicy", "Always")
        attempt = container.current
        failed = attempt is None or attempt.exit_code != 0
        if container.role is Role.SIDECAR:
            return True
        if container.role is Role.INIT:
            return failed and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and failed)

    async def _pull(self, container: Container) -> None:
        """Makes sure the image is there; tries for ever, with growing pauses, where it cannot be pulled."""
        image, clock, timings = container.spec["image"], self.node.clock, self.node.timings
        pause = _FIRST_BACK_OFF_SECONDS
        while (failure := pull_failure(self.behavior, image)) is not None:
            self._event(container, "Pulling", f'Pulling image "{image}"')
            await clock.sleep(timings.create)
            message = f'Failed to pull image "{image}": {failure}'
            self._event(container, "Failed", message, warning=True)
            self._event(container, "Failed", "Error: ErrImagePull", warning=True)
            container.waiting = ("ErrImagePull", failure)
            self.publish()
            await clock.sleep(timings.show_back_off)
            self._event(container, "BackOff", f'Back-off pulling image "{image}"')
            self._event(container, "Failed", "Error: ImagePullBackOff", warning=True)
            message = f'Back-off pulling image "{image}": ErrImagePull: {failure}'
            container.waiting = ("ImagePullBackOff", message)
            self.publish()
            await clock.sleep(pause + timings.end_back_off)
            pause = min(pause * 2, _LONGEST_BACK_OFF_SECONDS)
        if self.node.has_image(image) and container.spec.get("imagePullPolicy") != "Always":
            message = f'Container image "{image}" already present on machine and can be accessed by the pod'
            self._event(container, "Pulled", message)
            return
        self._event(container, "Pulling", f'Pulling image "{image}"')
        await clock.sleep(timings.pull)
        size = self.node.add_image(image)
        took = f"{int(timings.pull * 1000)}ms"
        self._event(
            container,
            "Pulled",
            f'Successfully pulled image "{image}" in {took} ({took} including waiting). '
            f"Image size: {size} bytes.",
        )

    async def _start(self, container: Container) -> None:
        clock, timings = self.node.clock, self.node.timings
        await clock.sleep(timings.create)
        self._event(container, "Created", "Container created")
        has_probe = "readinessProbe" in container.spec or "startupProbe" in container.spec
        is_main = container.role is Role.MAIN
        await clock.sleep(timings.start + (self.behavior.start_seconds if is_main and not has_probe else 0))
        attempt = container.begin(self.uid, self.behavior, clock.now())
        attempt.environment = environment_of(self.node.store, self.pod, container.spec)
        self._event(container, "Started", "Container started")
        container.started = "startupProbe" not in container.spec
        never_ready = is_main and self.behavior.kind is Behavior.READINESS_FAILING
        container.ready = not has_probe and not never_ready and container.role is not Role.INIT
        self.publish()

    async def _run_to_end(self, container: Container) -> None:
        """Waits for the end of the running attempt, with its probes, and notes it a moment later."""
        attempt, clock = container.current, self.node.clock
        if attempt is None:
            return
        ends_at, code, reason = self._end_of(container)
        async with asyncio.TaskGroup() as tasks:
            probing = tasks.create_task(self._probe(container)) if self._needs_probing(container) else None
            if ends_at is None:
                await asyncio.Event().wait()
            else:
                elapsed = (clock.now() - attempt.started_at).total_seconds()
                await clock.sleep(ends_at - elapsed)
            if probing is not None:
                probing.cancel()
        container.end(attempt.started_at + timedelta(seconds=ends_at or 0.0), code, reason)
        await clock.sleep(self.node.timings.notice)

    def _end_of(self, container: Container) -> tuple[float | None, int, str]:
        """When the running attempt ends (seconds after its start, None: never), with which code and
        reason."""
        program = container.current.program if container.current else None
        if program is None:
            return None, 0, ""
        text = ((container.spec.get("resources") or {}).get("limits") or {}).get("memory")
        limit = int(parse_quantity(text)) if text else self.node.memory_bytes
        if program.memory > limit:
            return max(program.memory_at, 0.01), KILLED, "OOMKilled"
        level = self.behavior.memory
        if container.role is Role.MAIN and level is not None and level > limit:
            return 1.0, KILLED, "OOMKilled"
        if program.end is None:
            return None, 0, ""
        return program.end[0], program.end[1], ""

    # Probes

    def _needs_probing(self, container: Container) -> bool:
        if container.role is Role.INIT:
            return False
        return not (container.started and container.ready) and (
            "readinessProbe" in container.spec or "startupProbe" in container.spec
        )

    async def _probe(self, container: Container) -> None:
        """Lets the container become started and ready as its probes would find it."""
        startup = container.spec.get("startupProbe")
        if startup is not None and not container.started:
            await self._until_success(container, startup, "Startup")
            container.started = True
            if "readinessProbe" not in container.spec:
                container.ready = self.behavior.kind is not Behavior.READINESS_FAILING
            self.publish()
        readiness = container.spec.get("readinessProbe")
        if readiness is not None:
            await self._until_success(container, readiness, "Readiness")
            container.ready = True
            self.publish()

    async def _until_success(self, container: Container, probe: JsonObject, kind: str) -> None:
        clock, attempt = self.node.clock, container.current
        if attempt is None:
            return

        def elapsed() -> float:
            return (clock.now() - attempt.started_at).total_seconds()

        await clock.sleep(float(probe.get("initialDelaySeconds", 0)) + 0.05 - elapsed())
        successes = 0
        failing = kind == "Readiness" and self.behavior.kind is Behavior.READINESS_FAILING
        failing |= exec_fails((probe.get("exec") or {}).get("command") or [])
        while True:
            if failing or elapsed() < self.behavior.start_seconds:
                successes = 0
                message = f"{kind} probe failed: the simulated container does not serve"
                self._event(container, "Unhealthy", message, warning=True)
            else:
                successes += 1
                if successes >= int(probe.get("successThreshold", 1)):
                    return
            await clock.sleep(float(probe.get("periodSeconds", 10)))

    # Ends

    async def _back_off(self, container: Container) -> None:
        """Waits until the container may be started again, showing CrashLoopBackOff."""
        clock, attempt = self.node.clock, container.current
        if attempt is None or attempt.finished_at is None:
            return
        if (attempt.finished_at - attempt.started_at).total_seconds() > _BACK_OFF_RESET_SECONDS:
            return
        pause = min(_FIRST_BACK_OFF_SECONDS * 2 ** max(0, container.restarts - 1), _LONGEST_BACK_OFF_SECONDS)
        await clock.sleep(self.node.timings.show_back_off)
        self._back_off_event(container)
        metadata = self.pod["metadata"]
        place = f"{metadata['name']}_{metadata['namespace']}({self.uid})"
        message = f"back-off {_duration(pause)} restarting failed container={container.name} pod={place}"
        container.waiting = ("CrashLoopBackOff", message)
        self.publish()
        elapsed = (clock.now() - attempt.finished_at).total_seconds()
        await clock.sleep(pause + self.node.timings.end_back_off - elapsed)

    def _back_off_event(self, container: Container) -> None:
        metadata = self.pod["metadata"]
        place = f"{metadata['name']}_{metadata['namespace']}({self.uid})"
        message = f"Back-off restarting failed container {container.name} in pod {place}"
        self._event(container, "BackOff", message, warning=True)

    async def _complete(self) -> None:
        """Ends what still runs beside the main containers and reports the final phase."""
        for container in self.containers:
            if container.is_running:
                self._event(container, "Killing", f"Stopping container {container.name}")
                container.end(self.node.clock.now(), 0)
        await self.node.clock.sleep(self.node.timings.notice)
        self.sandbox.is_up = False
        self.publish()

    def _event(self, container: Container, reason: str, message: str, *, warning: bool = False) -> None:
        self.node.recorder.record(
            PODS,
            self.pod,
            reason,
            message,
            component=KUBELET,
            host=self.node.name,
            warning=warning,
            container=container.name,
            init_container=container.role is not Role.MAIN,
        )


def _duration(seconds: int) -> str:
    """A duration as Go spells it: `40s`, `1m20s`, `5m0s`."""
    return f"{seconds}s" if seconds < 60 else f"{seconds // 60}m{seconds % 60}s"
