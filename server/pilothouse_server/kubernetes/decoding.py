"""Decoding of responses: a long list in parts, everything else within a bound of values.

The time that a response occupies the event loop depends on its values more than on its bytes: eight megabytes are a
hundred pods, or three million empty objects, which would take a third of a second. So a long list is first cut into its
items without decoding them. The items are decoded one by one, and other tasks run in between. An object cannot be cut,
so it has a bound of values in addition to that of bytes. Values are counted by the characters that JSON needs for them,
which is quick.

Cutting a list also parses it, although it creates nothing. Kubernetes' own responses have at most one value for every
three bytes. A long list that is denser is rejected before it is cut. Likewise, a much too dense object is rejected
before its managed fields, which count less, are separated.

A cluster's users can easily write a quarter of a megabyte of annotations into one object; that is within the bound.
If they write more, such as half a million empty arguments, only that object is not read: users must not be able to make
a cluster count as one that sends too much. So a dense list is requested again with fewer objects. A dense list of one
object is cut if an API server would accept an object of that size; this takes a few milliseconds.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, TypeVar, cast

import msgspec

from pilothouse_server.kubernetes.errors import UNREADABLE, Unreadable
from pilothouse_server.runtime.event_loop import Share, long_work

# Responses up to this size are decoded in one step, regardless of their content.
AT_ONCE_BYTES: Final = 256 * 1024
MOST_VALUES: Final = 300_000
# An API server accepts requests of 3 MiB and adds managed fields. No user has made a larger object.
MOST_OF_USERS_BYTES: Final = 4 * 1024 * 1024
# A server without paging sends all objects in one list; a page has fewer pods or Deployments than this.
MOST_ITEMS: Final = 20_000
# A list with more bytes than the first number may have at most this many values for each byte.
_DENSE_BYTES, _MOST_FOR_A_BYTE = 2 * 1024 * 1024, 0.48
_STEP_BYTES, _CLOSE_STEP_BYTES = 256 * 1024, 32 * 1024
# This many values of managed fields count as one.
_MANAGED: Final = 4
V = TypeVar("V")


class TooMany(Exception):
    """There are more values or items than there may be."""

    words = f"more than {MOST_VALUES} values"


class TooManyItems(TooMany):
    """A list has more items than it may."""

    words = f"more than {MOST_ITEMS} items"


class TooDense(TooMany):
    """A long list has more values per byte than Kubernetes sends."""

    words = "more values per byte than Kubernetes sends"


def decode(body: bytes | msgspec.Raw, type_: type[V]) -> V:
    """Decodes a response. Raises Unreadable if another program has sent it."""
    try:
        return cast("V", _decoder(cast("Any", type_)).decode(body))
    except UNREADABLE as error:
        raise Unreadable(
            "the cluster's response cannot be read: it has another form than requested"
        ) from error


async def check_values(body: bytes | msgspec.Raw) -> None:
    """Checks the values of an object and waits for a turn to decode it, if the object is long.

    Raises TooMany if it has more values than may be decoded in one step; Unreadable if it is malformed.
    """
    if len(body) <= AT_ONCE_BYTES:
        return
    text = bytes(body)
    if await _counted(text, MOST_VALUES) > MOST_VALUES:
        await _check_closely(text)
    await long_work()


async def check_items(body: bytes, name: str, *, of_one: bool = False) -> None:
    """Checks the items of a list and waits for a turn to cut it, if the list is long.

    `name`: of the response's field that contains the list. `of_one`: whether only one item was requested. Raises
    TooManyItems, TooDense; Unreadable if the items are not objects.
    """
    if len(body) <= AT_ONCE_BYTES:
        return
    most = int(len(body) * _MOST_FOR_A_BYTE)
    if (
        len(body) > (MOST_OF_USERS_BYTES if of_one else _DENSE_BYTES)
        and await _counted(body, most) > most
        and await _outside_texts(body, most) > most
    ):
        raise TooDense
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
    """An item without decoded fields. The items of one list are counted."""

    def __post_init__(self) -> None:
        _items.one_more()


class _Items:
    """The number of items that are still allowed; TooManyItems is raised after the last."""

    def __init__(self) -> None:
        self.left = 0

    def one_more(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise TooManyItems


# One counter is enough: a list is counted in one step of the event loop.
_items = _Items()


@cache
def _list_of_items(name: str) -> Any:
    return msgspec.defstruct("ListOfItems", [(name, list[_Item] | None, None)])


@cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


async def _check_closely(text: bytes) -> None:
    """Raises TooMany if an object has too many values outside of its texts.

    Texts do not count, because any user may write a megabyte of commas into one. Managed fields, which we do not read,
    count for a quarter, because they repeat the other fields.
    """
    values = await _outside_texts(text, _MANAGED * MOST_VALUES)
    if values <= MOST_VALUES:
        return
    if values > _MANAGED * MOST_VALUES:
        raise TooMany
    await long_work()
    managed = bytes(decode(text, _Content).metadata.managed_fields)
    if values - await _outside_texts(managed, values) * (_MANAGED - 1) // _MANAGED > MOST_VALUES:
        raise TooMany


async def _counted(text: bytes, most: int) -> int:
    """Returns the most values that a text can have, or a number above `most`; characters inside its texts count."""
    values, share = 0, Share()
    for start in range(0, len(text), _STEP_BYTES):
        await share.used()
        values += _values(text, start, start + _STEP_BYTES)
        if values > most:
            break
    return values


async def _outside_texts(text: bytes, most: int) -> int:
    """Returns the number of texts, and of values outside of them; or a number above `most`."""
    values = quotes = start = 0
    share = Share()
    while start < len(text) and values + quotes // 2 <= most:
        await share.used()
        piece = text[start : start + _CLOSE_STEP_BYTES]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            # The character after the last backslash belongs to it.
            piece = text[start : start + _CLOSE_STEP_BYTES + 1]
        start += len(piece)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        outside = b"".join(parts[quotes % 2 :: 2])
        values += _values(outside, 0, len(outside))
        quotes += len(parts) - 1
    return values + quotes // 2


def _values(text: bytes, start: int, end: int) -> int:
    """Returns the number of JSON characters that mark values and keys. Objects count twice, because they cost more."""
    texts = text.count(b'"', start, end) // 2
    return (
        texts + text.count(b",", start, end) + text.count(b"[", start, end) + 2 * text.count(b"{", start, end)
    )
