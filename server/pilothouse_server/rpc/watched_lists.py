"""Lists that a watch continues: each page has a token for a watch of later changes.

The watch has the same selection as the list. The token names the newest event that this server had read before the
page, so the page contains everything up to that event. Changes that are committed while the page is read, or before the
next page, may be in a page and also follow as events. Each event has the whole resource, so a client that applies both
in order ends with the present state. The position needs no query: the hub has it, unless this server has read no event
since its start.

The selection includes the list's filter expression, as that of a watch does.
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
        """Returns the list with the present position in the stream of events; called before the page is read."""
        hub = self.server.hub
        return BegunList(self, hub.history, hub.newest, hub.newest_mark)


@dataclass(frozen=True, slots=True)
class BegunList:
    """The position before a page was read.

    `mark` is None if the hub does not contain the event of `revision`.
    """

    of: WatchedList
    history: str
    revision: int
    mark: bytes | None

    async def token(self, call: Call, transaction: ReadTransaction, namespace_id: int | None = None) -> str:
        """Returns the token, for callers with the same view; `namespace_id` is that of the request's namespace."""
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
