"""WatchService: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing

from pilothouse.watch.v1 import watch_pb2 as pb
from pilothouse_server.errors import PilothouseError, in_field, invalid
from pilothouse_server.rpc import read_mask
from pilothouse_server.rpc.call import Call, Need
from pilothouse_server.rpc.encoding import varint
from pilothouse_server.rpc.interceptors.authorization import authorize
from pilothouse_server.rpc.watch import Scope, follow
from pilothouse_server.rpc.watch_answers import Frame
from pilothouse_server.rpc.watched import NounWatch, WatchServer, filter_of, sight_text
from pilothouse_server.store.feed import StreamHead
from pilothouse_server.watch.resume_token import Position, ScopesIssuer, TokenIssuer, scopes_issuer

_PREFIX = "NOUN_"


class WatchService:
    """Serves `pilothouse.watch.v1.WatchService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["WatchService"]

    def __init__(self, watches: WatchServer, parts: Mapping[str, NounWatch]) -> None:
        self._watches = watches
        self._parts = parts

    async def Watch(self, request: pb.WatchRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches several nouns."""
        needs, scopes = [], []
        for index, asked in enumerate(request.scopes):
            path = f"scopes[{index}]"
            try:
                part = self._part(asked)
                scope = _scope(part, asked, index, path, resumes=bool(request.resume_token))
                authorize(part.rule, call.caller, asked.namespace)
            except PilothouseError as error:
                raise in_field(error, path) from None
            needs.append(Need(part.rule, asked.namespace, path))
            scopes.append(scope)
        call.needs = needs
        key = self._watches.key

        def issue(placed: Sequence[Scope], history: str) -> ScopesIssuer:
            return scopes_issuer(
                key,
                user_id=call.user_id,
                method=call.method,
                history=history,
                scopes=[_bound(each) for each in placed],
            )

        def resume(tokens: TokenIssuer, placed: Sequence[Scope], head: StreamHead) -> Position:
            assert isinstance(tokens, ScopesIssuer), "issue makes them"
            resuming = [each for each in placed if each.resumes]
            position, faults = tokens.read_scopes(
                request.resume_token,
                [_bound(each) for each in resuming],
                oldest_revision=head.oldest_revision,
            )
            for scope, fault in zip(resuming, faults, strict=True):
                if fault is not None:
                    raise scope.error(fault)
            return position

        async with aclosing(follow(self._watches, call, scopes, issue, resume)) as answers:
            async for answer in answers:
                yield answer

    def _part(self, asked: pb.Scope) -> NounWatch:
        """The noun of a scope.

        Raises:
            InvalidArgument: a field of the scope has no meaning for it.
        """
        name = pb.Noun.Name(asked.noun)
        part = self._parts.get(name.removeprefix(_PREFIX).lower())
        if part is None:
            raise invalid("noun", f"{name} cannot be watched")
        if asked.noun == pb.NOUN_NAMESPACE and asked.namespace:
            raise invalid("namespace", f"must be empty for {name}: put the name of the namespace into name")
        if asked.noun != pb.NOUN_OBJECT:
            for field in ("kind", "api_version"):
                if getattr(asked, field):
                    raise invalid(field, f"must be empty for {name}: it is for NOUN_OBJECT only")
        return part


def _scope(part: NounWatch, asked: pb.Scope, index: int, path: str, *, resumes: bool) -> Scope:
    word = pb.Noun.Name(asked.noun).removeprefix(_PREFIX).lower()
    number = pb.Resource.DESCRIPTOR.fields_by_name[word].number
    return Scope(
        watched=part.watched,
        wanted=filter_of(asked, part.watched),
        permission=part.rule.permission,
        method=part.rule.method,
        namespace=asked.namespace,
        mask=read_mask.of_request(asked, part.watched.message),
        resumes=resumes and not asked.initial_state,
        path=path,
        frame=Frame(varint(number << 3 | 2), b"\x30" + varint(index) if index else b""),
    )


def _bound(scope: Scope) -> tuple[str, str]:
    """Returns the facts about a scope that bind its tokens: its selection, and the caller's view."""
    return f"{scope.method}\x00{scope.wanted.text}", sight_text(scope.wanted, scope.wanted.visible)
