"""Carried objects of an `apply`: planned, tried and sent.

A document is compared as JSON values with the one that the server has, so that spelling and order are no change.
Objects that need something of the same file come after it: routes and autoscalers after the containers, bindings after
Roles.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse.resource.v1.resource_pb2 import Warning
from pilothouse_client.apply.execute import ApplyOutcome, ends_the_run
from pilothouse_client.apply.outcome import Say
from pilothouse_client.apply.plan import Action
from pilothouse_client.errors import PilothouseError
from pilothouse_client.nouns.objects import CarriedObjects
from pilothouse_client.transport import BlockingTransport
from pilothouse_manifests.carried import group_of
from pilothouse_manifests.translator.manifest import ManifestObject

# Objects that containers need come before them; the rest is in the order of the files, after them.
_BEFORE_CONTAINERS = ("ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "PodDisruptionBudget")
_ROLE_NAME, _SCALE_TARGET = "object.document.roleRef.name", "object.document.spec.scaleTargetRef"


@dataclass(frozen=True, slots=True)
class ObjectStep:
    """One object: `before` is the server's, None if there is none; `changed`: its document differs."""

    wanted: ManifestObject
    before: pb.Object | None = None
    changed: bool = False

    @property
    def subject(self) -> str:
        return self.wanted.reporter.subject

    @property
    def action(self) -> Action:
        if self.before is None:
            return Action.CREATE
        return Action.UPDATE if self.changed else Action.NOTHING

    @property
    def comes_first(self) -> bool:
        """Whether it is sent before the containers."""
        return self.wanted.kind in _BEFORE_CONTAINERS

    @property
    def text(self) -> str:
        """The document as the server takes it."""
        return json.dumps(self.wanted.document, ensure_ascii=False)


def plan_objects(wanted: Iterable[ManifestObject], existing: Iterable[pb.Object]) -> list[ObjectStep]:
    """One step each, in the order of sending."""
    on_server = {
        (each.api_group, each.kind, each.name): each for each in existing if not each.HasField("delete_time")
    }
    steps = []
    for each in wanted:
        before = on_server.get((group_of(each.api_version), each.kind, each.name))
        changed = before is not None and json.loads(before.document) != each.document
        steps.append(ObjectStep(each, before, changed))
    return sorted(steps, key=_place)


def _place(step: ObjectStep) -> int:
    kind = step.wanted.kind
    return _BEFORE_CONTAINERS.index(kind) if step.comes_first else len(_BEFORE_CONTAINERS)


def excuses(
    step: ObjectStep, error: PilothouseError, steps: Sequence[ObjectStep], containers: Iterable[str]
) -> bool:
    """Returns whether a trial was refused only because the same file brings a Role or a container.

    The Role is tried by itself, with the same permissions.
    """
    field = error.metadata.get("field", "")
    if field == _ROLE_NAME:
        named = step.wanted.document.get("roleRef", {}).get("name")
        return any(each.wanted.kind == "Role" and each.wanted.name == named for each in steps)
    if field == _SCALE_TARGET:
        return step.wanted.document.get("spec", {}).get("scaleTargetRef", {}).get("name") in set(containers)
    return False


class ObjectExecutor:
    """Carries out steps in one namespace."""

    def __init__(
        self, objects: CarriedObjects[BlockingTransport], namespace: str, *, say: Say, complain: Say
    ) -> None:
        self._objects = objects
        self._namespace = namespace
        self._say = say
        self._complain = complain

    def carry_out(self, steps: Iterable[ObjectStep], outcome: ApplyOutcome) -> None:
        """Sends each step in order, with a line for each, and adds its result to the outcome.

        Raises:
            UnauthenticatedError, UnavailableError: the server cannot be asked.
        """
        for step in steps:
            try:
                send(self._objects, self._namespace, step)
            except PilothouseError as error:
                if ends_the_run(error):
                    raise
                outcome.failed.append(step.subject)
                self._complain(f"{step.wanted.place}: {step.subject} failed: {error}")
                continue
            outcome.done[step.action] += 1
            self._say(f"{step.subject} {step.action.value}")


def send(
    objects: CarriedObjects[BlockingTransport],
    namespace: str,
    step: ObjectStep,
    *,
    validate_only: bool = False,
    warnings: list[Warning] | None = None,
) -> pb.Object:
    """Sends one step to the server, and returns the object then; adds the response's warnings to `warnings`.

    Raises PilothouseError.
    """
    before, wanted = step.before, step.wanted
    if before is not None and not step.changed:
        return before
    response: pb.CreateObjectResponse | pb.UpdateObjectResponse
    if before is None:
        response = objects.create.send(
            pb.CreateObjectRequest(
                namespace=namespace, object=pb.Object(document=step.text), validate_only=validate_only
            )
        )
    else:
        response = objects.update.send(
            pb.UpdateObjectRequest(
                namespace=namespace,
                api_version=before.api_version,
                kind=before.kind,
                name=wanted.name,
                object=pb.Object(document=step.text),
                update_mask=FieldMask(paths=["document"]),
                etag=before.etag,
                validate_only=validate_only,
            )
        )
    if warnings is not None:
        warnings.extend(response.warnings)
    return response.object


def difference(step: ObjectStep) -> str:
    """A unified diff from the server's document to the wanted one, as YAML."""
    before = step.before
    lines = difflib.unified_diff(
        [] if before is None else _lines(json.loads(before.document)),
        _lines(step.wanted.document),
        "/dev/null" if before is None else f"{step.subject} (server)",
        f"{step.subject} ({step.wanted.place})",
    )
    return "".join(lines)


def _lines(document: dict[str, Any]) -> list[str]:
    return yaml.safe_dump(document, allow_unicode=True, width=100).splitlines(keepends=True)
