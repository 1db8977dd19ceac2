"""Decoding of answers: a long list in parts, and what cannot be cut within a bound of values.

How long an answer keeps the event loop follows from its values more than from its bytes: eight megabytes are a hundred
pods, or three million empty objects, which would take a third of a second. So a long list is cut into its items first,
without reading them, and these are decoded one by one, with others in between. What cannot be cut, an object, has a
bound of values as it has one of bytes. They are counted by the signs that JSON needs for them, which is quick.

What a cluster's users may write into one object, a quarter of a megabyte of annotations, is within the bound: nobody
makes a cluster count as one that sends too much, but the cluster itself.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, TypeVar, cast

import msgspec

from pilothouse_server.event_loop import Share, long_work
from pilothouse_server.kubernetes.errors import UNREADABLE, Unreadable

# So much is decoded in one piece whatever it holds.
AT_ONCE_BYTES: Final = 256 * 1024
MOST_VALUES: Final = 300_000
# A server that knows no pages sends all there is; of pods and Deployments fewer fit into a page.
MOST_ITEMS: Final = 20_000
_STEP_BYTES: Final = 256 * 1024
_VERY_MANY: Final = 1 << 40
V = TypeVar("V")


class TooMany(Exception):
    """There are more values or items than there may be."""


def decode(body: bytes | msgspec.Raw, type_: type[V]) -> V:
    """Decode an answer. Raises Unreadable where it is not what it should be: somebody else answered."""
    try:
        return cast("V", _decoder(cast("Any", type_)).decode(body))
    except UNREADABLE as error:
        raise Unreadable("the cluster's answer cannot be read: it is not what was asked for") from error


async def check_values(body: bytes | msgspec.Raw) -> None:
    """Returns when it is the caller's turn to decode an object, where it is long. Raises TooMany where that holds more
    values than may be decoded in one piece, Unreachable where it cannot be read.
    """
    if len(body) <= AT_ONCE_BYTES:
        return
    text, values, share = bytes(body), 0, Share()
    for start in range(0, len(text), _STEP_BYTES):
        await share.used()
        values += _values(text, start, start + _STEP_BYTES)
        if values > MOST_VALUES:
            await _check_closely(text)
            break
    await long_work()


async def check_items(body: bytes, name: str) -> None:
    """Returns when it is the caller's turn to cut a list into its items, where it is long. Raises TooMany where it has
    more than it may, Unreachable where they are no objects.

    `name`: of the answer's field that holds the list.
    """
    if len(body) <= AT_ONCE_BYTES:
        return
    commas, share = 0, Share()
    for start in range(0, len(body), _STEP_BYTES):
        await share.used()
        commas += body.count(b",", start, start + _STEP_BYTES)
    await long_work()
    # There is a comma between two items, and many within each.
    if commas >= MOST_ITEMS:
        _items.left = MOST_ITEMS
        decode(body, _list_of_items(name))
        await long_work()


class _Metadata(msgspec.Struct, rename="camel", gc=False):
    managed_fields: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _Content(msgspec.Struct, gc=False):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _Item(msgspec.Struct, gc=False):
    """An item of which nothing is read. Those of one list are counted."""

    def __post_init__(self) -> None:
        _items.one_more()


class _Items:
    """How many more items there may be; TooMany is raised after the last."""

    def __init__(self) -> None:
        self.left = 0

    def one_more(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise TooMany


# One is enough: whoever counts holds the event loop meanwhile.
_items = _Items()


@cache
def _list_of_items(name: str) -> Any:
    return msgspec.defstruct("ListOfItems", [(name, list[_Item] | None, None)])


@cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


async def _check_closely(text: bytes) -> None:
    """Raises TooMany where an object holds too many values though what its texts hold is left out: anybody may write a
    megabyte of commas into one. Of managed fields, which nobody reads, eight count for one: they repeat the others.
    """
    managed = bytes(decode(text, _Content).metadata.managed_fields)
    if await _values_outside_texts(text) - await _values_outside_texts(managed) * 7 // 8 > MOST_VALUES:
        raise TooMany


async def _values_outside_texts(text: bytes) -> int:
    for escaped in (b"\\\\", b'\\"'):
        await long_work()
        text = text.replace(escaped, b"")
    await long_work()
    texts = text.count(b'"') // 2
    # They are not cut apart to be told how many they are.
    if texts > 2 * MOST_VALUES:
        return _VERY_MANY
    between = b"".join(text.split(b'"')[::2])
    return texts + _values(between, 0, len(between))


def _values(text: bytes, start: int, end: int) -> int:
    """How many signs stand there that a value of JSON, or a key, has. What becomes an object costs twice as much."""
    texts = text.count(b'"', start, end) // 2
    return (
        texts + text.count(b",", start, end) + text.count(b"[", start, end) + 2 * text.count(b"{", start, end)
    )
