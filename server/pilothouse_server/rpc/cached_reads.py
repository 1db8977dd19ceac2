"""Reads of a noun's resources that send messages as they are stored, and render a message only if none is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import AnswerField, ListAnswer
from pilothouse_server.rpc.message_cache import MessageCache
from pilothouse_server.rpc.watched import WatchFilter
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.store.cached_rows import CachedRows
from pilothouse_server.store.in_namespaces import Matching
from pilothouse_server.store.unit_of_work import ReadTransaction


@dataclass(frozen=True, slots=True)
class CachedReads:
    """The rows of a noun, the cache of their messages, and the responses of its methods Get and List."""

    rows: CachedRows[Any, Any]
    cache: MessageCache[Any, Any]
    got: AnswerField
    listed: ListAnswer

    async def get(self, request: Any, call: Call) -> bytes | None:
        """Returns the response of Get; None if the resource must be rendered, or the caller cannot see it."""
        found = await self.rows.find(
            call.store, call.user_id, request.namespace, request.name, self.cache.format
        )
        if found is None or found.message is None:
            return None
        call.describe(
            resource_id=found.id,
            resource_uid=self.cache.uid(found.message),
            namespace_id=found.namespace_id,
        )
        return self.got.answer(*self.cache.parts(found))

    async def list(self, request: Any, call: Call, page_key: bytes, watched: WatchedList) -> bytes:
        """Returns the response of List, with the token from which the watch continues.

        Raises:
            NotFound: the caller cannot see a namespace of that name.
            InvalidArgument: the filter, the order, the mask or the token of the page is wrong.
        """
        page = wire.page_request(call, page_key, request.namespace, request.label_selector)
        mask = read_mask.of_request(request, self.cache.message)
        begun = watched.begin()
        async with call.read() as transaction:
            namespace_id = await watched.server.namespace_id(call, transaction, request.namespace)
            selector = wire.label_selector(request.label_selector)
            wanted = Matching(namespace_id, selector, call.visible_namespaces())
            found, next_page = await self.rows.list_page(transaction, page, wanted, self.cache.format)
            token = await begun.token(call, transaction, namespace_id)
        return await self.listed.answer(map(self.cache.parts, found), next_page, token, mask)

    async def first_state(
        self, transaction: ReadTransaction, wanted: WatchFilter, _call: Call
    ) -> AsyncIterator[bytes]:
        """Yields the messages with which a watch begins."""
        async for item in self.rows.stream(transaction, wanted.matching, self.cache.format):
            yield b"".join(self.cache.parts(item))
