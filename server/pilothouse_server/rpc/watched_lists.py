"""Lists that a watch continues: each page has a token by which a watch of the same selection shows later changes.

The token names the newest event that this server had seen before the page was read, so the page has everything up to
there. Changes that come while it is read, or before the next page, may be in a page and follow as events, too: each
event has the whole resource, so a client that takes them in order ends with the present state. The place costs nothing:
the hub has it, except after a start without any event.

The selection has the list's filter expression, too, as the watch has it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.watched import NounWatch, WatchServer, issuer_of, sight_text
from pilothouse_server.store.feed import event_mark
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.watch.resume_token import NO_MARK, Position


@dataclass(frozen=True, slots=True)
class WatchedList:
    """The list of a noun that its watch continues."""

    server: WatchServer
    watch: NounWatch

    def begin(self) -> BegunList:
        """Notes the place in the stream of events; called before the page is read."""
        hub = self.server.hub
        return BegunList(self, hub.history, hub.newest, hub.newest_mark)


@dataclass(frozen=True, slots=True)
class BegunList:
    """The place before a page was read. `mark` is None where the hub does not have that event."""

    of: WatchedList
    history: str
    revision: int
    mark: bytes | None

    async def token(self, call: Call, transaction: ReadTransaction, namespace_id: int | None = None) -> str:
        """Returns the token, for a caller who sees what the list showed; `namespace_id` is that of the request."""
        rule = self.of.watch.rule
        wanted = self.of.watch.selecting(call.request)
        if namespace_id is not None:
            wanted = replace(wanted, namespace_id=namespace_id)
        mark = self.mark
        if mark is None:
            mark = await event_mark(transaction, self.revision) or NO_MARK
        sight = sight_text(wanted, call.caller.namespaces_with(rule.permission))
        issuer = issuer_of(self.of.server, call, rule.method, wanted, self.history, sight)
        return issuer.token(Position(self.revision, mark))
