"""The parts that the messages of all nouns share: conditions, times, etags, selectors, pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.errors import Aborted
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.converter import AnswerConverter, Differences, etag
from pilothouse_server.store.paging import PageRequest
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.values.resources import Condition, ObjectWarning

# `made_from` is for the platform's own use.
WARNING = AnswerConverter(ObjectWarning, resource.Warning)
CONDITION = AnswerConverter(Condition, resource.Condition, Differences(struct_only=("made_from",)))


def moment(message: Timestamp) -> datetime:
    """Returns a protobuf time in UTC."""
    return message.ToDatetime(tzinfo=UTC)


class Versioned(Protocol):
    """A resource as stored."""

    @property
    def uid(self) -> str: ...

    @property
    def resource_version(self) -> int: ...


def etag_check(given: str) -> Callable[[Versioned], None]:
    """Returns a check of the stored resource: it raises Aborted unless `given` is empty or its current etag."""

    def check(stored: Versioned) -> None:
        current = etag(stored.uid, stored.resource_version)
        if given and given != current:
            raise Aborted(
                "the etag is outdated: the resource has changed since; read it again, then retry",
                reason="ETAG_MISMATCH",
                metadata={"etag": current},
            )

    return check


def label_selector(text: str) -> LabelSelector | None:
    """Returns the selector of a request; None if it selects everything."""
    return LabelSelector.parse(text) if text else None


def page_request(call: Call, key: bytes, *narrowed_by: str) -> PageRequest:
    """Returns the requested page of a list; `narrowed_by` are further filters, such as a namespace."""
    request = call.request
    return PageRequest(
        key=key,
        page_size=request.page_size,
        page_token=getattr(request, "page_token", ""),
        order_by=getattr(request, "order_by", ""),
        filter=getattr(request, "filter", ""),
        binding=(call.method, str(call.user_id), *narrowed_by),
    )
