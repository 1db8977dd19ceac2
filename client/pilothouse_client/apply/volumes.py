"""Volumes of an `apply`: planning and executing the steps.

They come after the config maps and secrets that they show, and before the containers that mount them. Claims are
documents of their own and are changed if they differ; a volume that only a pod implies is made if it is missing. A
required change of an immutable field is a problem.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.resource.v1.resource_pb2 import Warning
from pilothouse.storage.v1 import storage_pb2 as pb
from pilothouse_client.apply.canonical import amount
from pilothouse_client.apply.execute import ApplyOutcome, ends_the_run
from pilothouse_client.apply.messages import message
from pilothouse_client.apply.outcome import Say
from pilothouse_client.apply.plan import Action
from pilothouse_client.errors import PilothouseError
from pilothouse_client.nouns.storage import Storage
from pilothouse_client.transport import BlockingTransport
from pilothouse_manifests.translator.manifest import VolumeObject
from pilothouse_manifests.translator.problems import InputProblem, Problems

_SHOWN = (
    "name", "type", "storage_class", "size", "access_mode", "host_path", "source_name", "optional", "external",
    "labels", "annotations",
)  # fmt: skip
# Field of the message -> its place in a claim's document.
_FIXED = {
    "type": "",
    "storage_class": "spec.storageClassName",
    "access_mode": "spec.accessModes",
    "host_path": "",
    "source_name": "",
    "optional": "",
    "external": "",
}


@dataclass(frozen=True, slots=True)
class VolumeStep:
    """One volume: `before` is the server's, None if there is none; `update_mask` names the fields that are sent.

    `message`: the wanted object as a message.
    """

    wanted: VolumeObject
    message: pb.Volume
    before: pb.Volume | None = None
    update_mask: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return f"volume/{self.wanted.name}"

    @property
    def action(self) -> Action:
        if self.before is None:
            return Action.CREATE
        return Action.UPDATE if self.update_mask else Action.NOTHING


def plan_volumes(
    wanted: Iterable[VolumeObject], existing: Iterable[pb.Volume], problems: Problems
) -> list[VolumeStep]:
    """Returns one step each, in the given order; a volume that several pods imply is one."""
    on_server = {volume.name: volume for volume in existing if not volume.HasField("delete_time")}
    steps: dict[str, VolumeStep] = {}
    for each in wanted:
        first = steps.get(each.name)
        if first is not None:
            if first.wanted.values != each.values:
                words = f"another volume is called {each.name!r}; first at {first.wanted.place}"
                problems.add(InputProblem(each.place, each.reporter.subject, "", words))
            continue
        before = on_server.get(each.name)
        step = VolumeStep(each, message(pb.Volume, each.values), before)
        if before is not None:
            _check_fixed(step, before, problems)
            step = replace(step, update_mask=_mask(step, before))
        steps[each.name] = step
    return list(steps.values())


class VolumeExecutor:
    """Carries out steps in one namespace."""

    def __init__(
        self, storage: Storage[BlockingTransport], namespace: str, *, say: Say, complain: Say
    ) -> None:
        self._storage = storage
        self._namespace = namespace
        self._say = say
        self._complain = complain

    def carry_out(self, steps: Iterable[VolumeStep], outcome: ApplyOutcome) -> None:
        """Executes each step in order, with a line for each; the results are added to the outcome.

        Raises:
            UnauthenticatedError, UnavailableError: the server cannot be asked.
        """
        for step in steps:
            try:
                send(self._storage, self._namespace, step)
            except PilothouseError as error:
                if ends_the_run(error):
                    raise
                outcome.failed.append(step.subject)
                self._complain(f"{step.wanted.place}: {step.subject} failed: {error}")
                continue
            outcome.done[step.action] += 1
            self._say(f"{step.subject} {step.action.value}")


def send(
    storage: Storage[BlockingTransport],
    namespace: str,
    step: VolumeStep,
    *,
    validate_only: bool = False,
    warnings: list[Warning] | None = None,
) -> pb.Volume:
    """Sends one step to the server; returns the resulting volume, and adds the response's warnings to `warnings`.

    Raises PilothouseError.
    """
    before = step.before
    if before is not None and not step.update_mask:
        return before
    response: pb.CreateVolumeResponse | pb.UpdateVolumeResponse
    if before is None:
        response = storage.create_volume.send(
            pb.CreateVolumeRequest(namespace=namespace, volume=step.message, validate_only=validate_only)
        )
    else:
        response = storage.update_volume.send(
            pb.UpdateVolumeRequest(
                namespace=namespace,
                name=step.message.name,
                volume=step.message,
                update_mask=FieldMask(paths=step.update_mask),
                etag=before.etag,
                validate_only=validate_only,
            )
        )
    if warnings is not None:
        warnings.extend(response.warnings)
    return response.volume


def _check_fixed(step: VolumeStep, before: pb.Volume, problems: Problems) -> None:
    wanted = step.wanted
    for name, path in _FIXED.items():
        value = getattr(step.message, name)
        # An unstated field is left to the server.
        if not value or value == getattr(before, name):
            continue
        current = json_format.MessageToDict(before, preserving_proto_field_name=True).get(name, "")
        words = f"volume {wanted.name!r} cannot be changed: its {name} is {current!r} on the server; delete it first"
        problems.add(InputProblem(wanted.place, wanted.reporter.subject, path, words))


def _mask(step: VolumeStep, before: pb.Volume) -> tuple[str, ...]:
    if step.wanted.implied:
        return ()
    wanted = step.message
    paths = [name for name in ("labels", "annotations") if getattr(before, name) != getattr(wanted, name)]
    if amount(before.size, "1") != amount(wanted.size, "1"):
        paths.insert(0, "size")
    return tuple(paths)


def difference(step: VolumeStep) -> str:
    """Returns a unified diff from the server's present state to the desired one, as YAML."""
    before, after = step.before, pb.Volume()
    after.CopyFrom(step.message if before is None else before)
    for name in step.update_mask:
        after.ClearField(name)  # type: ignore[arg-type]
        after.MergeFrom(_only(step.message, name))
    lines = difflib.unified_diff(
        [] if before is None else _lines(before),
        _lines(after),
        "/dev/null" if before is None else f"{step.subject} (server)",
        f"{step.subject} ({step.wanted.place})",
    )
    return "".join(lines)


def _only(volume: pb.Volume, name: str) -> pb.Volume:
    return pb.Volume(**{name: getattr(volume, name)})


def _lines(volume: pb.Volume) -> list[str]:
    fields: dict[str, Any] = json_format.MessageToDict(volume, preserving_proto_field_name=True)
    shown = {name: fields[name] for name in _SHOWN if name in fields}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100).splitlines(keepends=True)
