"""AuditService: request → operation → response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.audit import drops, exporting, messages, notes, operations, proofs, tiles
from pilothouse_server.audit.operations import Sight
from pilothouse_server.audit.proofs import Head
from pilothouse_server.audit.sealing import Sealer
from pilothouse_server.audit.sinks.service import AuditSinkCalls, SinkRules
from pilothouse_server.audit.tiles import TilePath
from pilothouse_server.audit.verification import Verification
from pilothouse_server.audit.witnesses import published
from pilothouse_server.errors import FailedPrecondition, NotFound, PermissionDenied, invalid, not_found
from pilothouse_server.flowcontrol.reservation import read_slice
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.watch import DEFAULT_BOOKMARK_SECONDS
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.store import audit_records, audit_tree
from pilothouse_server.store.audit_tree import Seal
from pilothouse_server.store.feed import StreamHead, record_mark, stream_head
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.watch import resume_token
from pilothouse_server.watch.resume_token import Position

# The most records, and bytes, that a late watch reads at a time: there may be hundreds of watches with slow readers.
_STRETCH, _STRETCH_BYTES = 500, 256 * 1024
# Seconds between two responses about the progress of a verification.
_PROGRESS_SECONDS = 0.5

_WATCH = "/pilothouse.audit.v1.AuditService/WatchOperations"
_OPERATIONS = ListAnswer(pb.ListOperationsResponse, "operations")
_STATS = ListAnswer(pb.GetUserOperationStatsResponse, "user_operation_stats")


class AuditService(AuditSinkCalls):
    """Serves `pilothouse.audit.v1.AuditService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["AuditService"]

    def __init__(self, watches: WatchServer, page_key: bytes, sealer: Sealer, sinks: SinkRules) -> None:
        super().__init__(sinks, page_key)
        self._watches = watches
        self._page_key = page_key
        self._sealer = sealer

    async def ListOperations(self, request: pb.ListOperationsRequest, call: Call) -> bytes:
        """Lists records."""
        mask = read_mask.of_request(request, pb.Operation)
        page = wire.page_request(call, self._page_key, request.namespace)
        await self._watches.feed.settled()
        async with call.read(replica=True) as transaction:
            # Read before the page, so that the page has every record up to this head.
            head = await stream_head(transaction)
            sight = await _sight(call, transaction, request.namespace)
            found, next_page = await operations.list_operations(transaction, page, sight)
        continuing = pb.WatchOperationsRequest(namespace=request.namespace, filter=request.filter)
        tokens = self._tokens(call, continuing, head.history, str(sight.namespace_id or ""))
        token = tokens.token(Position(head.audit_sequence, head.record_mark))
        return await _OPERATIONS.rendered(found, messages.OPERATION.to_proto, next_page, token, mask)

    async def GetOperation(self, request: pb.GetOperationRequest, call: Call) -> pb.GetOperationResponse:
        """Returns one record."""
        await self._watches.feed.settled()
        async with call.read() as transaction:
            found = await operations.locate(
                transaction, UUID(request.operation_id), Sight(_own(call), call.visible_namespaces())
            )
        return pb.GetOperationResponse(operation=messages.OPERATION.to_proto(found))

    async def GetUserOperationStats(self, request: pb.GetUserOperationStatsRequest, call: Call) -> bytes:
        """Returns statistics of the users' operations."""
        if call.caller.narrowed:
            raise PermissionDenied(
                "this method covers all namespaces of the caller, but the key is restricted to some of them",
                reason="KEY_NAMESPACES",
            )
        page = wire.page_request(call, self._page_key, request.username)
        await self._watches.feed.settled()
        async with call.read() as transaction:
            found, next_page = await operations.list_stats(transaction, page, request.username)
        return await _STATS.rendered(found, messages.USER_OPERATION_STATS.to_proto, next_page)

    async def WatchOperations(
        self, request: pb.WatchOperationsRequest, call: Call
    ) -> AsyncIterator[pb.WatchOperationsResponse]:
        """Watches records in the order of the log.

        A record may be numbered while a watch reads, but never before a record that was read: sequences are assigned
        under a lock that is held until the commit.
        """
        mask = read_mask.of_request(request, pb.Operation)
        operations.check_filter(request.filter)
        await self._watches.feed.settled()
        hub = self._watches.hub
        records = hub.records
        # Hundreds of watches of one user wake at the same time; they must not delay the calls of other users.
        looks = self._watches.looks
        async with looks.seat(call.user_id), call.read(snapshot=True) as transaction:
            head = await stream_head(transaction)
            try:
                sight = await _sight(call, transaction, request.namespace)
            except NotFound:
                if request.resume_token:
                    gone = self._tokens(call, request, "", "")
                    gone.read(request.resume_token, oldest_revision=await _oldest(call))
                raise
        tokens = self._tokens(call, request, head.history, str(sight.namespace_id or ""))
        if request.resume_token:
            position, mark = await self._resumed(request.resume_token, call, tokens, head)
        else:
            position, mark = head.audit_sequence, head.record_mark
            yield _answer(resource.CHANGE_TYPE_SYNCED, tokens, Position(position, mark))
        period = float(request.bookmark_period_seconds or DEFAULT_BOOKMARK_SECONDS)
        loop = asyncio.get_running_loop()
        last_sent = loop.time()
        while True:
            behind = await records.beyond(position, max(0.0, last_sent + period - loop.time()))
            if hub.history != head.history:
                raise resume_token.changed(await _oldest(call))
            if not behind:
                if loop.time() < last_sent + period:
                    continue
                async with looks.seat(call.user_id), call.read() as transaction:
                    await _check_namespace(call, transaction, sight.namespace_id)
                yield _answer(resource.CHANGE_TYPE_BOOKMARK, tokens, Position(position, mark))
                last_sent = loop.time()
                continue
            newest = records.newest
            async with looks.seat(call.user_id), call.read() as transaction:
                await _check_namespace(call, transaction, sight.namespace_id)
                sight = Sight(
                    _own(call),
                    call.visible_namespaces(),
                    sight.namespace_id,
                    request.username,
                    request.action,
                    request.resource_type,
                    request.filter,
                )
                found, cut = await operations.operations_between(
                    transaction, position, newest, sight, most=_STRETCH, most_bytes=_STRETCH_BYTES
                )
                position = found[-1].sequence if cut else newest
                mark = await record_mark(transaction, position) or resume_token.NO_MARK
            for item in found:
                call.resume_token = tokens.token(Position(item.sequence, item.mark))
                shown = messages.OPERATION.to_proto(item)
                if mask is not None:
                    shown = pb.Operation.FromString(mask.masked(shown.SerializeToString()))
                yield pb.WatchOperationsResponse(
                    change_type=resource.CHANGE_TYPE_ADDED,
                    operation=shown,
                    revision=item.sequence,
                    resume_token=call.resume_token,
                )
                last_sent = loop.time()

    async def GetAuditHead(self, request: pb.GetAuditHeadRequest, call: Call) -> pb.GetAuditHeadResponse:
        """Returns a sealed head; seals one if there is none."""
        head = await self._head(call, request.size)
        if request.witnessed and not head.witnessed:
            seal = await published(call.store, self._sealer.identity.policy)
            if seal is None:
                raise not_found("audit head", "signed by witnesses")
            head = await self._with_keys(call, seal)
        return pb.GetAuditHeadResponse(head=messages.AUDIT_HEAD.to_proto(head))

    async def GetAuditTile(self, request: pb.GetAuditTileRequest, call: Call) -> pb.GetAuditTileResponse:
        """Returns a tile of the tree."""
        async with call.store.system_read() as transaction:
            return pb.GetAuditTileResponse(tile=await tiles.read(transaction, TilePath.parse(request.path)))

    async def ProveOperation(
        self, request: pb.ProveOperationRequest, call: Call
    ) -> pb.ProveOperationResponse:
        """Returns the proof of a record that the caller may see."""
        await self._watches.feed.settled()
        sight = Sight(_own(call), call.visible_namespaces())
        async with call.read() as transaction:
            row = await operations.locate_row(
                transaction, UUID(request.operation_id), sight, request.sequence
            )
        index = row.sequence - 1
        seal = await self._sealer.covering(row.sequence)
        async with call.store.system_read() as transaction:
            state = await audit_tree.read(transaction)
            hashes = await proofs.inclusion(transaction, state, index, seal.size)
        return pb.ProveOperationResponse(
            sequence=row.sequence,
            record=audit_records.canonical_json(audit_records.stored_row(row)).decode(),
            leaf_index=index,
            hashes=[notes.base64_text(each) for each in hashes],
            head=messages.AUDIT_HEAD.to_proto(proofs.head_of(seal, state, self._sealer.identity)),
            proof=proofs.text(index, hashes, seal.note),
        )

    async def ProveConsistency(
        self, request: pb.ProveConsistencyRequest, call: Call
    ) -> pb.ProveConsistencyResponse:
        """Returns the proof that the log continues an earlier head."""
        if bool(request.checkpoint) == bool(request.first_size):
            raise invalid("checkpoint", "exactly one of checkpoint and first_size must be given")
        head = await self._head(call, request.second_size)
        async with call.store.system_read() as transaction:
            state = await audit_tree.read(transaction)
            first = request.first_size
            if request.checkpoint:
                kept = proofs.accepted(request.checkpoint, state, self._sealer.identity)
                if differs := await proofs.differs(transaction, state, kept):
                    raise FailedPrecondition(differs, reason="AUDIT_LOG_CONTRADICTS_CHECKPOINT")
                first = kept.size
            hashes = await proofs.consistency(transaction, state, first, head.size)
        return pb.ProveConsistencyResponse(
            first_size=first,
            hashes=[notes.base64_text(each) for each in hashes],
            head=messages.AUDIT_HEAD.to_proto(head),
        )

    async def VerifyAuditLog(
        self, request: pb.VerifyAuditLogRequest, call: Call
    ) -> AsyncIterator[pb.VerifyAuditLogResponse]:
        """Verifies all of the log, or the records of it that the caller may see."""
        await self._watches.feed.settled()
        identity = self._sealer.identity
        head: Seal | None
        refused = ""
        try:
            head = await self._sealer.seal()
        except FailedPrecondition as error:
            # The verification below finds the fault and its position. But it does not detect that heads which this
            # server has seen are missing.
            head, refused = None, error.message
        async with call.store.system_read() as transaction:
            state = await audit_tree.read(transaction)
        kept = proofs.accepted(request.checkpoint, state, identity) if request.checkpoint else None
        loop = asyncio.get_running_loop()
        told = loop.time()

        async def visible(after: int, upto: int) -> Sequence[Any]:
            async with call.read() as transaction:
                sight = await _sight(call, transaction, request.namespace)
                return await operations.visible_records(transaction, after, upto, sight)

        complete = call.visible_namespaces() is None and not request.namespace
        walk = Verification(call.store, state, identity, kept, None if complete else visible)
        async for report in walk.run():
            if report.done:
                if refused:
                    report.refused(refused)
                known = None if head is None else proofs.head_of(head, state, identity)
                call.complete = True
                yield messages.verification(report, known, complete=complete)
            elif loop.time() - told >= _PROGRESS_SECONDS:
                told = loop.time()
                yield messages.verification(report, None)

    async def ExportAuditLog(
        self, request: pb.ExportAuditLogRequest, call: Call
    ) -> AsyncIterator[pb.ExportAuditLogResponse | bytes]:
        """Exports records with their proofs."""
        await self._watches.feed.settled()
        head = await self._head(call, request.tree_size) if request.tree_size else await self._newest(call)
        async with call.store.system_read() as transaction:
            state = await audit_tree.read(transaction)
        yield pb.ExportAuditLogResponse(head=messages.AUDIT_HEAD.to_proto(head))

        async def read(after: int, upto: int, most: int) -> list[Any]:
            async with read_slice(), call.read() as transaction:
                sight = await _sight(call, transaction, request.namespace)
                return await operations.exported_records(
                    transaction,
                    after,
                    upto,
                    sight,
                    request.filter,
                    most=most,
                    most_bytes=exporting.MOST_BYTES_AT_ONCE,
                )

        async for found in exporting.export(call.store, read, request.after_sequence, head.size):
            answer = messages.exported(found).SerializeToString()
            # While a slow reader receives the response, nothing else stays in memory.
            found.clear()
            yield answer
            del answer
        dropped = ""
        if sees_all := call.visible_namespaces() is None:
            async with call.store.system_read() as transaction:
                told = await operations.drop_records(transaction)
            dropped = drops.exported(told, self._sealer.identity.verifiers(state))
        call.complete = True
        yield pb.ExportAuditLogResponse(done=True, sees_all=sees_all, dropped=dropped)

    async def _head(self, call: Call, size: int) -> Head:
        """Returns the head of a size, or the newest one."""
        if size:
            async with call.store.system_read() as transaction:
                seal = await proofs.sealed_head(transaction, size)
        else:
            seal = await self._sealer.covering(1)
        return await self._with_keys(call, seal)

    async def _newest(self, call: Call) -> Head:
        """Returns a head over all records until now."""
        return await self._with_keys(call, await self._sealer.seal())

    async def _with_keys(self, call: Call, seal: Seal) -> Head:
        async with call.store.system_read() as transaction:
            state = await audit_tree.read(transaction)
        return proofs.head_of(seal, state, self._sealer.identity)

    def _tokens(
        self, call: Call, request: pb.WatchOperationsRequest, history: str, namespace_id: str
    ) -> resume_token.TokenIssuer:
        selection = [request.namespace, request.username, request.action, request.resource_type]
        if expression := request.filter.strip():
            selection.append(f"filter {expression}")
        return resume_token.issuer(
            self._watches.key,
            user_id=call.user_id,
            method=_WATCH,
            filter_text="\x00".join(selection),
            history=history,
            sight=namespace_id,
        )

    async def _resumed(
        self, token: str, call: Call, tokens: resume_token.TokenIssuer, head: StreamHead
    ) -> tuple[int, bytes]:
        """Returns the position and mark of a token; raises if the log no longer has this position."""
        async with call.store.system_read() as transaction:
            oldest = await operations.oldest_sequence(transaction)
            position = tokens.read(token, oldest_revision=oldest)
            if not oldest - 1 <= position.revision <= head.audit_sequence:
                raise resume_token.horizon(oldest)
            mark = await record_mark(transaction, position.revision)
        if mark is not None and mark != position.mark:
            raise resume_token.changed(oldest)
        return position.revision, position.mark


async def _oldest(call: Call) -> int:
    """Returns the sequence of the oldest record that is stored."""
    async with call.store.system_read() as transaction:
        return await operations.oldest_sequence(transaction)


async def _check_namespace(call: Call, transaction: ReadTransaction, namespace_id: int | None) -> None:
    """Raises NotFound if the watched namespace was deleted, even if another one has its name."""
    if namespace_id is None:
        return
    try:
        if await named_namespace(call, transaction, call.namespace) == namespace_id:
            return
    except NotFound:
        pass
    call.complete = True
    raise not_found("namespace", call.namespace)


async def _sight(call: Call, transaction: ReadTransaction, namespace: str) -> Sight:
    """Returns the part of the log that the caller may see, narrowed to a namespace if one is named."""
    namespace_id = await named_namespace(call, transaction, namespace)
    return Sight(_own(call), call.visible_namespaces(), namespace_id)


def _own(call: Call) -> int:
    """Returns the user whose records are visible in every namespace: the caller, or 0 for a key that is limited to some
    namespaces.
    """
    return 0 if call.caller.narrowed else call.user_id


def _answer(
    change: resource.ChangeType.ValueType, tokens: resume_token.TokenIssuer, position: Position
) -> pb.WatchOperationsResponse:
    return pb.WatchOperationsResponse(
        change_type=change, revision=position.revision, resume_token=tokens.token(position)
    )
