"""The noun-specific part of a watch, and its selection: which events the watch sends.

A selection is a request's namespace, name, labels, status and filter expression, with the namespaces that the caller
may see. Each event is compared with the selection twice: with the object as it is after the change, and as it was
before.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from pilothouse.watch.v1 import watch_pb2
from pilothouse_server.flowcontrol.fair_queue import FairQueue
from pilothouse_server.rpc import method_rules, wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import text_field
from pilothouse_server.rpc.field_checks import descriptor_of
from pilothouse_server.rpc.first_state import AheadLimits, first_states
from pilothouse_server.rpc.message_filter import MessageFilter
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.store.feed import Feed, FeedEvent
from pilothouse_server.store.in_namespaces import Matching
from pilothouse_server.store.unit_of_work import Kind, ReadTransaction
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.watch import resume_token
from pilothouse_server.watch.hub import Hub
from pilothouse_server.watch.resume_token import TokenIssuer

# The fields for selecting that lists and watches have in common.
_SELECTING = ("namespace", "name", "label_selector", "filter", "api_version", "kind")


@dataclass(frozen=True, slots=True)
class WatchFilter:
    """The selection of a watch: one type of resource, or several types whose events contain the same message.

    Empty fields match everything. `text` is the selection as text, to which resume tokens are bound. `fields` are
    requested values of fields of the resource that never change; `numbers` are the numbers of these fields in the
    message. `visible` are the namespaces that the caller may see when the watch begins; None: all. With `full` the
    watch sends whole resources, although an event contains only a part.
    """

    resource_type: str | frozenset[str]
    namespace_id: int | None = None
    name: str = ""
    selector: LabelSelector | None = None
    status: str = ""
    text: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    numbers: tuple[int, ...] = ()
    expression: MessageFilter | None = None
    visible: frozenset[int] | None = None
    full: bool = False

    @property
    def matching(self) -> Matching:
        """The resources that the watch begins with."""
        return Matching(self.namespace_id, self.selector, self.visible, self.name, self.status, self.fields)

    @property
    def types(self) -> frozenset[str]:
        """The types of resource that the watch concerns."""
        return frozenset({self.resource_type}) if isinstance(self.resource_type, str) else self.resource_type

    def has_fields(self, event: FeedEvent) -> bool:
        """Returns whether the object has the requested values of `fields`."""
        return all(
            text_field(event.message, number) == text
            for number, (_, text) in zip(self.numbers, self.fields, strict=True)
        )

    def concerns(self, resource_type: str) -> bool:
        """Returns whether the watch concerns this type."""
        if isinstance(self.resource_type, str):
            return resource_type == self.resource_type
        return resource_type in self.resource_type

    def matches(self, event: FeedEvent) -> bool:
        """Returns whether the object matches after the change."""
        return (
            (not self.status or event.status == self.status)
            and (self.selector is None or self.selector.matches(event.labels))
            and (self.expression is None or self.expression.matches(event.message))
        )

    def matched_before(self, event: FeedEvent) -> bool:
        """Returns whether the object matched before the change; True if the event does not show that."""
        if event.labels_before is None and event.status_before is None:
            return event.kind != "added"
        return (
            (not self.status or event.status_before == self.status)
            and (self.selector is None or self.selector.matches(event.labels_before or {}))
            and (self.expression is None or self.expression.matched_before(event) is not False)
        )


@dataclass(frozen=True, slots=True)
class WatchLimits:
    """Bounds of every watch, from the settings."""

    lag_events: int = 10_000
    first_state: AheadLimits = field(default_factory=AheadLimits)


# Returns the resources that an event concerns, as the caller sees them now, each with its kind of change.
Reload = Callable[[ReadTransaction, FeedEvent, WatchFilter, Call], Awaitable[Sequence[tuple[Kind, Message]]]]
# Returns None if the request names no namespace. Raises NotFound for a namespace that the caller cannot see.
NamespaceIdOf = Callable[[Call, ReadTransaction, str], Awaitable[int | None]]


@dataclass(frozen=True, slots=True)
class WatchServer:
    """The state that all watches of this server share.

    `namespace_id` returns the id of the namespace that a request names.
    """

    feed: Feed
    hub: Hub
    key: bytes
    namespace_id: NamespaceIdOf
    limits: WatchLimits = field(default_factory=WatchLimits)
    readers: FairQueue = field(default_factory=first_states)
    # For short queries: hundreds of one user's watches begin, or get the same event, at the same moment.
    looks: FairQueue = field(default_factory=lambda: first_states(seats_per_caller=3))


@dataclass(frozen=True, slots=True)
class Watched:
    """A noun's part of its watch.

    `resources` yields the resources that a watch begins with, as messages or serialized: those that match the filter
    (except its expression) and that the caller may see. `statuses` has the words for the values of the request's field
    `status`, if the request has that field. `fields` returns the fields of `message` that a request names. An event of
    a large resource contains only a part. If a request `is_full`, `rests` reads the other part by uid, as far as the
    caller may see it.

    Events of some nouns contain no message, because callers see different parts of the resource, or because the
    resource must not be stored there. For these `reload` reads the resource when the event is sent. `permanent` are
    further fields of the message that never change.
    """

    resource_type: str | frozenset[str]
    resources: Callable[[ReadTransaction, WatchFilter, Call], AsyncIterator[Message | bytes]]
    # The message of its events, whose fields a request may name in `filter` and `read_mask`.
    message: type[Message]
    statuses: Mapping[int, str] = field(default_factory=dict)
    fields: Callable[[Any], Mapping[str, str]] | None = None
    rests: Callable[[ReadTransaction, Sequence[str], Call], Awaitable[Mapping[str, bytes]]] | None = None
    is_full: Callable[[Any], bool] | None = None
    reload: Reload | None = None
    permanent: frozenset[str] = frozenset()

    def number(self, name: str) -> int:
        """Returns the number of a field of the resource's message."""
        return descriptor_of(self.message).fields_by_name[name].number


@dataclass(frozen=True, slots=True)
class NounWatch:
    """A noun's part of watches of several nouns, and the rule that defines the required permission.

    `rule` is that of the noun's own watch, or of its list if the noun has no watch. `selection` is the type of request
    message from which the noun's filters are made.
    """

    watched: Watched
    rule: Rule
    selection: type[Message]

    @classmethod
    def of(cls, watched: Watched, service: ServiceDescriptor, method: str) -> NounWatch:
        """Returns the part of the noun whose own watch is `method` of `service`."""
        rule = method_rules.load([service])[f"/{service.full_name}/{method}"]
        return cls(watched, rule, rule.request_class)

    @classmethod
    def listed(cls, watched: Watched, service: ServiceDescriptor, method: str) -> NounWatch:
        """Returns the part of a noun without a watch of its own; its list is `method` of `service`."""
        return cls(watched, method_rules.load([service])[f"/{service.full_name}/{method}"], watch_pb2.Scope)

    def selecting(self, request: Any) -> WatchFilter:
        """Returns the filter of a list or a scope in the form of the noun's own watch, so that tokens fit both."""
        given = request.DESCRIPTOR.fields_by_name
        own = descriptor_of(self.selection).fields_by_name
        same = {name: getattr(request, name) for name in _SELECTING if name in given and name in own}
        return filter_of(self.selection(**same), self.watched)


def filter_of(request: Any, watched: Watched) -> WatchFilter:
    """Returns the filter of a request.

    The id of the namespace that the request names is not set yet.

    Raises:
        InvalidArgument: the filter expression is invalid.
    """
    fields = request.DESCRIPTOR.fields_by_name
    status = ""
    bound: list[str] = [request.name, request.label_selector]
    if "status" in fields:
        status = watched.statuses[request.status] if request.status else ""
        bound.append(status)
    if "namespace" in fields:
        bound.append(request.namespace)
    named = tuple((watched.fields(request) if watched.fields is not None else {}).items())
    bound += (f"{name}={text}" for name, text in named)
    expression = request.filter.strip() if "filter" in fields else ""
    if expression:
        bound.append(f"filter {expression}")
    return WatchFilter(
        watched.resource_type,
        name=request.name,
        selector=wire.label_selector(request.label_selector),
        status=status,
        text="\x00".join(bound),
        fields=named,
        numbers=tuple(watched.number(name) for name, _ in named),
        expression=MessageFilter(expression, watched.message, watched.permanent) if expression else None,
        full=watched.is_full is not None and "view" in fields and watched.is_full(request),
    )


def issuer_of(
    server: WatchServer, call: Call, method: str, wanted: WatchFilter, history: str, sight: str
) -> TokenIssuer:
    """Returns the issuer of the tokens of a caller's watch by `method`; `sight` is the text of `sight_text`."""
    return resume_token.issuer(
        server.key,
        user_id=call.user_id,
        method=method,
        filter_text=wanted.text,
        history=history,
        sight=sight,
    )


def sight_text(wanted: WatchFilter, visible: frozenset[int] | None) -> str:
    """Returns the caller's view as text: the id of one namespace, or the ids of all visible namespaces.

    A later namespace of the same name has another id. The set of visible namespaces may change.
    """
    if wanted.namespace_id is not None:
        return f"namespace {wanted.namespace_id}"
    return "all" if visible is None else ",".join(map(str, sorted(visible)))
