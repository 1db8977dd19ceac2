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
    """What came of an `apply`.

    `applied`: the containers as the server answered them, or as they were where nothing had to be done.
    """

    applied: dict[str, pb.Container] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    done: Counter[Action] = field(default_factory=Counter)
    # Kind and name of the config maps and secrets that were made.
    made_configs: set[tuple[str, str]] = field(default_factory=set)
    # Names of the volumes that were made.
    made_volumes: set[str] = field(default_factory=set)

    @property
    def summary(self) -> str:
        """How many objects had which fate, such as `2 created, 1 unchanged, 1 failed`."""
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

    def carry_out(self, steps: Iterable[Step], outcome: Outcome) -> None:
        """Each step in order, with a line for each; what came of it is added to the outcome.

        Raises:
            UnauthenticatedError, UnavailableError: the server cannot be asked; the lines said tell what was done.
        """
        suffix = " (dry run)" if self._dry_run else ""
        for step in steps:
            if self._dry_run and step.action is not Action.NOTHING:
                self._say(difference(step).rstrip("\n"))
            try:
                container = self._carry_out(step, outcome)
            except PilothouseError as error:
                if ends_the_run(error):
                    raise
                outcome.failed.append(step.name)
                self._complain(f"{step.wanted.place}: container/{step.name} failed: {error}")
            else:
                outcome.applied[step.name] = container
                outcome.done[step.action] += 1
                self._say(f"container/{step.name} {step.action.value}{suffix}")

    def _carry_out(self, step: Step, outcome: Outcome) -> pb.Container:
        container = _without_made(step.wanted.container, outcome) if self._dry_run else step.wanted.container
        if step.before is None:
            return self._containers.create(
                namespace=self._namespace, container=container, validate_only=self._dry_run
            )
        if step.action is Action.NOTHING:
            return step.before
        return self._containers.update(
            namespace=self._namespace,
            name=step.name,
            container=container,
            update_mask=FieldMask(paths=step.update_mask),
            etag=step.before.etag,
            validate_only=self._dry_run,
        )


def _without_made(container: pb.Container, outcome: Outcome) -> pb.Container:
    """The container as a server can check it that has not got what this dry run would have made first."""
    kinds = {pb.ENV_VALUE_FROM_CONFIG_MAP: "config_map", pb.ENV_VALUE_FROM_SECRET: "secret"}
    checked = pb.Container()
    checked.CopyFrom(container)
    for variables in (checked.env, *(init.env for init in checked.init_containers)):
        for variable in variables:
            if (kinds.get(variable.value_from, ""), variable.source_name) in outcome.made_configs:
                variable.optional = True
    mounted = {mount.volume for mount in checked.volume_mounts}
    mounted |= {mount.volume for init in checked.init_containers for mount in init.volume_mounts}
    # A folder of its own stands for a volume that is not there yet: what is checked is where it is mounted.
    checked.empty_dirs.extend(pb.EmptyDir(name=name) for name in sorted(mounted & outcome.made_volumes))
    return checked


def ends_the_run(error: PilothouseError) -> bool:
    """Whether every further call would fail as this one did."""
    return isinstance(error, UnauthenticatedError) or (
        isinstance(error, UnavailableError) and not error.from_server
    )
