"""Adopts drift: changes by others to a container's workload become the desired state.

adopt
    (pure) returns the container with the values of others. Fields that the model has are adopted one by one, so that
    unchanged fields keep their desired values. A field that only the cluster has becomes an extra field, as in an
    import.
adopt_allowed
    does the same, but only for values that the platform's rules allow and that grant nothing that needs a permission,
    because there is no caller who could have one. It also adds no variable that reads a secret or a config map.
store
    (in a transaction) writes the result. The cluster has the values already, so nothing is refused. If they exceed a
    quota, the quota only counts the present usage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from pilothouse_manifests.extra_fields import PathError, PathStep, overlap, parse
from pilothouse_manifests.paths import PathValue, adoptable, adoptable_setting
from pilothouse_server.containers import manifests, operations, repository, rules
from pilothouse_server.containers.guarding import gives_more_rights
from pilothouse_server.containers.model import Container, EnvVar, Program
from pilothouse_server.containers.workloads import workload_type
from pilothouse_server.errors import InvalidArgument
from pilothouse_server.importing.deployments import convert
from pilothouse_server.kubernetes import field_paths
from pilothouse_server.kubernetes.objects import Manifest
from pilothouse_server.kubernetes.ownership import MANAGED_BY, NAME
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.key_patterns import KeyPatterns

ADOPTED = "Adopted"
# The fields of a container that are adopted; all others keep their stored values.
_FIELDS = ("image", "env", "resources", "replicas", "labels", "annotations", "spec", "hold_rollout")
_SPEC = ".spec"
_OURS = frozenset({MANAGED_BY, NAME})
_METADATA = re.compile(r"(?P<place>.*?)\.metadata\.(?P<map>labels|annotations)\.(?P<key>.+)")


def adopt(container: Container, live: Manifest, paths: Iterable[str]) -> Container:
    """Returns the container with the fields at these paths of its workload as they are on the cluster."""
    paths = list(paths)
    there = _readable(container, live, paths)
    for path in paths:
        container = _adopt(container, there, live, path)
    return container


def adopt_allowed(
    container: Container, live: Manifest, paths: Sequence[str], guarded_keys: KeyPatterns
) -> Container:
    """Adopts fields as `adopt` does, without values that are not allowed.

    `guarded_keys`: annotations and labels of pods that other programs act on.
    """
    all_of_it = _allowed(container, adopt(container, live, paths), guarded_keys)
    if all_of_it is not None:
        return all_of_it
    there = _readable(container, live, paths)
    for path in paths:
        container = _allowed(container, _adopt(container, there, live, path), guarded_keys) or container
    return container


def _readable(container: Container, live: Manifest, paths: Iterable[str]) -> Container:
    """Returns the workload's values, without fields that others added and that the model lacks."""
    said = manifests.workload(container)
    unreadable = [path for path in paths if not _has_field(container, path) and _is_added(said, path)]
    main = container.spec.pod_container_name
    whole = {**field_paths.without(live, unreadable), "kind": workload_type(container).kind}
    return convert(whole, main_program=main).container


def _allowed(container: Container, candidate: Container, guarded_keys: KeyPatterns) -> Container | None:
    """Returns the candidate if the platform's rules allow it and it gives no more rights; else None."""
    try:
        candidate = rules.checked(candidate)
    except InvalidArgument:
        return None
    return None if gives_more_rights(candidate, container, guarded_keys) else candidate


def _has_field(container: Container, path: str) -> bool:
    pod = _pod(container)
    if not path.startswith(f"{pod}."):
        return True
    found = adoptable(path.removeprefix(pod), container.spec.pod_container_name)
    return found is not None or _free_steps(path) is not None


def _template(container: Container) -> str:
    """Returns the path of the pod template."""
    return "".join(f".{step}" for step in workload_type(container).template)


def _pod(container: Container) -> str:
    return f"{_template(container)}.spec"


def _free_steps(path: str) -> tuple[PathStep, ...] | None:
    """Returns the steps of a path that may be an extra field; None if a field of the API has this path."""
    try:
        return parse(path)
    except PathError:
        return None


def _is_added(said: Manifest, path: str) -> bool:
    return field_paths.find(said, path) is None


def is_adopted(container: Container, live: Manifest, path: str) -> bool:
    """Returns whether the desired state and the cluster agree on a field."""
    said, there = (field_paths.value_at(each, path) for each in (manifests.workload(container), live))
    # The API omits a field that is false.
    is_hold = path == workload_type(container).adopted_hold
    return bool(said) == bool(there) if is_hold else said == there


async def store(transaction: Transaction, stored: Container, there: Container, words: str) -> Container:
    """Writes `there` as the desired state: a new generation of the locked `stored`, with history and event.

    `words` describe the change in the history. The actor is the transaction's.
    """
    wanted = msgspec.structs.replace(stored, **{name: getattr(there, name) for name in _FIELDS})
    if wanted == stored:
        return stored
    told = msgspec.structs.replace(wanted.observed, reason=ADOPTED, message=words)
    change = repository.ContainerChange(
        stored=stored,
        wanted=wanted,
        moment=await transaction.moment(),
        quota=rules.quota_share(wanted),
        history=repository.HistoryLine(told, "system"),
    )
    return await operations.write_locked(transaction, change)


def _adopt(container: Container, there: Container, live: Manifest, path: str) -> Container:
    found = _METADATA.fullmatch(path)
    if found and found["place"] in ("", _template(container)):
        return _adopt_key(container, live, path, found["map"], found["key"])
    if path == workload_type(container).adopted_hold:
        return msgspec.structs.replace(container, hold_rollout=there.hold_rollout)
    value = _value(container, path)
    if value is None:
        return _adopt_extra(container, there, path)
    names = value.name.split(".")
    if value.programs:
        return _adopt_of_program(container, there, value)
    if names[0] == container.workload_kind:
        names[0] = "workload"
    if names[0] not in Container.__struct_fields__:
        names.insert(0, "spec")
    adopted = cast(Container, _with(container, there, names, value.item))
    return msgspec.structs.replace(adopted, resources=adopted.resources.each_once())


def _value(container: Container, path: str) -> PathValue | None:
    """Returns the value of a container that a field of its workload represents."""
    if path.startswith(_pod(container)):
        return adoptable(path.removeprefix(_pod(container)), container.spec.pod_container_name)
    if not path.startswith(_SPEC):
        return None
    return adoptable_setting(workload_type(container).part, path.removeprefix(_SPEC))


def _adopt_of_program(container: Container, there: Container, value: PathValue) -> Container:
    """Returns the container with a value of one of its other programs; a program that others added is not adopted."""
    theirs = {each.name: each for each in getattr(there.spec, value.programs)}
    if value.program not in theirs:
        return container

    def adopted(program: Program) -> Program:
        if program.name != value.program:
            return program
        return cast(Program, _with(program, theirs[value.program], value.name.split("."), value.item))

    programs = tuple(map(adopted, getattr(container.spec, value.programs)))
    spec: Any = {value.programs: programs}
    return msgspec.structs.replace(container, spec=msgspec.structs.replace(container.spec, **spec))


def _adopt_extra(container: Container, there: Container, path: str) -> Container:
    """Returns the container with the extra field at a path as on the cluster; without it if the cluster lacks it."""
    steps = _free_steps(path)
    if steps is None:
        return container
    extra = {
        each: text for each, text in container.spec.extra_fields.items() if not overlap(parse(each), steps)
    }
    extra |= {each: text for each, text in there.spec.extra_fields.items() if overlap(parse(each), steps)}
    return msgspec.structs.replace(
        container, spec=msgspec.structs.replace(container.spec, extra_fields=extra)
    )


def _with(ours: Any, theirs: Any, names: list[str], item: str) -> Any:
    """Returns `ours` with the value of `theirs` at a path; from a list or map, only the item with this name."""
    if not names:
        if isinstance(ours, dict) and item:
            return {
                key: value for key, value in {**ours, item: theirs.get(item)}.items() if value is not None
            }
        return _with_item(ours, theirs, item) if item else theirs
    name, *further = names
    changed = _with(getattr(ours, name), getattr(theirs, name), further, item)
    return msgspec.structs.replace(ours, **{name: changed})


def _with_item(ours: tuple[Any, ...], theirs: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    there = {item.name: item for item in theirs}
    if name not in {item.name for item in ours}:
        added = there.get(name)
        reads_others = isinstance(added, EnvVar) and added.value_from != "literal"
        return ours if added is None or reads_others else (*ours, added)
    kept = (there.get(name) if item.name == name else item for item in ours)
    return tuple(item for item in kept if item is not None)


def _adopt_key(container: Container, live: Manifest, path: str, name: str, key: str) -> Container:
    of_pods = path.startswith(_template(container))
    held = dict(getattr(container.spec, f"pod_{name}") if of_pods else getattr(container, name))
    value = field_paths.value_at(live, path)
    if key not in held and not (of_pods and value is not None and _may_be_added(container, path, key)):
        return container
    if value is None:
        del held[key]
    else:
        held[key] = value
    changed: dict[str, Any] = {f"pod_{name}" if of_pods else name: held}
    if of_pods:
        changed = {"spec": msgspec.structs.replace(container.spec, **changed)}
    return msgspec.structs.replace(container, **changed)


def _may_be_added(container: Container, path: str, key: str) -> bool:
    """Returns whether a key is not in the platform's manifest, and is not one that the platform sets."""
    return key not in _OURS and _is_added(manifests.workload(container), path)
