"""Protobuf by hand, for messages that are assembled from parts that are serialized already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from pilothouse_server.rpc.field_checks import descriptor_of
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.store.paging import LARGEST_PAGE_BYTES, NextPage

T = TypeVar("T")


class Mask(Protocol):
    """The fields of each resource that are returned (`rpc.read_mask`)."""

    def masked(self, message: bytes) -> bytes:
        """Returns a serialized resource, or a part of one, without the other fields."""


_SHORT = tuple(bytes((value,)) for value in range(0x80))


def varint(value: int) -> bytes:
    """Returns a number that is not negative as protobuf writes it: as a value, a tag or a length."""
    if value < 0x80:
        return _SHORT[value]
    if value < 0x4000:
        return bytes(((value & 0x7F) | 0x80, value >> 7))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append((value & 0x7F) | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def duration(length: timedelta) -> bytes:
    """Returns a `google.protobuf.Duration` that is not negative."""
    seconds, nanoseconds = length.days * 86_400 + length.seconds, length.microseconds * 1000
    encoded = b"\x08" + varint(seconds) if seconds else b""
    return encoded + b"\x10" + varint(nanoseconds) if nanoseconds else encoded


def embedded(number: int, *parts: bytes) -> bytes:
    """Returns a field that contains a message, bytes or text; `parts` are its contents in order."""
    return b"".join((varint(number << 3 | 2), varint(sum(map(len, parts))), *parts))


def text_field(message: bytes, number: int) -> str:
    """Returns the first text in a field of a serialized message; '' if it is not found.

    It does not parse the rest. It skips numbers below 16,384 and text, bytes and messages of less than 16 KiB, and ends
    at other fields.
    """
    at, end, tag = 0, len(message) - 2, number << 3 | 2
    while at < end:
        found, length = message[at], message[at + 1]
        at += 2
        if length > 0x7F:
            if message[at] > 0x7F:
                return ""
            length = (length & 0x7F) | message[at] << 7
            at += 1
        if found == tag:
            return message[at : at + length].decode("utf-8", "replace")
        if found > 0x7F or found & 7 not in (0, 2):
            return ""
        if found & 7:
            at += length
    return ""


class AnswerField:
    """A field that contains a message or text that is serialized already."""

    def __init__(self, answer: type[Message], field: str) -> None:
        self._tag = varint(descriptor_of(answer).fields_by_name[field].number << 3 | 2)

    def answer(self, *parts: bytes) -> bytes:
        """Returns the encoded field. Its message is the concatenation of the parts."""
        return b"".join((self._tag, varint(sum(map(len, parts))), *parts))


class ListAnswer:
    """The response of a list; `field` contains its resources.

    It is assembled in slices, between which other work can run. It ends before it would be larger than
    `LARGEST_PAGE_BYTES`, but has at least one resource; then its token is where the list continues.
    """

    def __init__(self, answer: type[Message], field: str) -> None:
        self._item = AnswerField(answer, field)
        self._token = AnswerField(answer, "next_page_token")
        watched = "resume_token" in descriptor_of(answer).fields_by_name
        self._resume = AnswerField(answer, "resume_token") if watched else None

    async def answer(
        self,
        items: Iterable[Sequence[bytes]],
        next_page: NextPage,
        resume_token: str = "",
        mask: Mask | None = None,
    ) -> bytes:
        """Returns the response; each item is a serialized resource, in parts.

        `next_page` has a row for each.

        `resume_token` is where a watch continues, and `mask` the fields of each resource.
        """
        fields: list[bytes] = []
        size, share = 0, Share(last=next_page.page.is_wide)
        for parts in items:
            item = self._item.answer(*(parts if mask is None else map(mask.masked, parts)))
            size += len(item)
            if fields and size > LARGEST_PAGE_BYTES:
                break
            fields.append(item)
            await share.used()
        token = next_page.after(len(fields)) if fields else ""
        if token:
            fields.append(self._token.answer(token.encode()))
        if resume_token and self._resume is not None:
            fields.append(self._resume.answer(resume_token.encode()))
        return b"".join(fields)

    async def rendered(
        self,
        items: Iterable[T],
        to_proto: Callable[[T], Message],
        next_page: NextPage,
        resume_token: str = "",
        mask: Mask | None = None,
    ) -> bytes:
        """Returns the response of resources that are not serialized yet."""
        serialised = ((to_proto(item).SerializeToString(),) for item in items)
        return await self.answer(serialised, next_page, resume_token, mask)
