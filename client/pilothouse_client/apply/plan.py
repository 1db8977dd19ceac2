"""The steps that bring the server to the state of the manifest.

Each container is made, changed in the fields that differ and no others, or left alone. Applying the same input again
therefore does nothing. A change carries the etag that it was planned against, so a concurrent change by another
client is not overwritten unseen.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import yaml
from google.protobuf import json_format

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply.canonical import DECIDED_FIELDS, RESOURCE_PARTS, canonical
from pilothouse_client.apply.messages import message
from pilothouse_manifests.cron_jobs import ALLOW
from pilothouse_manifests.table import key_of
from pilothouse_manifests.translator.attach import WantedContainer, in_order_of_services
from pilothouse_manifests.translator.problems import InputProblem, Problems
from pilothouse_manifests.workloads import FIXED_SETTINGS, STATEFUL_SET_SETTINGS, WORKLOAD_PARTS

# The fields of the oneof `workload`, and the kinds that they are in Kubernetes.
_STATEFUL_SET = "stateful_set"
_KINDS = {part.name: kind for kind, part in WORKLOAD_PARTS.items()}
_SHOWN_FIELDS = ("name", *DECIDED_FIELDS, "selector", "pod_container_name")


class Action(enum.Enum):
    """The change of one container; the value is its past participle for the output."""

    CREATE = "created"
    UPDATE = "updated"
    # Updated, with a new object on the cluster.
    REPLACE = "replaced"
    NOTHING = "unchanged"


@dataclass(frozen=True, slots=True)
class Step:
    """One container: `before` is the server's, None if there is none; `update_mask` names the fields that differ.

    `container`: the wanted one as a message.
    """

    wanted: WantedContainer
    container: pb.Container
    action: Action
    before: pb.Container | None = None
    update_mask: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.wanted.name

    @property
    def subject(self) -> str:
        return f"container/{self.name}"


def plan(
    wanted: Iterable[WantedContainer],
    existing: Sequence[pb.Container],
    problems: Problems,
    *,
    replace: bool = False,
) -> list[Step]:
    """Returns one step per container. `replace`: a setting that is immutable on the cluster may change.

    If a service moves between containers, its old container is updated first. Two containers that
    exchange services have no such order: the server refuses the first update, by name.
    """
    on_server = {container.name: container for container in existing}
    return [
        _step(each, on_server.get(each.name), problems, replace=replace)
        for each in in_order_of_services(list(wanted))
    ]


def _step(wanted: WantedContainer, before: pb.Container | None, problems: Problems, *, replace: bool) -> Step:
    container = message(pb.Container, wanted.values)
    if before is None:
        return Step(wanted, container, Action.CREATE)
    _check_name(wanted, before, problems)
    _check_selector(wanted, before, problems)
    if wanted.fields is None and _kind(before) != _kind(container):
        words = (
            f"cannot be changed: it is a {_KINDS[_kind(before)]} on the server; delete the container first"
        )
        problems.add(InputProblem(wanted.place, wanted.subject, "kind", words))
        return Step(wanted, container, Action.NOTHING, before)
    if before.cron_job.HasField("max_concurrent") and container.cron_job.concurrency in ("", ALLOW):
        # No field of a manifest.
        container.cron_job.max_concurrent = before.cron_job.max_concurrent
    mask = _changed_fields(before, container, wanted.fields)
    action = Action.UPDATE if mask else Action.NOTHING
    fixed = _fixed(before, container) if _STATEFUL_SET in mask else ()
    if fixed and replace:
        action = Action.REPLACE
    elif fixed:
        path = f"spec.{key_of(STATEFUL_SET_SETTINGS, f'{_STATEFUL_SET}.{fixed[0]}')}"
        words = (
            "immutable in a StatefulSet that exists; --replace deletes it, without its pods and claims, and "
            "creates it again"
        )
        problems.add(InputProblem(wanted.place, wanted.subject, path, words))
    return Step(wanted, container, action, before, mask)


def _kind(container: pb.Container) -> str:
    return container.WhichOneof("workload") or "deployment"


def _fixed(before: pb.Container, wanted: pb.Container) -> tuple[str, ...]:
    """Returns the settings that differ and that only a new StatefulSet can have."""
    old, new = canonical(before).stateful_set, canonical(wanted).stateful_set
    return tuple(name for name in FIXED_SETTINGS if getattr(old, name) != getattr(new, name))


def _check_name(wanted: WantedContainer, before: pb.Container, problems: Problems) -> None:
    name = wanted.values.get("pod_container_name")
    current = before.pod_container_name or "main"
    if wanted.fields is None and name and name != current:
        words = f"cannot be changed: it is {current!r} on the server; delete the container first"
        path = "spec.template.spec.containers[0].name"
        problems.add(InputProblem(wanted.place, wanted.subject, path, words))


def _check_selector(wanted: WantedContainer, before: pb.Container, problems: Problems) -> None:
    """Notes another selector. A container that is older than the field selects by the platform's label alone."""
    current, stated = dict(before.selector), wanted.values.get("selector")
    if wanted.fields is None and current and stated != current:
        shown = ", ".join(f"{key}={text}" for key, text in sorted(current.items()))
        words = f"cannot be changed: it is {shown} on the server; delete the container first"
        problems.add(InputProblem(wanted.place, wanted.subject, "spec.selector.matchLabels", words))


def _changed_fields(
    before: pb.Container, wanted: pb.Container, fields: frozenset[str] | None
) -> tuple[str, ...]:
    """Returns the update mask: the paths of the fields that differ.

    For `resources` these are its parts, such as `resources.cpu_limit`.
    """
    old, new = canonical(before), canonical(wanted)
    paths: list[str] = []
    for name in DECIDED_FIELDS:
        if fields is not None and name not in fields:
            continue
        if name == "replicas" and not wanted.HasField("replicas"):
            continue
        if name == "resources":
            parts = [
                part
                for part in RESOURCE_PARTS
                if getattr(old.resources, part) != getattr(new.resources, part)
            ]
            paths.extend(f"resources.{part}" for part in parts)
        elif getattr(old, name) != getattr(new, name):
            paths.append(name)
    return tuple(paths)


def difference(step: Step) -> str:
    """Returns a unified diff from the server's present state to the desired one, as YAML; empty if nothing
    changes.
    """
    if step.action is Action.NOTHING:
        return ""
    before = {} if step.before is None else _shown(step.before)
    after = _shown(step.container) if step.before is None else dict(before)
    wanted = _shown(step.container)
    for path in step.update_mask:
        name = path.partition(".")[0]
        if name in wanted:
            after[name] = wanted[name]
        else:
            after.pop(name, None)
    after = {name: after[name] for name in _SHOWN_FIELDS if name in after}
    lines = difflib.unified_diff(
        _lines(before),
        _lines(after),
        f"container/{step.name} (server)" if step.before is not None else "/dev/null",
        f"container/{step.name} ({step.wanted.place})",
    )
    return "".join(lines)


def _shown(container: pb.Container) -> dict[str, object]:
    fields = json_format.MessageToDict(container, preserving_proto_field_name=True)
    return {name: fields[name] for name in _SHOWN_FIELDS if name in fields}


def _lines(fields: dict[str, object]) -> list[str]:
    if not fields:
        return []
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100).splitlines(keepends=True)
