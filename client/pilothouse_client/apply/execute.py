"""Brings the planned steps to the server, one container at a time.

All of them passed a trial before. If the server nevertheless refuses one, because something changed in between, the
others are still applied: each is one transaction of its own there, as each object is to Kubernetes. Only a failure
that makes every further call fail as well (no session, no connection) ends the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1.resource_pb2 import Warning
from pilothouse_client.apply.outcome import Say
from pilothouse_client.apply.plan import Action, Step
from pilothouse_client.errors import PilothouseError, UnauthenticatedError, UnavailableError
from pilothouse_client.nouns.containers import Containers
from pilothouse_client.transport import BlockingTransport


@dataclass(slots=True)
class ApplyOutcome:
    """The results of an `apply`.

    `applied`: the containers as the server answered them, or as they were if nothing had to be done.
    """

    applied: dict[str, pb.Container] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    done: Counter[Action] = field(default_factory=Counter)

    @property
    def summary(self) -> str:
        """How many objects had which fate, such as `2 created, 1 unchanged, 1 failed`."""
        counts = [(self.done[action], action.value) for action in Action] + [(len(self.failed), "failed")]
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "nothing to apply"


class Executor:
    """Carries out steps in one namespace."""

    def __init__(
        self, containers: Containers[BlockingTransport], namespace: str, *, say: Say, complain: Say
    ) -> None:
        self._containers = containers
        self._namespace = namespace
        self._say = say
        self._complain = complain

    def carry_out(self, steps: Iterable[Step], outcome: ApplyOutcome) -> None:
        """Executes each step in order, with a line for each; the results are added to the outcome.

        Raises:
            UnauthenticatedError, UnavailableError: the server cannot be asked; the printed lines show the completed
                steps.
        """
        for step in steps:
            try:
                container = send(self._containers, self._namespace, step)
            except PilothouseError as error:
                if ends_the_run(error):
                    raise
                outcome.failed.append(step.name)
                self._complain(f"{step.wanted.place}: {step.subject} failed: {error}")
            else:
                outcome.applied[step.name] = container
                outcome.done[step.action] += 1
                self._say(line(step))


def line(step: Step) -> str:
    """Returns the result for a container, and for the Services and ServiceAccounts that are part of it here."""
    along = f" (with {', '.join(step.wanted.along)})" if step.wanted.along else ""
    around = ": a new StatefulSet around its pods and claims" if step.action is Action.REPLACE else ""
    return f"{step.subject} {step.action.value}{along}{around}{_of_runs(step)}"


def _of_runs(step: Step) -> str:
    """A Job's run is as it was made, so that a change waits for the next one; the next of a CronJob comes."""
    changed = {path.partition(".")[0] for path in step.update_mask} - {"labels", "annotations"}
    if step.before is None or not changed or not step.container.HasField("job"):
        return ""
    return f": starts no run by itself; `pilothouse containers run {step.name}` does"


def send(
    containers: Containers[BlockingTransport],
    namespace: str,
    step: Step,
    *,
    validate_only: bool = False,
    warnings: list[Warning] | None = None,
) -> pb.Container:
    """Sends one step to the server; returns the resulting container, and adds the warnings of the response to
    `warnings`. Raises PilothouseError."""
    if step.before is not None and step.action is Action.NOTHING:
        return step.before
    response: pb.CreateContainerResponse | pb.UpdateContainerResponse
    if step.before is None:
        response = containers.create.send(
            pb.CreateContainerRequest(
                namespace=namespace, container=step.container, validate_only=validate_only
            )
        )
    else:
        response = containers.update.send(
            pb.UpdateContainerRequest(
                namespace=namespace,
                name=step.name,
                container=step.container,
                update_mask=FieldMask(paths=step.update_mask),
                etag=step.before.etag,
                replace=step.action is Action.REPLACE,
                validate_only=validate_only,
            )
        )
    if warnings is not None:
        warnings.extend(response.warnings)
    return response.container


def ends_the_run(error: PilothouseError) -> bool:
    """Whether every further call would fail as this one did."""
    return isinstance(error, UnauthenticatedError) or (
        isinstance(error, UnavailableError) and not error.from_server
    )
