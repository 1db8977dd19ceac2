"""Has the server, and through it the cluster, check every step before the first one is taken.

Each step is sent with `validate_only`, several at a time. A refusal becomes a problem of its document, so that a file
is applied whole or not at all. Three kinds of refusal are no fault of a file:

- An object that it reads, mounts or takes over from another container is not there (or not free) yet because the same
  file brings it. Such references are left out of the trial (`checkable` of each kind), or the refusal is excused.
- The cluster is away or slow. In a real run the server accepts the step nevertheless and reconciles later.
- A concurrent change of another client was met.

Quota is counted over the sum of the steps, which no trial of one of them can.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from google.protobuf.message import Message

from pilothouse.resource.v1.resource_pb2 import Warning
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.apply import configs, execute, objects, services, volumes
from pilothouse_client.apply.brought import Brought
from pilothouse_client.apply.plan import Step
from pilothouse_client.apply.quota import shrinks
from pilothouse_client.errors import (
    AbortedError,
    DeadlineExceededError,
    PilothouseError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
)
from pilothouse_client.retry import RetryPolicy
from pilothouse_client.transport import BlockingTransport
from pilothouse_manifests.translator.nodes import InputPosition
from pilothouse_manifests.translator.problems import InputProblem, Problems

# The server holds a transaction and asks the cluster for each.
_AT_ONCE = 8
# The server gives its cluster ten seconds.
_SECONDS_EACH = 15.0
# A cluster that does not answer must not hold up a large file by the number of its steps.
_SECONDS_TO_BEGIN = 30.0


@dataclass(frozen=True, slots=True)
class ApplySteps:
    """Everything that one `apply` shall do, in the order of doing it; objects before and after the containers."""

    configs: Sequence[configs.ConfigStep]
    volumes: Sequence[volumes.VolumeStep]
    services: Sequence[services.ServiceStep]
    containers: Sequence[Step]
    objects: Sequence[objects.ObjectStep] = ()


@dataclass(slots=True)
class Trial:
    """The results of the trial, by the step's subject: the server's answers, its refusals, and why some were not
    judged. `warnings`: of the server and of the cluster's dry run, as the subject, its place and the text.
    """

    answers: dict[str, Message] = field(default_factory=dict)
    refused: dict[str, PilothouseError] = field(default_factory=dict)
    unjudged: dict[str, str] = field(default_factory=dict)
    warnings: list[InputProblem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Attempt:
    subject: str
    place: InputPosition
    call: Callable[[], Message]
    excuses: Callable[[PilothouseError], bool] = lambda _error: False
    warnings: list[Warning] = field(default_factory=list)
    # Where the fields that a container carries stand, by their paths.
    carried: Mapping[str, InputPosition] = field(default_factory=dict)


def try_out(client: Nouns[BlockingTransport], namespace: str, steps: ApplySteps, problems: Problems) -> Trial:
    """Tries every step; refusals are added to the problems.

    Raises:
        UnauthenticatedError: nothing more can be asked.
    """
    # One attempt each: that the cluster is away is an answer here, not something to wait for.
    patient = client.with_options(timeout=_SECONDS_EACH, retry=RetryPolicy(attempts=1))
    attempts = list(_attempts(patient, namespace, steps))
    trial = Trial()
    begun = time.monotonic()

    def attempt(one: _Attempt) -> Message | PilothouseError | None:
        if time.monotonic() - begun > _SECONDS_TO_BEGIN:
            return None
        try:
            return one.call()
        except PilothouseError as error:
            return error

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for one, outcome in zip(attempts, threads.map(attempt, attempts), strict=True):
            if outcome is None:
                trial.unjudged[one.subject] = "there was no time for it"
            elif isinstance(outcome, Message):
                trial.answers[one.subject] = outcome
                trial.warnings += [
                    InputProblem(one.place, one.subject, each.path, each.message) for each in one.warnings
                ]
            elif isinstance(outcome, UnauthenticatedError):
                raise outcome
            elif _says_nothing(outcome):
                trial.unjudged[one.subject] = str(outcome)
            elif not one.excuses(outcome):
                trial.refused[one.subject] = outcome
                _add(problems, one, outcome)
    return trial


def _attempts(client: Nouns[BlockingTransport], namespace: str, steps: ApplySteps) -> Iterable[_Attempt]:
    """Steps that change nothing have nothing to be refused."""
    brought = Brought.of(steps.configs, steps.volumes, steps.containers)
    smaller = any(shrinks(step) for step in steps.containers)
    for config in steps.configs:
        if config.before is None or config.update_mask:
            warnings = list[Warning]()
            yield _Attempt(
                config.subject,
                config.wanted.place,
                lambda step=config, warnings=warnings: configs.send(  # type: ignore[misc]
                    client.config, namespace, step, validate_only=True, warnings=warnings
                ),
                warnings=warnings,
            )
    for volume in steps.volumes:
        if volume.before is None or volume.update_mask:
            warnings = list[Warning]()
            yield _Attempt(
                volume.subject,
                volume.wanted.place,
                lambda step=volume, warnings=warnings: volumes.send(  # type: ignore[misc]
                    client.storage, namespace, step, validate_only=True, warnings=warnings
                ),
                lambda error, step=volume: brought.excuses_volume(step, error),  # type: ignore[misc]
                warnings,
            )
    for service in steps.services:
        if service.before is None or service.update_mask:
            warnings = list[Warning]()
            yield _Attempt(
                service.subject,
                service.wanted.place,
                lambda step=service, warnings=warnings: services.send(  # type: ignore[misc]
                    client.network, namespace, step, validate_only=True, warnings=warnings
                ),
                warnings=warnings,
            )
    yield from _of_objects(client, namespace, steps)
    for container in steps.containers:
        if container.before is None or container.update_mask:
            checked, warnings = brought.checkable(container), list[Warning]()
            yield _Attempt(
                container.subject,
                container.wanted.place,
                lambda step=checked, warnings=warnings: execute.send(  # type: ignore[misc]
                    client.containers, namespace, step, validate_only=True, warnings=warnings
                ),
                lambda error: brought.excuses_container(error, smaller=smaller),
                warnings,
                container.wanted.carried,
            )


def _of_objects(client: Nouns[BlockingTransport], namespace: str, steps: ApplySteps) -> Iterable[_Attempt]:
    brought = [step.name for step in steps.containers]
    for each in steps.objects:
        if each.before is None or each.changed:
            warnings = list[Warning]()
            yield _Attempt(
                each.subject,
                each.wanted.place,
                lambda step=each, warnings=warnings: objects.send(  # type: ignore[misc]
                    client.objects, namespace, step, validate_only=True, warnings=warnings
                ),
                lambda error, step=each: objects.excuses(step, error, steps.objects, brought),  # type: ignore[misc]
                warnings,
            )


def _says_nothing(error: PilothouseError) -> bool:
    """Returns whether a trial failed for a reason that has nothing to do with the step."""
    if isinstance(error, UnavailableError | DeadlineExceededError):
        return True
    if isinstance(error, AbortedError):
        return error.reason == "CONCURRENT_CHANGE"
    if isinstance(error, ResourceExhaustedError):
        # A rate, not a quota.
        return error.retry_delay is not None
    # The cluster does not accept the platform's credentials: away, as far as this file is concerned.
    return error.metadata.get("cluster_reason") == "Unauthorized"


def _add(problems: Problems, one: _Attempt, error: PilothouseError) -> None:
    headline, fields = error.message_and_violations
    if headline:
        problems.add(_problem(one, "", f"{headline} [{error.reason or error.code.name}]"))
    for violation in fields:
        problems.add(_problem(one, violation.field, violation.description))


def _problem(one: _Attempt, path: str, message: str) -> InputProblem:
    """A refusal of the server; that of a carried field has the manifest's path and place."""
    for carried, place in one.carried.items():
        field_name = f'container.extra_fields["{carried}"]'
        if path == field_name:
            return InputProblem(place, one.subject, carried, message)
        # An error of one field has it in its text alone.
        if not path and message.startswith(f"{field_name}: "):
            return InputProblem(place, one.subject, carried, message.removeprefix(f"{field_name}: "))
    return InputProblem(one.place, one.subject, path, message)
