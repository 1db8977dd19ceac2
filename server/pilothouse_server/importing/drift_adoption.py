"""Drift that is adopted: what others changed on a container's Deployment becomes what is wanted.

adopt    (pure) the container with their values. Every field of ours that can drift has its place in the model, or
         none; those that have one are taken over each by itself, so that what nobody changed stays as it was asked
         for. A label or annotation of a container stands on its pods too, so that adopting one rolls them.
store    (in a transaction) writes it. The cluster has it already, so nothing is refused here: a quota that is
         passed by it counts what there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from pilothouse_manifests.paths import adoptable
from pilothouse_server.containers import manifests, operations, repository, rules
from pilothouse_server.containers.model import Container
from pilothouse_server.importing.deployments import convert
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.image_reference import ImageReference

ADOPTED = "Adopted"
# The part of a container that is taken over; all else is as stored.
_FIELDS = ("image", "env", "resources", "replicas", "labels", "annotations", "spec", "hold_rollout")
_POD = ".spec.template.spec"
_PAUSED = f".spec.{manifests.PAUSED}"
_METADATA = re.compile(r"(?:\.spec\.template)?\.metadata\.(?P<map>labels|annotations)\.(?P<key>.+)")


def adopt(container: Container, live: Manifest, paths: Iterable[str]) -> Container:
    """The container with the fields at these paths of its Deployment as they are on the cluster."""
    there = convert(live).container
    for path in paths:
        container = _adopt(container, there, live, path)
    return container


def is_adopted(container: Container, live: Manifest, path: str) -> bool:
    """Whether what is wanted says the same of a field as the cluster does."""
    said, there = (field_paths.value_at(each, path) for each in (manifests.deployment(container), live))
    # The API does not write what is false.
    return said == there if path != _PAUSED else bool(said) == bool(there)


async def store(transaction: Transaction, stored: Container, there: Container, words: str) -> Container:
    """Write what `there` wants as a new generation of the locked `stored`, with history and event.

    `words` say what was taken over, for the history. The actor is the transaction's.
    """
    wanted = msgspec.structs.replace(stored, **{name: getattr(there, name) for name in _FIELDS})
    if wanted == stored:
        return stored
    image_id = None
    if wanted.image != stored.image:
        image_id = await repository.register_image(transaction, ImageReference.parse(wanted.image))
    written = await repository.update_container(
        transaction,
        stored,
        wanted,
        image_id=image_id,
        quota=rules.quota_share(wanted),
        generation=stored.generation + 1,
    )
    told = msgspec.structs.replace(written.observed, reason=ADOPTED, message=words)
    await repository.add_history(
        transaction, msgspec.structs.replace(written, observed=told), stored.observed.status, "system"
    )
    transaction.emit(operations.event(written, "modified", stored))
    await transaction.enqueue("container", written.id, written.cluster_name, written.namespace_id)
    return written


def _adopt(container: Container, there: Container, live: Manifest, path: str) -> Container:
    if found := _METADATA.fullmatch(path):
        return _adopt_key(container, live, path, found["map"], found["key"])
    if path == _PAUSED:
        return msgspec.structs.replace(container, hold_rollout=there.hold_rollout)
    if not path.startswith(_POD):
        return container
    value = adoptable(path.removeprefix(_POD), container.spec.pod_container_name)
    if value is None:
        return container
    names = value.name.split(".")
    if names[0] not in Container.__struct_fields__:
        names.insert(0, "spec")
    return cast(Container, _with(container, there, names, value.item))


def _with(ours: Any, theirs: Any, names: list[str], item: str) -> Any:
    """Our value with theirs at a place within; of a list there, with the item of this name alone."""
    if not names:
        return _with_item(ours, theirs, item) if item else theirs
    name, *further = names
    changed = _with(getattr(ours, name), getattr(theirs, name), further, item)
    return msgspec.structs.replace(ours, **{name: changed})


def _with_item(ours: tuple[Any, ...], theirs: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    there = {item.name: item for item in theirs}
    kept = (there.get(name) if item.name == name else item for item in ours)
    return tuple(item for item in kept if item is not None)


def _adopt_key(container: Container, live: Manifest, path: str, name: str, key: str) -> Container:
    held: dict[str, str] = dict(getattr(container, name))
    if key not in held or (container.spec.taken_over is not None and path.startswith(".spec.template")):
        # One that the platform sets, or that an imported Deployment's pods keep.
        return container
    value = field_paths.value_at(live, path)
    if value is None:
        del held[key]
    else:
        held[key] = value
    changed: dict[str, Any] = {name: held}
    return msgspec.structs.replace(container, **changed)
