"""AuditService: request → operation → response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.audit import messages, operations
from pilothouse_server.audit.operations import Sight
from pilothouse_server.errors import NotFound, not_found
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.watch import DEFAULT_BOOKMARK_SECONDS, WatchServer
from pilothouse_server.store.feed import StreamHead, record_mark, stream_head
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.watch import resume_token
from pilothouse_server.watch.resume_token import Position

_STRETCH = 500


class AuditService:
    """Serves `pilothouse.audit.v1.AuditService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["AuditService"]

    def __init__(self, watches: WatchServer, page_key: bytes) -> None:
        self._watches = watches
        self._page_key = page_key

    async def ListOperations(
        self, request: pb.ListOperationsRequest, call: Call
    ) -> pb.ListOperationsResponse:
        """Lists records."""
        page = wire.page_request(call, self._page_key, request.namespace)
        await self._watches.feed.settled()
        async with call.read(replica=True) as transaction:
            sight = await _sight(call, transaction, request.namespace)
            found, token = await operations.list_operations(transaction, page, sight)
        return pb.ListOperationsResponse(
            operations=[messages.OPERATION.to_proto(item) for item in found], next_page_token=token
        )

    async def GetOperation(self, request: pb.GetOperationRequest, call: Call) -> pb.GetOperationResponse:
        """Returns one record."""
        await self._watches.feed.settled()
        async with call.read() as transaction:
            found = await operations.locate(
                transaction, UUID(request.operation_id), Sight(call.user_id, call.visible_namespaces())
            )
        return pb.GetOperationResponse(operation=messages.OPERATION.to_proto(found))

    async def GetUserOperationStats(
        self, request: pb.GetUserOperationStatsRequest, call: Call
    ) -> pb.GetUserOperationStatsResponse:
        """Returns what users have done."""
        page = wire.page_request(call, self._page_key, request.username)
        await self._watches.feed.settled()
        async with call.read() as transaction:
            found, token = await operations.list_stats(transaction, page, request.username)
        return pb.GetUserOperationStatsResponse(
            user_operation_stats=[messages.USER_OPERATION_STATS.to_proto(item) for item in found],
            next_page_token=token,
        )

    async def WatchOperations(
        self, request: pb.WatchOperationsRequest, call: Call
    ) -> AsyncIterator[pb.WatchOperationsResponse]:
        """Watches records in the order of the chain.

        A record may be numbered while a watcher looks, never before one that is seen: sequences are given
        under the lock that is held until the commit.
        """
        await self._watches.feed.settled()
        hub = self._watches.hub
        records = hub.records
        async with call.read(snapshot=True) as transaction:
            head = await stream_head(transaction)
            try:
                sight = await _sight(
                    call,
                    transaction,
                    request.namespace,
                    username=request.username,
                    action=request.action,
                    resource_type=request.resource_type,
                )
            except NotFound:
                if request.resume_token:
                    gone = self._tokens(call, "", "")
                    gone.read(request.resume_token, oldest_revision=await _oldest(call))
                raise
        tokens = self._tokens(call, head.history, str(sight.namespace_id or ""))
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
                async with call.read() as transaction:
                    await _check_namespace(call, transaction, sight.namespace_id)
                yield _answer(resource.CHANGE_TYPE_BOOKMARK, tokens, Position(position, mark))
                last_sent = loop.time()
                continue
            newest = records.newest
            async with call.read() as transaction:
                await _check_namespace(call, transaction, sight.namespace_id)
                sight = Sight(
                    call.user_id,
                    call.visible_namespaces(),
                    sight.namespace_id,
                    request.username,
                    request.action,
                    request.resource_type,
                )
                found = await operations.operations_between(
                    transaction, position, newest, sight, most=_STRETCH
                )
                position = found[-1].sequence if len(found) == _STRETCH else newest
                mark = await record_mark(transaction, position) or resume_token.NO_MARK
            for item in found:
                call.resume_token = tokens.token(Position(item.sequence, item.chain_hash[:8]))
                yield pb.WatchOperationsResponse(
                    change_type=resource.CHANGE_TYPE_ADDED,
                    operation=messages.OPERATION.to_proto(item),
                    revision=item.sequence,
                    resume_token=call.resume_token,
                )
                last_sent = loop.time()

    def _tokens(self, call: Call, history: str, namespace_id: str) -> resume_token.TokenIssuer:
        request = call.request
        return resume_token.issuer(
            self._watches.key,
            user_id=call.user_id,
            method=call.method,
            filter_text="\x00".join(
                (request.namespace, request.username, request.action, request.resource_type)
            ),
            history=history,
            sight=namespace_id,
        )

    async def _resumed(
        self, token: str, call: Call, tokens: resume_token.TokenIssuer, head: StreamHead
    ) -> tuple[int, bytes]:
        """Where a token stands, if that is a place in this log that is still kept."""
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
    """The oldest record that is kept."""
    async with call.store.system_read() as transaction:
        return await operations.oldest_sequence(transaction)


async def _check_namespace(call: Call, transaction: ReadTransaction, namespace_id: int | None) -> None:
    """Raises NotFound where the namespace that is watched is gone, though there may be another of its name."""
    if namespace_id is None:
        return
    try:
        if await named_namespace(call, transaction, call.namespace) == namespace_id:
            return
    except NotFound:
        pass
    call.complete = True
    raise not_found("namespace", call.namespace)


async def _sight(
    call: Call,
    transaction: ReadTransaction,
    namespace: str,
    *,
    username: str = "",
    action: str = "",
    resource_type: str = "",
) -> Sight:
    """What the caller may see of the log, narrowed to a namespace if one is named."""
    namespace_id = await named_namespace(call, transaction, namespace)
    return Sight(call.user_id, call.visible_namespaces(), namespace_id, username, action, resource_type)


def _answer(
    change: resource.ChangeType.ValueType, tokens: resume_token.TokenIssuer, position: Position
) -> pb.WatchOperationsResponse:
    return pb.WatchOperationsResponse(
        change_type=change, revision=position.revision, resume_token=tokens.token(position)
    )
