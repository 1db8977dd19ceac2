"""The calls of AuditService that are about sinks: request → operation → response."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_server.audit.sinks import messages, operations
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.errors import missing
from pilothouse_server.outbound.destinations import Reach
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import ListAnswer

_SINKS = ListAnswer(pb.ListAuditSinksResponse, "audit_sinks")


class SinkRules(msgspec.Struct, frozen=True):
    """The settings for sinks: the folder of files, if any, and the addresses that may be connected to."""

    folder: Path | None
    reach: Reach
    envelopes: Envelopes


class AuditSinkCalls:
    """The calls of AuditService about sinks."""

    def __init__(self, rules: SinkRules, page_key: bytes) -> None:
        self._sinks = rules
        self._sink_page_key = page_key

    async def CreateAuditSink(
        self, request: pb.CreateAuditSinkRequest, call: Call
    ) -> pb.CreateAuditSinkResponse:
        """Adds a sink. Whether it can be reached is detected when records are sent."""
        for field in ("name", "kind", "address"):
            if not getattr(request.audit_sink, field):
                raise missing(f"audit_sink.{field}")
        wanted = messages.AUDIT_SINK.from_proto(request.audit_sink)
        # The record of the call contains the request, also if the call is refused for a password in the address.
        request.audit_sink.address = operations.without_credentials(wanted.address)
        secrets = messages.secrets(request.credentials)
        operations.check(wanted, secrets, self._sinks.folder, self._sinks.reach)
        created = await operations.create(
            await call.transaction(),
            wanted,
            secrets,
            self._sinks.envelopes,
            request.start_after_sequence if request.HasField("start_after_sequence") else None,
        )
        call.describe(resource_id=created.id, resource_uid=created.uid)
        return pb.CreateAuditSinkResponse(audit_sink=messages.AUDIT_SINK.to_proto(created))

    async def ListAuditSinks(self, _request: pb.ListAuditSinksRequest, call: Call) -> bytes:
        """Lists sinks with their progress."""
        page = wire.page_request(call, self._sink_page_key)
        async with call.read() as transaction:
            found, next_page = await operations.list_page(transaction, page)
        return await _SINKS.rendered(found, messages.AUDIT_SINK.to_proto, next_page)

    async def DeleteAuditSink(
        self, request: pb.DeleteAuditSinkRequest, call: Call
    ) -> pb.DeleteAuditSinkResponse:
        """Removes a sink."""
        deleted = await operations.delete(await call.transaction(), request.name)
        call.describe(resource_id=deleted.id, resource_uid=deleted.uid)
        return pb.DeleteAuditSinkResponse()
