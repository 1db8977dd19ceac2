"""The cache of serialized messages: one message of each resource is stored next to its row.

A message has two parts. The first follows from the resource's own row; it is stored next to the row (`store.rendered`)
and serves reads. The second changes without the row: the name of its creator, as far as the reader may see that user; a
duration that grows; rows of other resources that refer to it. Both are serialized messages of one type, and protobuf
reads them one after the other as one message, so a response needs neither parsing nor rendering of the stored part.

The format of a stored message counts the fields that the message has at any depth, so it changes by itself with a
release that adds a field. If a release renders an existing field in another way, its noun raises `rendering`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from pilothouse_server.rpc.converter import AnswerConverter
from pilothouse_server.rpc.encoding import text_field, varint
from pilothouse_server.rpc.field_checks import descriptor_of
from pilothouse_server.store.rendered import Rendered
from pilothouse_server.values.cached_message import CachedMessage

ValueT = TypeVar("ValueT", bound=msgspec.Struct)
MessageT = TypeVar("MessageT", bound=Message)

# More fields than any message will have.
_MOST_FIELDS = 100_000


def _always(_value: Any) -> bool:
    return True


class MessageCache(Generic[ValueT, MessageT]):
    """Renders values of one type.

    `added` names the fields of the second part, which is not stored.

    `within` is the field of the event's message that contains the resource, if that message is not the resource itself.
    A value for which `keeps` returns False is rendered for each reader. `added_to` returns the second part of a stored
    resource, if that part is more than its creator's name.
    """

    def __init__(
        self,
        converter: AnswerConverter[ValueT, MessageT],
        added: Sequence[str],
        *,
        within: FieldDescriptor | None = None,
        keeps: Callable[[ValueT], bool] = _always,
        added_to: Callable[[Any], bytes] | None = None,
        rendering: int = 1,
    ) -> None:
        fields = descriptor_of(converter.message).fields_by_name
        self._converter = converter
        self.message: type[MessageT] = converter.message
        self._move = [(name, _mover(fields[name])) for name in added]
        self._tag = b"" if within is None else varint(within.number << 3 | 2)
        self._keeps = keeps
        self._added_to = added_to or self._creator
        self._uid = fields["uid"].number
        self._last: tuple[ValueT, Rendered] | None = None
        self.format = rendering * _MOST_FIELDS + _count_fields(descriptor_of(converter.message))

    def render(self, value: ValueT) -> Rendered:
        """Returns a resource as its event contains it, and which part of that is stored.

        The value that was rendered last is not rendered again: a mutation's response and its event show the same one.
        """
        if self._last is not None and self._last[0] is value:
            return self._last[1]
        kept, added = self.parts(value)
        head = self._tag and self._tag + varint(len(kept) + len(added))
        rendered = Rendered(
            b"".join((head, kept, added)), self.format, len(head), len(kept) if self._keeps(value) else 0
        )
        self._last = value, rendered
        return rendered

    def rendered_message(self, value: ValueT) -> MessageT:
        """Returns the message of a resource, parsed from its event, if the event contains the message itself."""
        assert not self._tag, "the event's message contains another one"
        return self.message.FromString(self.render(value).message)

    def uid(self, kept: bytes) -> str:
        """Returns the uid of a resource from its cached part."""
        return text_field(kept, self._uid)

    def parts(self, value: ValueT | CachedMessage) -> tuple[bytes, bytes]:
        """Returns the first part of a resource, rendered only if none is stored, and the second part."""
        if isinstance(value, CachedMessage):
            assert value.message is not None
            return value.message, self._added_to(value)
        message, rest = self._converter.to_proto(value), self.message()
        for name, move in self._move:
            move(message, rest, name)
        return message.SerializeToString(), rest.SerializeToString()

    def _creator(self, stored: CachedMessage) -> bytes:
        return self.message(created_by=stored.created_by or "").SerializeToString()


def _mover(field: FieldDescriptor) -> Callable[[Any, Any, str], None]:
    if field.is_repeated:
        return _move_items
    return _move_value if field.message_type is None else _move_message


def _move_items(source: Any, target: Any, name: str) -> None:
    getattr(target, name).extend(getattr(source, name))
    source.ClearField(name)


def _move_value(source: Any, target: Any, name: str) -> None:
    setattr(target, name, getattr(source, name))
    source.ClearField(name)


def _move_message(source: Any, target: Any, name: str) -> None:
    if source.HasField(name):
        getattr(target, name).CopyFrom(getattr(source, name))
        source.ClearField(name)


def _count_fields(descriptor: Descriptor) -> int:
    seen: set[str] = set()
    waiting = [descriptor]
    count = 0
    while waiting:
        each = waiting.pop()
        if each.full_name in seen:
            continue
        seen.add(each.full_name)
        for field in each.fields:
            count += 1
            if field.message_type is not None:
                waiting.append(field.message_type)
            elif field.enum_type is not None and field.enum_type.full_name not in seen:
                seen.add(field.enum_type.full_name)
                count += len(field.enum_type.values)
    return count
