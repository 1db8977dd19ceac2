"""Carried objects: value ↔ protobuf, and the differences between the two.

Events and cached messages omit the document and the observed status, which may be large. To complete such a message,
append a serialized message with these two fields: protobuf parses the concatenation as one message.
"""

from __future__ import annotations

from collections.abc import Iterable

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse_server.objects.discovery import ListedKind
from pilothouse_server.objects.masking import SecretMask
from pilothouse_server.objects.model import CarriedObject, ObjectStatus, ObjectTexts
from pilothouse_server.objects.repository import Rests
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import AnswerConverter, Converter, Differences, EnumWords
from pilothouse_server.rpc.message_cache import MessageCache
from pilothouse_server.values.cached_message import CachedMessage

_INTERNAL = (
    *("id", "namespace_ref", "rights", "taken_over", "row_version"),
    "observed.contests",
)
STATUS: EnumWords[ObjectStatus] = EnumWords(ObjectStatus, pb.ObjectStatus.DESCRIPTOR)
OBJECT: Converter[CarriedObject, pb.Object] = Converter(
    CarriedObject,
    pb.Object,
    Differences(within=("observed",), struct_only=_INTERNAL),
    parts=(wire.CONDITION,),
)
BASIC: AnswerConverter[CarriedObject, pb.Object] = AnswerConverter(
    CarriedObject,
    pb.Object,
    Differences(
        within=("observed",),
        struct_only=(*_INTERNAL, "document", "observed.observed_status"),
        message_only=("document", "observed_status"),
    ),
    parts=(wire.CONDITION,),
)
KIND: AnswerConverter[ListedKind, pb.ObjectKind] = AnswerConverter(ListedKind, pb.ObjectKind)
# The creator's name can change without a change of the object's row.
CACHE: MessageCache[CarriedObject, pb.Object] = MessageCache(BASIC, ("created_by",))


def rest(texts: ObjectTexts) -> bytes:
    """Returns the fields that complete a message."""
    return pb.Object(document=texts.document, observed_status=texts.observed_status).SerializeToString()


def whole(
    items: Iterable[CachedMessage | CarriedObject], rests: Rests, mask: SecretMask
) -> Iterable[tuple[bytes, ...]]:
    """Yields serialized objects in parts, with document and observed status as the caller may see them."""
    for item in items:
        yield (*CACHE.parts(item), rest(mask.texts(rests[item.id])))
