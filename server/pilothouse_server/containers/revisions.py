"""Revisions of a container: its successive desired states.

Revisions are for comparison and rollback. Every change of a field that callers set creates a revision: by an update, a
scale, an import, or values of others that the policy ADOPT takes over. Starting, stopping, pausing, restarting and
running create none, because they change no such field.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from pilothouse_server.containers.model import (
    Container,
    ContainerSpec,
    DriftPolicy,
    EnvVar,
    Port,
    Resources,
    Value,
)
from pilothouse_server.revisions.model import RevisedResource
from pilothouse_server.values.volumes import VolumeMount

# The default number of revisions that are kept.
_REVISIONS_KEPT = 20
# Fields of the spec that only the platform sets; a rollback does not change them.
_OWN: Final = ("run", "restarted_at", "replaced_generation", "taken_over", "rights", "most_replicas")


class DesiredFields(Value, frozen=True):
    """The fields that callers set, as a revision stores them.

    `Container` documents each field. Fields may be added with a default, never renamed, as in `model`.
    """

    image: str
    display_name: str = ""
    env: tuple[EnvVar, ...] = ()
    ports: tuple[Port, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    resources: Resources = Resources()
    replicas: int = 1
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    annotations: dict[str, str] = msgspec.field(default_factory=dict)
    spec: ContainerSpec = ContainerSpec()
    drift_policy: DriftPolicy = "repair"


class RollbackChoice(NamedTuple):
    """The revision that a rollback restores.

    `number`: 0 is the revision before the newest. `rerun`: a Job starts a new run. `replace`: a StatefulSet whose
    immutable settings differ is created again.
    """

    number: int
    rerun: bool
    replace: bool


class Rollback(NamedTuple):
    """A container after and before a rollback, and the number of the revision that was restored."""

    container: Container
    before: Container
    origin: int


_DESIRED = tuple(name for name in DesiredFields.__struct_fields__ if name != "spec")
_WITHOUT_OWN = {name: getattr(ContainerSpec(), name) for name in _OWN}


def revisions_kept(container: Container) -> int:
    """Returns how many revisions of a container are kept, the newest included."""
    kept = container.spec.revisions_kept
    return _REVISIONS_KEPT if kept is None else kept


def revised(container: Container) -> RevisedResource:
    """Returns the resource that the container's revisions belong to."""
    return RevisedResource("container", container.id, container.uid, container.namespace_id)


def desired_fields(container: Container) -> DesiredFields:
    """Returns the fields of a container that callers set."""
    return DesiredFields(
        **{name: getattr(container, name) for name in _DESIRED},
        spec=msgspec.structs.replace(container.spec, **_WITHOUT_OWN),
    )


def restored(container: Container, desired: DesiredFields) -> Container:
    """Returns a container with all fields that callers set from `desired`, and with its own other fields."""
    own = {name: getattr(container.spec, name) for name in _OWN}
    return msgspec.structs.replace(
        container,
        **{name: getattr(desired, name) for name in _DESIRED},
        spec=msgspec.structs.replace(desired.spec, **own),
    )


def not_restored(container: Container) -> list[str]:
    """Returns the parts that a rollback does not change: data in volumes, values of config maps and secrets."""
    found = [f"data of volume {name}" for name in sorted({volume.name for volume in container.volumes})]
    found += [f"data of the claims {name}" for name in container.spec.claims]
    named = {(item.value_from, item.source_name) for item in container.all_variables if item.source_name}
    for _, program in container.programs():
        named.update((item.value_from, item.source_name) for item in program.env_from)
    words = {"config_map": "config map", "secret": "secret"}
    found += [f"values of {words[kind]} {name}" for kind, name in sorted(named) if kind in words]
    return found
