"""The life of one pod on its node: starting, running, restarting, ending.

`PodWorker.run` is the whole life of a pod in one coroutine: sandbox, init containers one by one, then the main
containers in parallel, each with pulls, probes, restarts and back-off. `PodWorker.terminate` ends the pod after a
deletion. Every step that a client could see is published as a status, in the order in which a real kubelet reports the
steps.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from pilothouse_simulator.exec.environment import environment_of
from pilothouse_simulator.nodes.node_pod import NodePod
from pilothouse_simulator.nodes.pod_containers import (
    ContainerAttempt,
    ContainerRole,
    RunningContainer,
    is_restarted,
)
from pilothouse_simulator.nodes.pod_preparation import mount_volumes, prepare
from pilothouse_simulator.nodes.pod_probes import is_found_dead, needs_probing, probe, until_dead
from pilothouse_simulator.nodes.pod_programs import KILLED, start_failure
from pilothouse_simulator.values.clock import parse_time
from pilothouse_simulator.values.pod_behavior import Behavior
from pilothouse_simulator.values.quantities import parse_quantity
from pilothouse_simulator.values.resources import PODS

JsonObject = dict[str, Any]

_LONGEST_BACK_OFF_SECONDS = 300
_FIRST_BACK_OFF_SECONDS = 10
_BACK_OFF_RESET_SECONDS = 600.0
_STARTUP_LOOK_SECONDS = 0.1
_PULL_REASONS = frozenset({"ErrImagePull", "ImagePullBackOff"})


class PodWorker(NodePod):
    """Runs one pod on one node."""

    async def run(self) -> None:
        """Runs the pod until it has completed, possibly forever. Cancelled when the pod is deleted."""
        if self.object["status"].get("phase") in ("Succeeded", "Failed"):
            return
        deadline = self.object["spec"].get("activeDeadlineSeconds")
        if deadline is None:
            await self._run_containers()
            return
        elapsed = (self.node.clock.now() - parse_time(self.sandbox.start_time)).total_seconds()
        try:
            async with asyncio.timeout(max(0.0, deadline - elapsed) / self.node.clock.speed):
                await self._run_containers()
        except TimeoutError:
            await self._exceed_deadline()

    async def _run_containers(self) -> None:
        timings = self.node.timings
        if not self.sandbox.is_up:
            self.publish()
            await mount_volumes(self)
            async with self.node.start_slots:
                await self.node.clock.sleep(timings.sandbox)
            self.sandbox.is_up = True
            self.publish()
            self.sandbox.pod_ip = self.node.addresses.take()
        async with asyncio.TaskGroup() as sidecars:
            started = []
            succeeded = True
            for container in self.containers:
                if container.role is ContainerRole.SIDECAR:
                    started.append(await self._start_sidecar(container, sidecars))
                elif container.role is ContainerRole.INIT and not await self._run_init(container):
                    succeeded = False
                    break
            if succeeded:
                await self._run_main()
            for task in started:
                task.cancel()
        await self._complete()

    async def terminate(self) -> None:
        """Stops the containers of a pod that is being deleted, and removes the pod from the API."""
        for container in self.containers:
            if container.waiting is not None and container.waiting[0] in _PULL_REASONS:
                container.waiting = ("ContainerCreating", "")
        self.publish()
        await self._stop_running()
        self.sandbox.is_up = False
        if any(
            container.role is ContainerRole.MAIN and container.current is None
            for container in self.containers
        ):
            self.publish()
        for container in self.containers:
            if container.current is not None:
                container.waiting = None
            elif container.waiting is not None and container.waiting[0] != "PodInitializing":
                container.waiting, container.never_ran = None, True
            container.ready = container.ready and container.role is ContainerRole.INIT
        self.publish(over=True)
        await self.node.clock.sleep(self.node.timings.remove)
        metadata = self.object["metadata"]
        stored = self.node.store.get(PODS, metadata["namespace"], metadata["name"])
        if stored is not None and stored["metadata"]["uid"] == self.uid:
            self.node.store.delete(PODS, metadata["namespace"], metadata["name"], grace_period_seconds=0)

    async def _stop_running(self) -> None:
        """Sends SIGTERM to the running containers, and kills those that still run after the grace period."""
        clock, timings = self.node.clock, self.node.timings
        grace = float(self.object["metadata"].get("deletionGracePeriodSeconds") or 0)
        running = [container for container in self.containers if container.is_running]
        for container in running:
            self.event(container, "Killing", f"Stopping container {container.name}")
        stubborn = [entry for entry in running if entry.current and entry.current.program.on_term is None]
        if running:
            await clock.sleep(min(timings.stop, grace) if stubborn else timings.stop)
        for container in running:
            code = container.current.program.on_term if container.current else None
            if not self._end_by_itself(container) and code is not None:
                container.end(clock.now(), code)
        if stubborn:
            await clock.sleep(max(0.0, grace - timings.stop))
            for container in stubborn:
                if not self._end_by_itself(container):
                    container.end(clock.now(), KILLED)

    def _end_by_itself(self, container: RunningContainer) -> bool:
        """Ends a running container whose program has ended by itself; returns whether it had."""
        attempt = container.current
        ends_at, code, reason = self._end_of(container)
        if attempt is None or ends_at is None:
            return False
        moment = attempt.started_at + timedelta(seconds=ends_at)
        if moment > self.node.clock.now():
            return False
        container.end(moment, code, reason)
        return True

    async def _exceed_deadline(self) -> None:
        """Fails a pod that has exceeded its active deadline."""
        message = "Pod was active on the node longer than the specified deadline"
        self.pod_event("DeadlineExceeded", message)
        self.sandbox.failure = ("DeadlineExceeded", message)
        for container in self.containers:
            if container.is_running and container.current is not None:
                self.event(container, "Killing", f"Stopping container {container.name}")
                code = container.current.program.on_term
                container.end(self.node.clock.now(), KILLED if code is None else code)
        await self.node.clock.sleep(self.node.timings.stop)
        self.pod_event("DeadlineExceeded", message)
        self.sandbox.is_up = False
        self.publish(over=True)

    def release(self) -> None:
        """Ends the remaining containers and releases the address of a pod that is removed from the API."""
        for container in self.containers:
            if container.is_running:
                self.event(container, "Killing", f"Stopping container {container.name}")
                container.end(self.node.clock.now(), KILLED)
        if self.sandbox.pod_ip:
            self.node.addresses.give_back(self.sandbox.pod_ip)

    # Containers

    async def _start_sidecar(
        self, container: RunningContainer, tasks: asyncio.TaskGroup
    ) -> asyncio.Task[None]:
        running = asyncio.Event()
        task = tasks.create_task(self._supervise(container, running))
        await running.wait()
        # The containers after a sidecar wait for its startup probe.
        while not container.started:
            await self.node.clock.sleep(_STARTUP_LOOK_SECONDS)
        return task

    async def _run_init(self, container: RunningContainer) -> bool:
        """Runs an init container until it succeeds; returns False if it failed for good."""
        if container.current is not None and not container.is_running and container.current.exit_code == 0:
            return True
        await self._supervise(container)
        return container.current is not None and container.current.exit_code == 0

    async def _run_main(self) -> None:
        main = [container for container in self.containers if container.role is ContainerRole.MAIN]
        if len(main) == 1:
            await self._supervise(main[0])
            return
        async with asyncio.TaskGroup() as tasks:
            for container in main:
                tasks.create_task(self._supervise(container))

    async def _supervise(self, container: RunningContainer, running: asyncio.Event | None = None) -> None:
        """Keeps one container running under its restart policy; returns when it has ended for good."""
        if container.current is not None and not container.is_running:
            if not self._restarts(container):
                return
            await self._back_off(container)
        while True:
            if not container.is_running:
                await prepare(self, container)
                await self._start(container)
            if container.is_running:
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

    def _restarts(self, container: RunningContainer) -> bool:
        policy = self.object["spec"].get("restartPolicy", "Always")
        attempt = container.current
        failed = attempt is None or attempt.exit_code != 0
        if container.role is ContainerRole.SIDECAR:
            return True
        if container.role is ContainerRole.INIT:
            return failed and policy != "Never"
        code = attempt.exit_code if attempt is not None else None
        return is_restarted(container.spec, policy, 1 if code is None else code)

    async def _start(self, container: RunningContainer) -> None:
        clock, timings = self.node.clock, self.node.timings
        await clock.sleep(timings.create)
        self.event(container, "Created", "Container created")
        if (why := start_failure(self.behavior, container.spec)) is not None:
            await clock.sleep(timings.start)
            container.fail_to_start(self.uid, self.behavior, clock.now(), why)
            self.event(container, "Failed", f"Error: {why}", warning=True)
            self.publish()
            return
        has_probe = "readinessProbe" in container.spec or "startupProbe" in container.spec
        is_main = container.role is ContainerRole.MAIN
        await clock.sleep(timings.start + (self.behavior.start_seconds if is_main and not has_probe else 0))
        attempt = container.begin(self.uid, self.behavior, clock.now())
        attempt.environment = environment_of(self.node.store, self.object, container.spec)
        self.event(container, "Started", "Container started")
        container.started = "startupProbe" not in container.spec
        never_ready = is_main and self.behavior.kind is Behavior.READINESS_FAILING
        container.ready = not has_probe and not never_ready and container.role is not ContainerRole.INIT
        self.publish()

    async def _run_to_end(self, container: RunningContainer) -> None:
        """Runs the current attempt with its probes until it ends; returns when the kubelet notices the end."""
        attempt, clock = container.current, self.node.clock
        if attempt is None:
            return
        ends_at, code, reason = self._end_of(container)
        async with asyncio.TaskGroup() as tasks:
            waits = [tasks.create_task(self._until(attempt, ends_at))]
            if is_found_dead(container):
                waits.append(tasks.create_task(until_dead(self, container)))
            probing = [tasks.create_task(probe(self, container))] if needs_probing(container) else []
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            ended = waits[0].done()
            for task in [*waits, *probing]:
                task.cancel()
        if ends_at is None or not ended:
            await self._kill_dead(container)
            return
        container.end(attempt.started_at + timedelta(seconds=ends_at), code, reason)
        await clock.sleep(self.node.timings.notice)

    async def _until(self, attempt: ContainerAttempt, ends_at: float | None) -> None:
        """Waits until `ends_at` seconds after the start of an attempt; forever if it is None."""
        if ends_at is None:
            await asyncio.Event().wait()
        else:
            elapsed = (self.node.clock.now() - attempt.started_at).total_seconds()
            await self.node.clock.sleep(ends_at - elapsed)

    async def _kill_dead(self, container: RunningContainer) -> None:
        """Ends a container whose liveness probe has failed, so that it is restarted."""
        attempt, clock = container.current, self.node.clock
        if attempt is None:
            return
        message = f"Container {container.name} failed liveness probe, will be restarted"
        self.event(container, "Killing", message)
        code = attempt.program.on_term
        grace = float(self.object["spec"].get("terminationGracePeriodSeconds") or 0)
        await clock.sleep(grace if code is None else min(grace, self.node.timings.start))
        container.end(clock.now(), KILLED if code is None else code)

    def _end_of(self, container: RunningContainer) -> tuple[float | None, int, str]:
        """Returns the end of the running attempt: seconds after its start (None: never), exit code and reason."""
        program = container.current.program if container.current else None
        if program is None:
            return None, 0, ""
        text = ((container.spec.get("resources") or {}).get("limits") or {}).get("memory")
        limit = int(parse_quantity(text)) if text else self.node.memory_bytes
        if program.memory > limit:
            return max(program.memory_at, 0.01), KILLED, "OOMKilled"
        level = self.behavior.memory
        if container.role is ContainerRole.MAIN and level is not None and level > limit:
            return 1.0, KILLED, "OOMKilled"
        if program.end is None:
            return None, 0, ""
        return program.end[0], program.end[1], ""

    # Ends

    async def _back_off(self, container: RunningContainer) -> None:
        """Waits for the back-off of a container.

        The container shows CrashLoopBackOff during the wait, a sidecar only at its end.
        """
        clock, attempt = self.node.clock, container.current
        if attempt is None or attempt.finished_at is None:
            return
        if (attempt.finished_at - attempt.started_at).total_seconds() > _BACK_OFF_RESET_SECONDS:
            return
        pause = min(_FIRST_BACK_OFF_SECONDS * 2 ** max(0, container.restarts - 1), _LONGEST_BACK_OFF_SECONDS)
        await clock.sleep(self.node.timings.show_back_off)
        self._back_off_event(container)
        metadata = self.object["metadata"]
        place = f"{metadata['name']}_{metadata['namespace']}({self.uid})"
        message = f"back-off {_duration(pause)} restarting failed container={container.name} pod={place}"
        remaining = (
            pause + self.node.timings.end_back_off - (clock.now() - attempt.finished_at).total_seconds()
        )
        is_sidecar = container.role is ContainerRole.SIDECAR
        if is_sidecar:
            await clock.sleep(remaining)
        container.waiting = ("CrashLoopBackOff", message)
        self.publish()
        if not is_sidecar:
            await clock.sleep(remaining)

    def _back_off_event(self, container: RunningContainer) -> None:
        metadata = self.object["metadata"]
        place = f"{metadata['name']}_{metadata['namespace']}({self.uid})"
        message = f"Back-off restarting failed container {container.name} in pod {place}"
        self.event(container, "BackOff", message, warning=True)

    async def _complete(self) -> None:
        """Ends the containers that still run after the main ones, and reports the final phase."""
        for container in self.containers:
            if container.is_running:
                self.event(container, "Killing", f"Stopping container {container.name}")
                container.end(self.node.clock.now(), 0)
        await self.node.clock.sleep(self.node.timings.notice)
        self.sandbox.is_up = False
        self.publish()


def _duration(seconds: int) -> str:
    """Returns a duration as Go spells it: `40s`, `1m20s`, `5m0s`."""
    return f"{seconds}s" if seconds < 60 else f"{seconds // 60}m{seconds % 60}s"
