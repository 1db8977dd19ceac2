"""Finds every field that a caller may set in the descriptors, and generates a value for it by its type and rule.

A field added to a proto file is found here without any change. A few fields make sense only with other values next to
them (a value from a config map needs the config map's name): `NEEDS` lists those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_manifests.fields import Entry, Field, Nested, Repeated, Text
from pilothouse_manifests.table import CONTAINERS, MAIN_CONTAINER, POD, SIDECAR, fields_of

# Two values of each format: one for the create, one for the update.
FORMS: dict[int, tuple[str, str]] = {
    options.FORMAT_UNSPECIFIED: ("alpha", "beta"),
    options.FORMAT_DNS_LABEL: ("alpha", "beta"),
    options.FORMAT_DNS_SUBDOMAIN: ("alpha.one", "beta.two"),
    options.FORMAT_QUANTITY: ("2", "3"),
    options.FORMAT_IMAGE: ("ghcr.io/alpha/beta:1", "ghcr.io/alpha/beta:2"),
    options.FORMAT_ENV_NAME: ("ALPHA", "BETA"),
    options.FORMAT_ABSOLUTE_PATH: ("/alpha", "/beta"),
    options.FORMAT_RELATIVE_PATH: ("alpha", "beta"),
    options.FORMAT_USERNAME: ("alpha", "beta"),
    options.FORMAT_EMAIL: ("alpha@example.org", "beta@example.org"),
    options.FORMAT_PERMISSION: ("container.get", "container.list"),
    options.FORMAT_TEXT: ("Alpha", "Beta"),
    options.FORMAT_PORT_NAME: ("alpha", "beta"),
    options.FORMAT_CONFIG_KEY: ("alpha", "beta"),
}


@dataclass(frozen=True)
class Leaf:
    """A field with a value, identified by the path of fields that leads to it."""

    fields: tuple[FieldDescriptor, ...]

    @property
    def name(self) -> str:
        return ".".join(field.name for field in self.fields)

    @property
    def field(self) -> FieldDescriptor:
        return self.fields[-1]

    @property
    def masked(self) -> str:
        """Returns the mask path for the leaf. A list is updated as a whole."""
        whole = next((number for number, field in enumerate(self.fields, 1) if field.is_repeated), None)
        return ".".join(field.name for field in self.fields[:whole])

    @property
    def immutable(self) -> bool:
        return any(rule(field).immutable for field in self.fields)


def rule(field: Any) -> options.FieldRule:
    """Returns the declared rule of a field."""
    declared: options.FieldRule = field.GetOptions().Extensions[options.field]
    return declared


def leaves(descriptor: Any, before: tuple[FieldDescriptor, ...] = ()) -> Iterator[Leaf]:
    """Yields the fields of a message and of its parts that a caller may set."""
    for field in descriptor.fields:
        path = (*before, field)
        if rule(field).output_only:
            continue
        if field.message_type is None or is_map(field):
            yield Leaf(path)
        else:
            yield from leaves(field.message_type, path)


def is_map(field: Any) -> bool:
    """Returns whether a field is a map."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


_SIDECARS = Field("sidecars", CONTAINERS, Repeated(SIDECAR))
_ALL: tuple[Entry, ...] = (*MAIN_CONTAINER.entries, *POD.entries, _SIDECARS)


def choices(entries: tuple[Entry, ...] = _ALL) -> dict[str, Text]:
    """Returns the texts of the table that allow only a few values, by the path that leads to them."""
    found: dict[str, Text] = {}
    for field in fields_of(entries):
        match field:
            case Field(kind=Text() as text) if text.choices:
                found[field.name] = text
            case Field(kind=Nested(part=part) | Repeated(part=part)):
                found |= {f"{field.name}.{name}": text for name, text in choices(part.entries).items()}
    return found


@dataclass(frozen=True)
class Needs:
    """The needs of a leaf whose name ends with `ends`.

    A leaf may need special values, or other fields next to it or at the top of the resource. Fields at the top are set
    in
    the leaf's program, unless that is the main program.

    `values` replaces the values of the leaf's format, for create and update. `without` lists fields of a resource's
    `base` that exclude the leaf.
    """

    ends: str
    beside: dict[str, Any] | None = None
    top: dict[str, Any] | None = None
    values: tuple[Any, Any] | None = None
    without: tuple[str, ...] = ()

    def of(self, leaf: Leaf) -> bool:
        """Returns whether a leaf has these needs."""
        return leaf.name == self.ends or leaf.name.endswith(f".{self.ends}")


_CONFIG = {"value_from": "ENV_VALUE_FROM_CONFIG_MAP", "source_name": "alpha", "source_key": "alpha"}
_PORT = {"ports": [{"name": "alpha", "container_port": 70}, {"name": "beta", "container_port": 71}]}
_AMOUNT = {"value_from": "ENV_VALUE_FROM_RESOURCE_FIELD_REF", "source_key": "limits.cpu"}
_PAGES = {"hugepages-2Mi": "2Mi"}
_NAME = {"value_from": "ENV_VALUE_FROM_FIELD_REF", "source_key": "metadata.name"}
NEEDS: tuple[Needs, ...] = (
    Needs("selector", beside={"pod_labels": {"alpha": "alpha"}}),
    Needs("env.divisor", beside=_AMOUNT, values=("1m", "1")),
    Needs(
        "env_from.value_from",
        beside={"source_name": "alpha"},
        values=("ENV_VALUE_FROM_SECRET", "ENV_VALUE_FROM_CONFIG_MAP"),
    ),
    *(
        Needs(f"env_from.{name}", beside={"value_from": "ENV_VALUE_FROM_CONFIG_MAP", "source_name": "alpha"})
        for name in ("prefix", "optional", "external")
    ),
    Needs("env_from.source_name", beside={"value_from": "ENV_VALUE_FROM_CONFIG_MAP"}),
    Needs("downward_api.items.path", beside=_NAME),
    Needs("downward_api.items.mode", beside=_NAME),
    Needs("downward_api.items.value_from", beside=_NAME, values=("ENV_VALUE_FROM_FIELD_REF",) * 2),
    Needs("downward_api.items.source_key", beside=_NAME, values=("metadata.uid", "metadata.labels")),
    Needs("downward_api.items.source_name", beside=_AMOUNT, values=("main", "main")),
    Needs("downward_api.items.divisor", beside={**_AMOUNT, "source_name": "main"}, values=("1m", "1")),
    Needs("service_account_token.expiration_seconds", values=(7200, 600)),
    # An import moves cpu and memory to their own fields, and the request for huge pages must equal the limit.
    Needs("pod_resources.requests", beside={"limits": _PAGES, "cpu_limit": "1"}, values=(_PAGES, _PAGES)),
    Needs("pod_resources.limits", beside={"cpu_limit": "1"}, values=(_PAGES, {"hugepages-2Mi": "4Mi"})),
    Needs("resources.requests", values=({"ephemeral-storage": "2"}, {"ephemeral-storage": "3"})),
    Needs("resources.limits", values=({"nvidia.com/gpu": "2"}, {"ephemeral-storage": "3"})),
    Needs("env.value_from", beside=_CONFIG, values=("ENV_VALUE_FROM_SECRET", "ENV_VALUE_FROM_CONFIG_MAP")),
    Needs("env.source_name", beside=_CONFIG),
    Needs("env.source_key", beside=_CONFIG),
    Needs("env.optional", beside=_CONFIG),
    Needs("env.external", beside=_CONFIG),
    Needs(
        "extra_fields",
        values=(
            {"spec.template.spec.hostname": '"a"'},
            {"spec.template.spec.dnsConfig": '{"searches": ["b"]}'},
        ),
    ),
    Needs("deployment.strategy", values=("Recreate", "RollingUpdate")),
    Needs("deployment.max_surge", values=("2", "50%")),
    Needs("deployment.max_unavailable", values=("10%", "1")),
    Needs("ports.node_port", beside={"service_type": "SERVICE_TYPE_NODE_PORT"}, values=(30100, 30200)),
    Needs("ports.service_type", values=("SERVICE_TYPE_LOAD_BALANCER", "SERVICE_TYPE_NODE_PORT")),
    Needs("ports.protocol", values=("PROTOCOL_UDP", "PROTOCOL_TCP")),
    Needs("empty_dirs.medium", values=("HugePages-2Mi", "Memory")),
    Needs("http_get.port_name", top=_PORT),
    Needs("tcp_socket.port_name", top=_PORT),
    Needs("sleep.seconds", values=(3, 4)),
    Needs("http_get.path", values=("/alpha", "/beta")),
    Needs("http_get.scheme", values=("HTTPS", "HTTP")),
    Needs("liveness.success_threshold", values=(1, 1)),
    Needs("startup.success_threshold", values=(1, 1)),
    Needs("seccomp_profile.localhost_profile", beside={"type": "Localhost"}),
    Needs("seccomp_profile.type", values=("RuntimeDefault", "Unconfined")),
    Needs("tolerations.value", beside={"operator": "Equal", "key": "alpha"}),
    Needs("tolerations.operator", beside={"key": "alpha"}, values=("Exists", "Equal")),
    Needs("tolerations.toleration_seconds", beside={"operator": "Exists", "effect": "NoExecute"}),
    Needs("image_pull_secrets", values=(["registry"], ["mirror"])),
    Needs("priority_class", values=("system-node-critical", "system-cluster-critical")),
)
# Required parts of a message, set unless the message under test sets or excludes them.
COMPANIONS: dict[str, dict[str, Any]] = {
    "Probe": {"tcp_socket": {"port": 70}},
    "HttpGetAction": {"port": 70},
    "HttpHeader": {"name": "alpha"},
    "TcpSocketAction": {"port": 70},
    "VolumeMount": {"volume": "alpha", "mount_path": "/alpha"},
    "Toleration": {"operator": "Exists"},
    # A complete source with the default mode becomes a volume of the namespace.
    "PodVolume": {"config_map": {"source_name": "alpha", "default_mode": 0o440}},
    "SourceFiles": {"default_mode": 0o440},
    # Required if there are several ports.
    "ServicePort": {"name": "alpha"},
    # Only a native sidecar may have all fields.
    "InitContainer": {"restart_policy": "Always"},
}
# Programs of a container other than the main one.
PROGRAMS = ("Program", "InitContainer")


def filled(
    message: Message, leaf: Leaf, variant: int, needs: Sequence[Needs] = NEEDS, choice: Any = None
) -> Any:
    """Sets a value for the leaf, and its other needs. Returns the value as stored in the message."""
    need = next((each for each in needs if each.of(leaf)), None)
    place = top = message
    for field in leaf.fields[:-1]:
        inner = getattr(place, field.name)
        place = inner.add() if field.is_repeated else inner
        place.SetInParent()
        _complete(place, variant)
        if place.DESCRIPTOR.name in PROGRAMS:
            top = place
    if need is not None and need.beside:
        ParseDict(need.beside, place)
    if need is not None and need.top:
        _merge_missing(top, need.top)
    value = need.values[variant] if need is not None and need.values else None
    if value is None and choice is not None:
        value = choice[variant]
    if value is None:
        value = generated(leaf.field, variant)
    place.ClearField(leaf.field.name)
    ParseDict({leaf.field.name: value}, place)
    _accompany(message)
    return getattr(place, leaf.field.name)


def generated(field: Any, variant: int) -> Any:
    """Returns a value for a field's type and rule, in JSON form."""
    if is_map(field):
        value = field.message_type.fields_by_name["value"]
        key = ("alpha", "beta")[variant]
        return {key: _scalar(value, variant)}
    value = _scalar(field, variant)
    return [value] if field.is_repeated else value


def _scalar(field: Any, variant: int) -> Any:
    declared = rule(field)
    if field.enum_type is not None:
        numbers = sorted(value.number for value in field.enum_type.values if value.number)
        return numbers[-1] if variant == 0 else numbers[0]
    if field.type == FieldDescriptor.TYPE_BOOL:
        return variant == 0
    if field.type == FieldDescriptor.TYPE_BYTES:
        return ("YWxwaGE=", "YmV0YQ==")[variant]
    if field.name == "source_name":
        return ("alpha", "beta")[variant]
    if field.type == FieldDescriptor.TYPE_STRING:
        return FORMS[declared.format if declared.format in FORMS else 0][variant]
    least = max(declared.minimum, 1)
    return least + (71, 72)[variant] if declared.maximum == 0 or declared.maximum > least + 72 else least


def _complete(message: Message, variant: int) -> None:
    """Adds the required fields of a part."""
    for field in message.DESCRIPTOR.fields:
        if rule(field).required and field.message_type is None and not getattr(message, field.name):
            ParseDict({field.name: generated(field, variant)}, message)


def _accompany(message: Message) -> None:
    """Adds the required parts of each message."""
    for field, value in message.ListFields():
        if field.message_type is not None and not is_map(field):
            for part in value if field.is_repeated else [value]:
                _accompany(part)
    _merge_missing(message, COMPANIONS.get(message.DESCRIPTOR.name, {}))


def _merge_missing(message: Message, values: dict[str, Any]) -> None:
    said = {field.name for field, _ in message.ListFields()}
    for name, value in values.items():
        # Keeps the chosen field of a oneof, and a port that already has its name.
        decided = {each.name for each in _alternatives(message.DESCRIPTOR.fields_by_name[name])}
        if not said & decided:
            ParseDict({name: value}, message)


def _alternatives(field: Any) -> list[FieldDescriptor]:
    if field.containing_oneof is not None:
        return list(field.containing_oneof.fields)
    named = field.containing_type.fields_by_name.get(f"{field.name}_name")
    return [field] if named is None else [field, named]


def found(message: Message, leaf: Leaf) -> list[Any]:
    """Returns the values that a message has at a leaf: several, if a list is on its path."""
    here: list[Any] = [message]
    for field in leaf.fields[:-1]:
        if field.is_repeated:
            here = [item for each in here for item in getattr(each, field.name)]
        else:
            here = [getattr(each, field.name) for each in here if each.HasField(field.name)]
    # An explicit value differs from an absent one.
    here = [each for each in here if not leaf.field.has_presence or each.HasField(leaf.field.name)]
    return [getattr(each, leaf.field.name) for each in here]


def has(message: Message, leaf: Leaf, value: Any) -> bool:
    """Returns whether a message has a value at a leaf; for a map, whether it has these entries among others."""
    if is_map(leaf.field):
        return any(all(each.get(key) == one for key, one in value.items()) for each in found(message, leaf))
    if leaf.field.is_repeated:
        return any(list(each) == list(value) for each in found(message, leaf))
    return value in found(message, leaf)
