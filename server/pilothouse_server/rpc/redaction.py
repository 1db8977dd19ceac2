"""Messages and metadata in the form that audit records may contain.

`body` converts a message to plain JSON values. A value that is declared secret becomes `"[redacted]"` as a whole
(including a map's keys and everything inside a message). Bytes become their length, floats become text (so that the
hash of the canonical JSON does not depend on how a number is printed), enums become their names, and times become RFC
3339. NUL and lone surrogates, which JSONB cannot store, are written visibly. If a field is declared so that its name
decides, values whose names suggest a credential are masked (`credential_names`).

A body is at most 16 KiB of JSON. A longer one is cut field by field, in rounds with ever smaller limits, and every cut
leaves a marker with the missing amount: a record never silently shows less than the request had. The
key `"[truncated]"` also has a digest that distinguishes cut messages: SHA-256 of the serialized message, in the
order of its fields, without its secrets.

`changes` compares two states of one resource field by field.

`strip_secrets` returns the copy of a response that is stored for replays. The work for each type is compiled once
from the descriptors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pilothouse_server.rpc.credential_names import (
    REDACTED,
    masked_argument,
    reads_like_a_credential,
    takes_p,
    without_p,
    without_url_passwords,
)
from pilothouse_server.rpc.declarations import CREDENTIAL_WORD
from pilothouse_server.rpc.field_checks import (
    descriptor_of,
    is_map,
    is_secret,
    is_secret_by_name,
    is_unrecorded,
    map_fields,
)

MOST_BODY_BYTES: Final = 16 * 1024
# The rest of the limit is for the digest of a cut body.
_MOST_CUT_BYTES: Final = MOST_BODY_BYTES - 160
CUT: Final = "[truncated]"
# Fields of a resource that differ after every change, or with the time of reading.
_UNSAID: Final = frozenset({"etag", "update_time", "uptime"})
MOST_METADATA_CHARACTERS: Final = 2048
_LONGEST_KEY: Final = 64
_LONGEST_VALUE: Final = 256
_USUAL_HEADERS: Final = frozenset({"user-agent", "content-type", "traceparent"})
# Longer keys are not cached.
_USUAL_KEY: Final = 64
# For messages up to a number of bytes: the longest text and the most items that are shown. If the body is
# still too long, the next round follows. A long message begins with a later round, so that it is not rendered
# whole only to be thrown away.
_ROUNDS: Final = ((16 << 10, 4096, 256), (256 << 10, 1024, 64), (1 << 62, 256, 16), (1 << 62, 64, 4))
# For a single value: the longest text and the most items.
_SHOWN_APART: Final = (1024, 64)
# One table for both, because texts with a NUL or a lone surrogate are rare.
_UNSTORABLE: Final = {0: "\\u0000", **{code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}}
_WELL_KNOWN_TEXT: Final = frozenset(
    {"google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask"}
)

AnyMessage = TypeVar("AnyMessage", bound=Message)
# (value, longest text, most items) → JSON value
_Render = Callable[[Any, int, int], Any]


def body(message: Message) -> dict[str, Any]:
    """Returns the message as JSON values, without secrets, at most 16 KiB when written as compact JSON."""
    render = _renderer(descriptor_of(message))
    rendered: dict[str, Any] = {}
    size = message.ByteSize()
    for number, (largest, longest_text, most_items) in enumerate(_ROUNDS):
        if size > largest:
            continue
        rendered = render(message, longest_text, most_items)
        encoded = orjson.dumps(rendered)
        # In a first round, a body that is short enough is complete unless something of it was cut.
        if number == 0 and len(encoded) <= MOST_BODY_BYTES and b"[truncated" not in encoded:
            return rendered
        if len(encoded) <= _MOST_CUT_BYTES:
            return rendered | _digest(message)
    return _cut_fields(rendered, _MOST_CUT_BYTES) | _digest(message)


def changes(
    before: Message, after: Message, secrets: Mapping[str, tuple[bool, bool]] | None = None
) -> dict[str, dict[str, Any]]:
    """Returns the differences between two messages of one type, at most 16 KiB of JSON.

    Each path has its former (`from`) and present value (`to`), null if it is not set. A secret value is shown as
    changed, and no more. `secrets` are further secret values by their paths, which the messages do not contain: whether
    each was set before, and is set after.
    """
    found = {
        path: {"from": was, "to": now}
        for path, was, now in _differences(before, after)
        if path not in _UNSAID
    }
    for path, (was, now) in (secrets or {}).items():
        found[path] = {"from": REDACTED if was else None, "to": REDACTED if now else None}
    return found if _size(found) <= MOST_BODY_BYTES else _cut_fields(found, MOST_BODY_BYTES)


def arguments(words: Sequence[str]) -> list[str]:
    """Returns the arguments of a program without the values of credentials in them."""
    return _render_arguments(words, *_SHOWN_APART)


def _differences(before: Any, after: Any, within: str = "") -> Iterator[tuple[str, Any, Any]]:
    was, now = dict(_set_fields(before)), dict(_set_fields(after))
    for field in before.DESCRIPTOR.fields:
        old, new = was.get(field.name), now.get(field.name)
        path = f"{within}{field.name}"
        if old == new:
            continue
        if is_secret(field):
            yield path, REDACTED, REDACTED
        elif is_map(field):
            yield from _changed_entries(field, path, old or {}, new or {})
        elif old is not None and new is not None and _is_walked(field):
            yield from _differences(old, new, f"{path}.")
        else:
            render = _field_renderer(field)
            yield (
                path,
                None if old is None else render(old, *_SHOWN_APART),
                None if new is None else render(new, *_SHOWN_APART),
            )


def _set_fields(message: Any) -> Iterator[tuple[str, Any]]:
    return ((field.name, value) for field, value in message.ListFields())


def _is_walked(field: FieldDescriptor) -> bool:
    return (
        field.message_type is not None
        and not field.is_repeated
        and field.message_type.full_name not in _WELL_KNOWN_TEXT
    )


def _changed_entries(field: FieldDescriptor, path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    render = _value_renderer(map_fields(field)[1])
    for key in sorted({*old, *new}):
        # Reading a missing key of a map of messages would add an entry.
        was, now = (render(each[key], *_SHOWN_APART) if key in each else None for each in (old, new))
        if was != now:
            yield _text(f"{path}.{key}", MOST_METADATA_CHARACTERS), was, now


def usual_header(key: str) -> bool:
    """Returns whether records contain a request header of this name by default."""
    return key in _USUAL_HEADERS or key.startswith("grpc-")


def header_rule(more: Sequence[str]) -> Callable[[str], bool]:
    """Returns a function that decides whether records contain a request header.

    They contain the usual ones and those of `more`, in which `x-*` stands for all headers with that prefix.
    """
    names = {name for name in more if not name.endswith("*")}
    prefixes = tuple(name.removesuffix("*") for name in more if name.endswith("*"))

    def is_kept(key: str) -> bool:
        return usual_header(key) or key in names or key.startswith(prefixes)

    return is_kept


def metadata(entries: Iterable[tuple[str, str | bytes]], is_kept: Callable[[str], bool]) -> dict[str, str]:
    """Returns the request metadata that is recorded: binary values as their length, 2,048 characters in all.

    If a key contains a word for credentials, its value is redacted even if the key is to be recorded.
    """
    shown: dict[str, str] = {}
    left = MOST_METADATA_CHARACTERS
    for key, value in entries:
        if not is_kept(key):
            continue
        name, text = _text(key, _LONGEST_KEY), _shown_value(key, value)
        left -= len(name) + len(text)
        if left < 0:
            shown["[truncated]"] = f"only the first {MOST_METADATA_CHARACTERS} characters are kept"
            break
        shown[name] = text
    return shown


def _shown_value(key: str, value: str | bytes) -> str:
    if _names_credential(key) if len(key) <= _USUAL_KEY else _speaks_of_credentials(key):
        return REDACTED
    if isinstance(value, bytes) or key.endswith("-bin"):
        return f"[{len(value)} bytes]"
    return _text(value, _LONGEST_VALUE)


def _speaks_of_credentials(key: str) -> bool:
    return CREDENTIAL_WORD.search(key.lower().replace("-", "_").replace(".", "_")) is not None


# Most calls have the same few keys.
_names_credential = lru_cache(maxsize=256)(_speaks_of_credentials)


def holds_secrets(message: Message) -> bool:
    """Returns whether a message of this type has fields that are declared secret, at any depth."""
    return any(_secrets_of(descriptor_of(message)))


def strip_secrets(message: AnyMessage) -> AnyMessage:
    """Returns a copy without the fields that are declared secret; the message itself is unchanged."""
    copy = type(message)()
    copy.CopyFrom(message)
    _strip(copy)
    return copy


_renderers: dict[str, _Render] = {}
_secret_fields: dict[str, tuple[list[str], list[FieldDescriptor]]] = {}


def _renderer(descriptor: Descriptor) -> _Render:
    render = _renderers.get(descriptor.full_name)
    if render is not None:
        return render
    if descriptor.full_name in _WELL_KNOWN_TEXT:
        return _renderers.setdefault(descriptor.full_name, _well_known_text)
    fields: dict[int, tuple[str, _Render]] = {}

    named = [field.name for field in descriptor.fields if is_secret_by_name(field) and not field.is_repeated]

    def render_message(message: Any, longest_text: int, most_items: int) -> dict[str, Any]:
        rendered = {}
        for field, value in message.ListFields():
            name, render_field = fields[field.number]
            rendered[name] = render_field(value, longest_text, most_items)
        if named and reads_like_a_credential(message.name):
            rendered |= {name: REDACTED for name in named if name in rendered}
        return rendered

    # Stored before it is filled, because a message may contain its own type.
    _renderers[descriptor.full_name] = render_message
    for field in descriptor.fields:
        fields[field.number] = (field.name, _field_renderer(field))
    return render_message


def _field_renderer(field: FieldDescriptor) -> _Render:
    if is_secret(field) or is_unrecorded(field):
        return lambda _value, _longest_text, _most_items: REDACTED
    if is_map(field):
        return _map_renderer(_value_renderer(map_fields(field)[1]))
    if is_secret_by_name(field):
        return _render_arguments if field.is_repeated else _render_named
    render = _value_renderer(field)
    return _list_renderer(render) if field.is_repeated else render


def _value_renderer(field: FieldDescriptor) -> _Render:
    if field.message_type is not None:
        return _renderer(field.message_type)
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda value, _longest_text, _most_items: names.get(value, str(value))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value, _longest_text, _most_items: f"[{len(value)} bytes]"
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return lambda value, _longest_text, _most_items: repr(value)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        # In a truncated URL the password could not be recognised.
        return lambda value, longest_text, _most_items: _text(without_url_passwords(value), longest_text)
    return lambda value, _longest_text, _most_items: value


def _list_renderer(render: _Render) -> _Render:
    def render_list(values: Any, longest_text: int, most_items: int) -> list[Any]:
        shown = [render(value, longest_text, most_items) for value in values[:most_items]]
        if len(values) > most_items:
            shown.append(f"[truncated, {len(values) - most_items} more items]")
        return shown

    return render_list


def _render_arguments(values: Any, longest_text: int, most_items: int) -> list[str]:
    shown, is_known = [], False
    continues = bool(values) and values[0].startswith("-")
    for before, value in zip(("", *values), values[:most_items], strict=False):
        whole = without_p(without_url_passwords(value), is_known=is_known, continues=continues)
        shown.append(masked_argument(_text(whole, longest_text), before))
        is_known = is_known or takes_p(value)
    if len(values) > most_items:
        shown.append(f"[truncated, {len(values) - most_items} more items]")
    return shown


def _render_named(value: str, longest_text: int, _most_items: int) -> str:
    return _text(without_url_passwords(value), longest_text)


def _map_renderer(render: _Render) -> _Render:
    def render_map(values: Any, longest_text: int, most_items: int) -> dict[str, Any]:
        shown = {
            _text(str(key), longest_text): render(values[key], longest_text, most_items)
            for key in sorted(values)[:most_items]
        }
        if len(values) > most_items:
            shown["[truncated]"] = f"{len(values) - most_items} more entries"
        return shown

    return render_map


def _well_known_text(message: Any, longest_text: int, most_items: int) -> str:
    paths = message.paths if isinstance(message, FieldMask) else ()
    if len(paths) > most_items:
        # Writing a path takes as long as rendering a text.
        message = FieldMask(paths=paths[:most_items])
        rest = f"[truncated, {len(paths) - most_items} more paths]"
        return _well_known_text(message, longest_text, most_items) + rest
    try:
        return _text(message.ToJsonString(), longest_text)
    except ValueError:
        # The value is outside the range that RFC 3339 can write, but the record of a refused request shows it.
        return _text(" ".join(str(message).split()), longest_text)


def _text(text: str, longest: int) -> str:
    shown = (
        text
        if len(text) <= longest
        else f"{text[:longest]}[truncated, {len(text) - longest} more characters]"
    )
    return shown if shown.isascii() and "\0" not in shown else shown.translate(_UNSTORABLE)


def _size(value: Any) -> int:
    return len(orjson.dumps(value))


def _digest(message: Message) -> dict[str, Any]:
    """Returns the digest that distinguishes a cut message from any other."""
    public = strip_secrets(message) if holds_secrets(message) else message
    encoded = public.SerializeToString(deterministic=True)
    return {CUT: {"bytes": len(encoded), "sha256": hashlib.sha256(encoded).hexdigest()}}


def _cut_fields(rendered: dict[str, Any], most_bytes: int) -> dict[str, Any]:
    """Replaces the largest fields by markers until the body fits."""
    sizes = {name: _size(value) for name, value in rendered.items()}
    total = _size(rendered)
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if total <= most_bytes:
            break
        rendered[name] = f"[truncated, {sizes[name]} bytes]"
        total += _size(rendered[name]) - sizes[name]
    return rendered


def _strip(message: Any) -> None:
    secrets, holders = _secrets_of(descriptor_of(message))
    for name in secrets:
        message.ClearField(name)
    for field in holders:
        value = getattr(message, field.name)
        if is_map(field):
            for key in value:
                _strip(value[key])
        elif field.is_repeated:
            for item in value:
                _strip(item)
        elif message.HasField(field.name):
            _strip(value)


def _secrets_of(descriptor: Descriptor) -> tuple[list[str], list[FieldDescriptor]]:
    """Returns the names of secret fields, and the other fields whose messages contain secrets at any depth."""
    found = _secret_fields.get(descriptor.full_name)
    if found is None:
        secrets = [field.name for field in descriptor.fields if is_secret(field) or is_unrecorded(field)]
        holders = [
            field
            for field in descriptor.fields
            if field.name not in secrets
            and (held := _held_message(field)) is not None
            and _reaches_secret(held, set())
        ]
        found = _secret_fields[descriptor.full_name] = (secrets, holders)
    return found


def _held_message(field: FieldDescriptor) -> Descriptor | None:
    return map_fields(field)[1].message_type if is_map(field) else field.message_type


def _reaches_secret(descriptor: Descriptor, seen: set[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    return any(
        is_secret(field) or ((held := _held_message(field)) is not None and _reaches_secret(held, seen))
        for field in descriptor.fields
    )
