"""The options `--kind`, `--setting` and `--claim`: settings of a container's kind, by their names in the API.

One option covers the settings of all kinds, because the message of each kind declares which settings it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.options import pairs

_WORKLOAD = pb.Container.DESCRIPTOR.oneofs_by_name["workload"]
_KINDS = [each.name for each in _WORKLOAD.fields]
_INTEGERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)


def write(
    container: pb.Container, kind: str, settings: Sequence[str], claims: Sequence[str]
) -> Iterator[str]:
    """Writes the kind and its settings into a container; yields the paths of an update mask.

    Raises CommandError.
    """
    if kind:
        name = kind.lower().replace("-", "_")
        if name not in _KINDS:
            known = ", ".join(each.replace("_", "-") for each in _KINDS)
            raise CommandError(f"--kind is one of {known}, not {kind!r}", 2)
        getattr(container, name).SetInParent()
        yield name
    present = container.WhichOneof("workload") or "deployment"
    for path, text in pairs([*settings], "--setting").items():
        first, *rest = path.split(".")
        _set(getattr(container, present), [first, *rest], text, f"--setting {path}")
        yield f"{present}.{first}"
    if not claims:
        return
    if present != "stateful_set":
        raise CommandError("--claim is only for a StatefulSet: give --kind stateful-set", 2)
    by_name = {each.name: each for each in container.stateful_set.claim_templates}
    for name, size in pairs([*claims], "--claim").items():
        by_name.setdefault(name, pb.ClaimTemplate(name=name, access_modes=["ReadWriteOnce"])).size = size
    wanted = [_copy(each) for each in by_name.values()]
    del container.stateful_set.claim_templates[:]
    container.stateful_set.claim_templates.extend(wanted)
    yield "stateful_set.claim_templates"


def _copy(template: pb.ClaimTemplate) -> pb.ClaimTemplate:
    copy = pb.ClaimTemplate()
    copy.CopyFrom(template)
    return copy


def _set(message: Message, path: list[str], text: str, option: str) -> None:
    name, *rest = path
    known = message.DESCRIPTOR.fields_by_name
    if name not in known:
        raise CommandError(f"{option}: no such setting; known: {', '.join(sorted(known))}", 2)
    field = known[name]
    if rest and field.message_type is not None and not field.is_repeated:
        _set(getattr(message, name), rest, text, option)
    elif rest or field.message_type is not None:
        raise CommandError(
            f"{option} is not a setting with one value: write it into a file, and give --from-file", 2
        )
    elif field.is_repeated:
        getattr(message, name)[:] = [_value(field, each, option) for each in text.split(",") if each]
    else:
        setattr(message, name, _value(field, text, option))


def _value(field: Any, text: str, option: str) -> Any:
    if field.cpp_type in _INTEGERS:
        try:
            return int(text)
        except ValueError:
            raise CommandError(f"{option} takes a whole number, not {text!r}", 2) from None
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            raise CommandError(f"{option} takes true or false, not {text!r}", 2)
        return text == "true"
    return text
