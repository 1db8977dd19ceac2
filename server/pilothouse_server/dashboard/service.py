"""WatchService: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta

from pilothouse.watch.v1 import watch_pb2 as pb
from pilothouse_server.clusters.messages import KUBERNETES_EVENT
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.dashboard import events, messages, operations
from pilothouse_server.dashboard.model import OverviewQuestion
from pilothouse_server.dashboard.operations import Overviews
from pilothouse_server.errors import PilothouseError, in_field, invalid
from pilothouse_server.flowcontrol.classes import WIDE_PAGE_ROWS
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.namespaces.operations import locate
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call, Need, counts_as
from pilothouse_server.rpc.encoding import varint
from pilothouse_server.rpc.field_checks import descriptor_of
from pilothouse_server.rpc.interceptors.authorization import authorize, permission_denied
from pilothouse_server.rpc.watch import Scope, follow
from pilothouse_server.rpc.watch_answers import Frame
from pilothouse_server.rpc.watched import NounWatch, WatchServer, filter_of, sight_text
from pilothouse_server.store.feed import StreamHead
from pilothouse_server.watch.resume_token import Position, ScopesIssuer, TokenIssuer, scopes_issuer

_DAY, _LONGEST_WINDOW = timedelta(days=1), timedelta(days=366)
# A search reads many rows, so it counts as a wide page: each user may have one in progress.
_SEARCHED_ROWS = 2 * WIDE_PAGE_ROWS


class WatchService:
    """Serves `pilothouse.watch.v1.WatchService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["WatchService"]

    def __init__(
        self, watches: WatchServer, parts: Mapping[str, NounWatch], page_key: bytes, connect: Connect
    ) -> None:
        self._watches = watches
        self._parts = parts
        self._page_key = page_key
        self._connect = connect
        self._overviews = Overviews(lambda: watches.hub.newest)

    async def Watch(self, request: pb.WatchRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches several nouns."""
        needs, scopes = [], []
        for index, asked in enumerate(request.scopes):
            path = f"scopes[{index}]"
            try:
                part = self._part(asked, resumes=bool(request.resume_token))
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

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, call: Call
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Streams Kubernetes Events."""
        async with call.read() as transaction:
            namespace_ref = (await locate(transaction, request.namespace)).ref
        call.describe(namespace_id=namespace_ref.id)

        def check() -> None:
            if not any(call.caller.allows(each, request.namespace) for each in events.PERMISSIONS):
                raise permission_denied(events.PERMISSIONS[0], request.namespace)

        check()
        call.on_renewed = check
        async with aclosing(
            events.follow(self._connect, namespace_ref, request.name, once=request.once)
        ) as found:
            async for batch in found:
                seen = [
                    each
                    for each in batch
                    if call.caller.allows(events.permission_of(each), request.namespace)
                ]
                if seen or not batch:
                    yield pb.WatchEventsResponse(events=map(KUBERNETES_EVENT.to_proto, seen))
        call.complete = True

    async def GetOverview(self, request: pb.GetOverviewRequest, call: Call) -> pb.GetOverviewResponse:
        """Returns the overview."""
        window = request.usage_window.ToTimedelta() if request.HasField("usage_window") else _DAY
        if not timedelta(0) < window <= _LONGEST_WINDOW:
            raise invalid("usage_window", "must be more than 0 and at most 366 days")
        sights = operations.sights_of(call.caller)
        question = OverviewQuestion(
            await self._namespace(call, request.namespace),
            request.most_wrong or 20,
            request.most_namespaces or 100,
            request.usage_points,
            window,
        )
        found = await self._overviews.overview(lambda: call.read(snapshot=True), sights, question)
        return messages.overview(found, question)

    @counts_as(lambda request: max(request.page_size, _SEARCHED_ROWS))
    async def Search(self, request: pb.SearchRequest, call: Call) -> pb.SearchResponse:
        """Searches."""
        words = operations.words_of(request.query)
        known = operations.PERMISSIONS
        asked = {messages.word_of(noun) for noun in request.nouns} or set(known)
        for index, noun in enumerate(request.nouns):
            if messages.word_of(noun) not in known:
                raise invalid(f"nouns[{index}]", f"{pb.Noun.Name(noun)} cannot be searched")
        page = wire.page_request(
            call, self._page_key, request.query, request.namespace, ",".join(sorted(asked))
        )
        sights = {
            word: sight
            for word, sight in operations.sights_of(call.caller).items()
            if word in asked and (word != "namespace" or not request.namespace)
        }
        if not sights:
            await self._namespace(call, request.namespace)
            return pb.SearchResponse()
        async with call.read() as transaction:
            namespace_id = await named_namespace(call, transaction, request.namespace)
            found, next_page = await operations.search(transaction, page, words, sights, namespace_id)
        return pb.SearchResponse(results=map(messages.FOUND.to_proto, found), next_page_token=next_page.token)

    async def _namespace(self, call: Call, name: str) -> int | None:
        """Returns the namespace's id; None without a name. Raises NotFound if the caller may not see it."""
        if not name:
            return None
        async with call.read() as transaction:
            return await named_namespace(call, transaction, name)

    def _part(self, asked: pb.Scope, *, resumes: bool) -> NounWatch:
        """Returns the noun of a scope.

        Raises:
            InvalidArgument: a field of the scope has no meaning for the noun.
        """
        name = pb.Noun.Name(asked.noun)
        part = self._parts.get(messages.word_of(asked.noun))
        if part is None:
            raise invalid("noun", f"{name} cannot be watched")
        if asked.noun == pb.NOUN_NAMESPACE and asked.namespace:
            raise invalid("namespace", f"must be empty for {name}: put the name of the namespace into name")
        if asked.namespace and part.rule.of_platform:
            raise invalid("namespace", f"must be empty for {name}, which belongs to no namespace")
        labelled = (
            part.watched.reload is None or "labels" in descriptor_of(part.watched.message).fields_by_name
        )
        if asked.label_selector and not labelled:
            raise invalid("label_selector", f"must be empty for {name}, which has no labels")
        if asked.noun == pb.NOUN_IMAGE and asked.name:
            raise invalid("name", f'must be empty for {name}: use filter, such as image = "nginx:1.27"')
        if asked.resume_token and (asked.initial_state or resumes):
            raise invalid(
                "resume_token", "must be empty if initial_state is set or the request has a resume token"
            )
        if asked.noun != pb.NOUN_OBJECT:
            for field in ("kind", "api_version"):
                if getattr(asked, field):
                    raise invalid(field, f"must be empty for {name}: it is for NOUN_OBJECT only")
        return part


def _scope(part: NounWatch, asked: pb.Scope, index: int, path: str, *, resumes: bool) -> Scope:
    number = pb.Resource.DESCRIPTOR.fields_by_name[messages.word_of(asked.noun)].number
    return Scope(
        watched=part.watched,
        wanted=filter_of(asked, part.watched),
        permission=part.rule.permission,
        method=part.rule.method,
        namespace=asked.namespace,
        mask=read_mask.of_request(asked, part.watched.message),
        resumes=resumes and not asked.initial_state,
        list_token=asked.resume_token,
        list_text=part.selecting(asked).text if asked.resume_token else "",
        path=path,
        frame=Frame(varint(number << 3 | 2), b"\x30" + varint(index) if index else b""),
    )


def _bound(scope: Scope) -> tuple[str, str]:
    """Returns the facts about a scope that bind its tokens: its selection, and the caller's view."""
    return f"{scope.method}\x00{scope.wanted.text}", sight_text(scope.wanted, scope.wanted.visible)
