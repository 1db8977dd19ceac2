"""The differences between objects that documents ask for and those that a namespace has.

Each object is compared in the form of its noun, after the noun's own rules have completed it. So an object that was
applied and read back compares as unchanged. An update writes the fields that differ. All other fields stay as they are,
such as a number of replicas that no document states.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.applications.documents import problems_of
from pilothouse_server.applications.model import (
    ApplicationChange,
    ApplicationProblem,
    ChangeAction,
    FieldDifference,
    MemberNoun,
    MemberPlace,
    WantedObject,
)
from pilothouse_server.applications.translation.messages import forms
from pilothouse_server.authorization.access import May
from pilothouse_server.config.model import OPAQUE, ConfigMap, Secret
from pilothouse_server.config.operations.rules import merged as merged_values
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.containers.model import Container, ContainerSpec
from pilothouse_server.containers.rules import checked as checked_container
from pilothouse_server.containers.workload_rules import replacing
from pilothouse_server.containers.workload_settings import CronJobSettings
from pilothouse_server.containers.workloads import WORKLOADS, workload_type
from pilothouse_server.errors import FailedPrecondition, PilothouseError, invalid
from pilothouse_server.kubernetes.ownership import NAME
from pilothouse_server.network.model import Service
from pilothouse_server.network.rules import checked as checked_service
from pilothouse_server.objects import documents
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.rpc.credential_names import reads_like_a_credential
from pilothouse_server.storage.model import Volume
from pilothouse_server.storage.rules import checked as checked_volume
from pilothouse_server.values.document_paths import selected
from pilothouse_server.values.field_differences import changed_values

# The permissions of each noun, without their verbs.
PERMISSIONS: Final[Mapping[MemberNoun, str]] = {
    "config_map": "config",
    "secret": "config",
    "volume": "storage",
    "service": "service",
    "object": "object",
    "container": "container",
}
_VERBS: Final[Mapping[ChangeAction, str]] = {
    "create": "create",
    "update": "update",
    "replace": "update",
    "run": "run",
    "prune": "delete",
}
_CONFIG_FIELDS: Final = ("data", "binary_data", "immutable", "labels", "annotations")
_SECRET_FIELDS: Final = ("immutable", "labels", "annotations")
# Fields of a volume that can never change; a document may leave them out.
_FIXED_OF_VOLUMES: Final = (
    *("type", "storage_class", "access_modes", "volume_mode"),
    *("host_path", "source_name", "optional", "external"),
)
_MOST_DIFFERENCES: Final = 100
# A document cannot contain NUL, so no value looks like a mask.
_MASK: Final = "\0masked:"
_MASK_AS_JSON: Final = json.dumps(_MASK)[1:-1]
Merge = Callable[[Any], Any]


class ComparedObject(msgspec.Struct, frozen=True):
    """An object, the effect of an apply on it, and how it is written.

    `changed`: names of the fields that an update writes. `problems`: why the apply is refused. `merge`: returns the
    stored object with these fields set from the document; a secret has `asked` instead. Both are None unless the object
    is updated. `place`: its step.
    """

    wanted: WantedObject
    action: ChangeAction
    changed: tuple[str, ...] = ()
    fields: tuple[FieldDifference, ...] = ()
    problems: tuple[ApplicationProblem, ...] = ()
    merge: Merge | None = None
    asked: Asked | None = None
    place: MemberPlace = MemberPlace()

    @property
    def permission(self) -> str:
        """The permission that the noun requires for this change; empty if none."""
        verb = _VERBS.get(self.action, "")
        return f"{PERMISSIONS[self.wanted.key.noun]}.{verb}" if verb else ""

    def shown(self, may: May) -> ApplicationChange:
        """Returns the change as a caller may see it: with its fields only if the caller may get the object."""
        visible = may(f"{PERMISSIONS[self.wanted.key.noun]}.get")
        return ApplicationChange(
            self.wanted.api_version,
            self.wanted.kind,
            self.wanted.key.name,
            self.action,
            self.fields if visible else (),
            phase=self.place.phase,
            wave=self.place.wave,
        )


def compared(
    wanted: WantedObject,
    stored: Any,
    *,
    replace: bool = False,
    values: Mapping[str, bytes] | None = None,
    secret_paths: Collection[tuple[str, ...]] = (),
) -> ComparedObject:
    """Returns the effect of an apply on an object. `stored`: the object in the namespace, None if there is none.

    `replace`: settings that are immutable on the cluster may change. `values`: those of a stored secret.
    `secret_paths`: fields of a carried object that are shown to no caller.
    """
    if stored is None:
        return ComparedObject(wanted, "create")
    try:
        match wanted.value:
            case Container():
                return _container(wanted, wanted.value, stored, replace=replace)
            case Service():
                return _service(wanted, wanted.value, stored)
            case Volume():
                return _volume(wanted, wanted.value, stored)
            case ConfigMap():
                return _config_map(wanted, wanted.value, stored)
            case CarriedObject():
                return _carried(wanted, wanted.value, stored, secret_paths)
            case _:
                return _secret(wanted, wanted.value, stored, values or {})
    except PilothouseError as error:
        return ComparedObject(wanted, "update", problems=tuple(problems_of(error, wanted)))


def _container(wanted: WantedObject, value: Container, stored: Container, *, replace: bool) -> ComparedObject:
    names = wanted.fields or frozenset()
    if names != {"ports"}:
        _refuse_fixed(value, stored)
    value = _with_own_bound(value, stored)
    merge = replacing(
        lambda before: _merged_container(before, value, names), replace=True, scales="replicas" in names
    )
    after = checked_container(merge(stored))
    changed = forms.changed_container_fields(stored, after, names)
    if not changed:
        return ComparedObject(wanted, "unchanged")
    again = after.spec.replaced_generation != stored.spec.replaced_generation
    if again and not replace:
        # Raises the noun's own refusal.
        replacing(lambda before: _merged_container(before, value, names), replace=False)(stored)
    return _updated(
        wanted,
        changed,
        _between(stored, after, changed),
        replacing(lambda before: _merged_container(before, value, changed), replace=replace),
        action="replace" if again else "update",
    )


def _merged_container(stored: Container, value: Container, names: frozenset[str]) -> Container:
    """Returns the stored container with the fields in `names` replaced by those of `value`."""
    members = {"workload" if name in WORKLOADS else name for name in names}
    own = set(Container.__struct_fields__)
    spec = {
        name: getattr(value.spec, name) for name in members - own if name in ContainerSpec.__struct_fields__
    }
    top = {name: getattr(value, name) for name in members & own}
    return msgspec.structs.replace(stored, **top, spec=msgspec.structs.replace(stored.spec, **spec))


def _with_own_bound(value: Container, stored: Container) -> Container:
    """Returns the container with the stored limit of concurrent runs, which no document can state."""
    settings, before = value.spec.workload, stored.spec.workload
    if not isinstance(settings, CronJobSettings) or not isinstance(before, CronJobSettings):
        return value
    if settings.concurrency not in ("", "Allow") or before.max_concurrent is None:
        return value
    settings = msgspec.structs.replace(settings, max_concurrent=before.max_concurrent)
    return msgspec.structs.replace(value, spec=msgspec.structs.replace(value.spec, workload=settings))


def _refuse_fixed(value: Container, stored: Container) -> None:
    """Raises InvalidArgument if the workload kind, the selector or the pod container's name would change."""
    advice = "delete the container first"
    if value.workload_kind != stored.workload_kind:
        kind = workload_type(stored).kind
        raise invalid("kind", f"cannot be changed: it is a {kind} on the server; {advice}")
    name, current = value.spec.pod_container_name, stored.spec.pod_container_name or "main"
    if name and name != current:
        path = "spec.template.spec.containers[0].name"
        raise invalid(path, f"cannot be changed: it is {current!r} on the server; {advice}")
    selector = stored.spec.selector
    if selector and value.spec.selector != selector:
        shown = ", ".join(f"{key}={text}" for key, text in sorted(selector.items()))
        path = "spec.selector.matchLabels"
        raise invalid(path, f"cannot be changed: it is {shown} on the server; {advice}")


def _service(wanted: WantedObject, value: Service, stored: Service) -> ComparedObject:
    value = _with_container(_with_node_ports(value, stored), stored)
    after = checked_service(value)
    changed = forms.changed_service_fields(stored, after)
    if not changed:
        return ComparedObject(wanted, "unchanged")

    def merge(before: Service) -> Service:
        own = set(Service.__struct_fields__)
        top = {name: getattr(value, name) for name in changed if name in own}
        spec = {name: getattr(value.spec, name) for name in changed if name not in own}
        if "selector" in changed:
            spec["containers"] = value.spec.containers
        return msgspec.structs.replace(before, **top, spec=msgspec.structs.replace(before.spec, **spec))

    return _updated(wanted, changed, _between(stored, after, changed), merge)


def _with_container(value: Service, stored: Service) -> Service:
    """Returns the Service with the container that the stored Service names, if the document selects that container's
    pods.

    A document can select the pods of a container only by the label with its name.
    """
    named = stored.spec.containers
    if not named or value.spec.selector != {NAME: named[0]}:
        return value
    spec = msgspec.structs.replace(value.spec, selector={}, containers=named)
    return msgspec.structs.replace(value, spec=spec)


def _with_node_ports(value: Service, stored: Service) -> Service:
    """Returns the Service with the node ports that the cluster chose, where the document states none."""
    chosen = {(each.port, each.protocol): each.node_port for each in stored.spec.ports}
    ports = tuple(
        msgspec.structs.replace(
            each, node_port=each.node_port or chosen.get((each.port, each.protocol), each.node_port)
        )
        for each in value.spec.ports
    )
    if value.type == "ClusterIP":
        return value
    return msgspec.structs.replace(value, spec=msgspec.structs.replace(value.spec, ports=ports))


def _volume(wanted: WantedObject, value: Volume, stored: Volume) -> ComparedObject:
    if sorted(value.access_modes) == sorted(stored.access_modes):
        # The order of access modes has no meaning.
        value = msgspec.structs.replace(value, access_modes=stored.access_modes)
    for name in _FIXED_OF_VOLUMES:
        stated, present = getattr(value, name), getattr(stored, name)
        # The server chooses a field that is not stated.
        if stated and stated != present:
            words = f"cannot be changed: it is {present!r} on the server; delete the volume first"
            raise invalid(f"volume.{name}", words)
    names = wanted.fields or frozenset()

    def merge(before: Volume) -> Volume:
        return msgspec.structs.replace(before, **{name: getattr(value, name) for name in names})

    after = checked_volume(merge(stored))
    changed = frozenset(name for name in names if getattr(stored, name) != getattr(after, name))
    if not changed:
        return ComparedObject(wanted, "unchanged")
    return _updated(wanted, changed, _between(stored, after, changed), merge)


def _config_map(wanted: WantedObject, value: ConfigMap, stored: ConfigMap) -> ComparedObject:
    changed = frozenset(name for name in _CONFIG_FIELDS if getattr(stored, name) != getattr(value, name))
    if not changed:
        return ComparedObject(wanted, "unchanged")

    def merge(before: ConfigMap) -> ConfigMap:
        return msgspec.structs.replace(before, **{name: getattr(value, name) for name in changed})

    return _updated(wanted, changed, _between(stored, value, changed), merge)


def _secret(
    wanted: WantedObject, asked: Asked, stored: Secret, values: Mapping[str, bytes]
) -> ComparedObject:
    value = asked.secret
    if (value.type or OPAQUE) != stored.type:
        raise FailedPrecondition(
            f"secret.type: cannot be changed: it is {stored.type!r} on the server; delete the secret first",
            reason="SECRET_TYPE_IMMUTABLE",
            metadata={"field": "secret.type"},
        )
    given = merged_values(asked.data, asked.string_data)
    changed = [name for name in _SECRET_FIELDS if getattr(stored, name) != getattr(value, name)]
    keys = sorted(key for key in given.keys() | values.keys() if given.get(key) != values.get(key))
    fields = [FieldDifference(f"data.{key}", masked=True) for key in keys]
    fields += _between(stored, value, frozenset(changed))
    if keys:
        changed.insert(0, "data")
    if not changed:
        return ComparedObject(wanted, "unchanged")
    update = Asked(value, asked.data, asked.string_data, paths=tuple(changed))
    return ComparedObject(wanted, "update", tuple(changed), tuple(fields[:_MOST_DIFFERENCES]), asked=update)


def _carried(
    wanted: WantedObject,
    value: CarriedObject,
    stored: CarriedObject,
    secret_paths: Collection[tuple[str, ...]],
) -> ComparedObject:
    before, after = documents.manifest(stored), documents.manifest(value)
    if not any(documents.differences(before, after)):
        return ComparedObject(wanted, "unchanged")
    shown = changed_values(_masked(before, secret_paths), _masked(after, secret_paths))
    fields = [
        FieldDifference(path, masked=True) if _MASK_AS_JSON in old + new else FieldDifference(path, old, new)
        for path, old, new in shown
    ]
    return _updated(
        wanted,
        frozenset({"document"}),
        fields,
        lambda present: msgspec.structs.replace(present, document=value.document),
    )


def _masked(document: Any, secret_paths: Collection[tuple[str, ...]]) -> Any:
    """Returns a document in which secret values are replaced by a mark and a digest."""
    places = {place for path in secret_paths for place, _ in selected(document, path)}
    return _masked_at(document, (), places)


def _masked_at(value: Any, place: tuple[str | int, ...], places: set[tuple[str | int, ...]]) -> Any:
    if place in places:
        text = json.dumps(value, sort_keys=True)
        return f"{_MASK}{hashlib.sha256(text.encode()).hexdigest()}"
    if isinstance(value, dict):
        return {key: _masked_at(each, (*place, key), places) for key, each in value.items()}
    if isinstance(value, list):
        return [_masked_at(each, (*place, number), places) for number, each in enumerate(value)]
    if isinstance(value, str) and place and reads_like_a_credential(str(place[-1])):
        return f"{_MASK}{hashlib.sha256(value.encode()).hexdigest()}"
    return value


def _between(before: Any, after: Any, names: frozenset[str]) -> list[FieldDifference]:
    found = changed_values(forms.shown_fields(before, names), forms.shown_fields(after, names))
    return [FieldDifference(path, old, new) for path, old, new in found]


def _updated(
    wanted: WantedObject,
    changed: Collection[str],
    fields: Collection[FieldDifference],
    merge: Merge,
    *,
    action: ChangeAction = "update",
) -> ComparedObject:
    return ComparedObject(wanted, action, tuple(sorted(changed)), tuple(fields), merge=merge)
