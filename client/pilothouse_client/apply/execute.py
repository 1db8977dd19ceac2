"""Brings the planned steps to the server, one container at a time.

A container that the server refuses does not keep the others from being applied: each is one transaction of
its own there, as each object is to Kubernetes. Only what makes every further call fail as well (no session,
no connection) ends the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply.plan import Action, Step, difference
from pilothouse_client.errors import PilothouseError, UnauthenticatedError, UnavailableError
from pilothouse_client.nouns.containers import Containers
from pilothouse_client.transport import BlockingTransport

Say = Callable[[str], None]


@dataclass(slots=True)
class Outcome:
    """`applied`: the containers as the server answered them, or as they were where nothing had to be done."""

    applied: dict[str, pb.Container] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    done: Counter[Action] = field(default_factory=Counter)

    @property
    def summary(self) -> str:
        """How many containers had which fate, such as `2 created, 1 unchanged, 1 failed`."""
        counts = [(self.done[action], action.value) for action in Action] + [(len(self.failed), "failed")]
        return ", ".join(f"{count} {word}" for count, word in counts if count) or "nothing to apply"


class Executor:
    """Carries out steps in one namespace. With `dry_run` the server checks everything and writes nothing."""

    def __init__(
        self,
        containers: Containers[BlockingTransport],
        namespace: str,
        *,
        dry_run: bool,
        say: Say,
        complain: Say,
    ) -> None:
        self._containers = containers
        self._namespace = namespace
        self._dry_run = dry_run
        self._say = say
        self._complain = complain

    def carry_out(self, steps: Iterable[Step]) -> Outcome:
        """Each step in order, with a line for each.

        Raises:
            UnauthenticatedError, UnavailableError: the server cannot be asked; the lines said tell what was done.
        """
        outcome = Outcome()
        suffix = " (dry run)" if self._dry_run else ""
        for step in steps:
            if self._dry_run and step.action is not Action.NOTHING:
                self._say(difference(step).rstrip("\n"))
            try:
                container = self._carry_out(step)
            except PilothouseError as error:
                if _ends_the_run(error):
                    raise
                outcome.failed.append(step.name)
                self._complain(f"{step.wanted.place}: container/{step.name} failed: {error}")
            else:
                outcome.applied[step.name] = container
                outcome.done[step.action] += 1
                self._say(f"container/{step.name} {step.action.value}{suffix}")
        return outcome

    def _carry_out(self, step: Step) -> pb.Container:
        if step.before is None:
            return self._containers.create(
                namespace=self._namespace, container=step.wanted.container, validate_only=self._dry_run
            )
        if step.action is Action.NOTHING:
            return step.before
        return self._containers.update(
            namespace=self._namespace,
            name=step.name,
            container=step.wanted.container,
            update_mask=FieldMask(paths=step.update_mask),
            etag=step.before.etag,
            validate_only=self._dry_run,
        )


def _ends_the_run(error: PilothouseError) -> bool:
    return isinstance(error, UnauthenticatedError) or (
        isinstance(error, UnavailableError) and not error.from_server
    )
