"""What the messages of all nouns share: conditions, times, etags, pages."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.errors import Aborted
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.converter import AnswerConverter, Differences, etag
from pilothouse_server.store.paging import PageRequest
from pilothouse_server.values.resources import Condition

# `made_from` is of the platform's own use.
CONDITION = AnswerConverter(Condition, resource.Condition, Differences(struct_only=("made_from",)))


def moment(message: Timestamp) -> datetime:
    """A protobuf time in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def check_etag(given: str, uid: str, resource_version: int) -> None:
    """Raises Aborted unless `given` is empty or the current etag."""
    if given and given != etag(uid, resource_version):
        raise Aborted(
            "the etag is not the current one: somebody else changed it; read it again, then retry",
            reason="ETAG_MISMATCH",
            metadata={"etag": etag(uid, resource_version)},
        )


def page_request(call: Call, key: bytes, *narrowed_by: str) -> PageRequest:
    """The page that a list request asks for; `narrowed_by` is what else narrows the list, such as
    its namespace.
    """
    request = call.request
    return PageRequest(
        key=key,
        page_size=request.page_size,
        page_token=getattr(request, "page_token", ""),
        order_by=getattr(request, "order_by", ""),
        filter=getattr(request, "filter", ""),
        binding=(call.method, str(call.user_id), *narrowed_by),
    )
