"""The containers of one simulated pod on its node: their states, attempts and programs.

This is the kubelet's internal state: when an attempt really started (to the microsecond, for logs and usage), which
program it runs and how it ended. `pod_status` converts this state into the status that clients see; `restore` converts
a status back after a restart of the simulator.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from pilothouse_simulator.admission.pod_resources import is_sidecar
from pilothouse_simulator.nodes.pod_programs import START_FAILED, PodProgram, program_of
from pilothouse_simulator.values.clock import parse_time
from pilothouse_simulator.values.pod_behavior import PodBehavior

JsonObject = dict[str, Any]


_NEVER = "1970-01-01T00:00:00Z"


class ContainerRole(StrEnum):
    """The role of a container in its pod."""

    INIT = "init"
    SIDECAR = "sidecar"
    MAIN = "main"


@dataclass
class ContainerAttempt:
    """One run of a container. `finished_at` and the result are None while it runs; `over` is set at its end.

    `message` is the text of the `terminated` state. `has_run` is False if the program could not be started.
    `environment` is that of the start, None if it is unknown after a restart of the simulator. `files` are those that
    exec programs have written, and the mounted ones.
    """

    container_id: str
    started_at: datetime
    program: PodProgram
    finished_at: datetime | None = None
    exit_code: int | None = None
    reason: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    environment: dict[str, str] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    message: str = ""
    has_run: bool = True

    def terminated(self) -> JsonObject:
        """Returns the `terminated` state of this attempt."""
        return {
            "exitCode": self.exit_code,
            "reason": self.reason,
            **({"message": self.message} if self.message else {}),
            "startedAt": _seconds(self.started_at) if self.has_run else _NEVER,
            "finishedAt": _seconds(self.finished_at or self.started_at),
            "containerID": self.container_id,
        }


@dataclass
class RunningContainer:
    """One container.

    `current` is the newest attempt, `previous` the one before; `waiting` is the reason and message shown while no
    attempt runs. `earlier_run_seconds` is the total run time of the attempts before `current`.
    """

    spec: JsonObject
    role: ContainerRole
    image_id: str
    current: ContainerAttempt | None = None
    previous: ContainerAttempt | None = None
    waiting: tuple[str, str] | None = None
    restarts: int = 0
    ready: bool = False
    started: bool = False
    never_ran: bool = False
    earlier_run_seconds: float = 0.0

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def is_running(self) -> bool:
        """Returns whether an attempt runs now."""
        return self.current is not None and self.current.finished_at is None

    def begin(self, pod_uid: str, behavior: PodBehavior, now: datetime) -> ContainerAttempt:
        """Starts the next attempt."""
        if self.current is not None:
            self.restarts += 1
            self.previous = self.current
            if (ended := self.current.finished_at) is not None:
                self.earlier_run_seconds += (ended - self.current.started_at).total_seconds()
        number = f"{pod_uid}/{self.name}/{self.restarts}"
        identifier = "containerd://" + hashlib.sha256(number.encode()).hexdigest()
        program = program_of(behavior, self.spec, is_main=self.role is not ContainerRole.INIT)
        self.current = ContainerAttempt(identifier, now, program)
        self.waiting = None
        self.ready = self.started = False
        return self.current

    def fail_to_start(self, pod_uid: str, behavior: PodBehavior, now: datetime, why: str) -> None:
        """Starts the next attempt, which fails to start its program."""
        attempt = self.begin(pod_uid, behavior, now)
        attempt.has_run, attempt.message = False, why
        self.end(now, START_FAILED, "StartError")
        self.waiting = ("RunContainerError", why)

    def end(self, now: datetime, exit_code: int, reason: str = "") -> None:
        """Ends the running attempt. The default `reason` follows from the exit code."""
        if self.current is not None and self.current.finished_at is None:
            self.current.finished_at = now
            self.current.exit_code = exit_code
            self.current.reason = reason or ("Completed" if exit_code == 0 else "Error")
            self.current.message = self.current.message or self.current.program.termination_message
            self.current.over.set()
        self.started = False
        self.ready = self.role is ContainerRole.INIT and exit_code == 0


def is_restarted(container: JsonObject, pod_policy: str, exit_code: int) -> bool:
    """Returns whether a main container restarts after an exit code: by its own rules and policy, or else the pod's."""
    for rule in container.get("restartPolicyRules") or []:
        codes = rule.get("exitCodes") or {}
        listed = exit_code in (codes.get("values") or [])
        if rule.get("action") == "Restart" and listed == (codes.get("operator") == "In"):
            return True
    policy = container.get("restartPolicy") or pod_policy
    return bool(policy == "Always" or (policy == "OnFailure" and exit_code != 0))


def containers_of(pod: JsonObject) -> list[RunningContainer]:
    """Returns the containers of a new pod, init containers first."""
    spec = pod["spec"]
    initial = spec.get("initContainers") or []
    waiting = ("PodInitializing", "") if initial else ("ContainerCreating", "")
    found = []
    for container in [*initial, *spec["containers"]]:
        role = ContainerRole.MAIN
        if any(container is entry for entry in initial):
            role = ContainerRole.SIDECAR if is_sidecar(container) else ContainerRole.INIT
        found.append(RunningContainer(container, role, image_id(container["image"]), waiting=waiting))
    return found


def restore(pod: JsonObject, behavior: PodBehavior) -> list[RunningContainer]:
    """Returns the containers of a restored pod, from its status."""
    status = pod["status"]
    known = {
        entry["name"]: entry
        for entry in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    }
    containers = containers_of(pod)
    for container in containers:
        entry = known.get(container.name)
        if entry is None:
            continue
        container.restarts = int(entry.get("restartCount", 0))
        container.ready, container.started = bool(entry.get("ready")), bool(entry.get("started"))
        program = program_of(behavior, container.spec, is_main=container.role is not ContainerRole.INIT)
        last = _attempt(entry.get("lastState") or {}, program)
        state = entry.get("state") or {}
        container.current = _attempt(state, program, entry.get("containerID", ""))
        if container.current is None:
            # The container waits, so the attempt that ended last is the newest one.
            container.current = last
            waiting = state.get("waiting") or {}
            container.waiting = (waiting.get("reason", ""), waiting.get("message", ""))
        else:
            container.previous, container.waiting = last, None
    return containers


def _attempt(state: JsonObject, program: PodProgram, container_id: str = "") -> ContainerAttempt | None:
    if "running" in state:
        return ContainerAttempt(container_id, parse_time(state["running"]["startedAt"]), program)
    ended = state.get("terminated")
    if not ended or not ended.get("startedAt"):
        return None
    attempt = ContainerAttempt(
        ended.get("containerID", ""),
        parse_time(ended["startedAt"]),
        program,
        parse_time(ended["finishedAt"]),
        int(ended["exitCode"]),
        ended.get("reason", ""),
    )
    attempt.over.set()
    return attempt


def image_id(image: str) -> str:
    """Returns a stable identifier of an image."""
    return "sha256:" + hashlib.sha256(image.encode()).hexdigest()


def _seconds(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
