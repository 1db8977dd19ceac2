"""One call, as the interceptors and the handler see it.

It holds all facts about a call: its rule, the caller, the request, the transaction that the handler works in,
and the names for the audit record. A handler gets the request and this; it never sees gRPC.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

from google.protobuf.message import Message

from pilothouse_server.authorization.access import REVEAL, Grant, May, Principal
from pilothouse_server.errors import PilothouseError, ResourceExhausted, in_field
from pilothouse_server.rpc.headers import Headers
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.tls.shown import Shown
from pilothouse_server.settings.model import TrustedPeer
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.unit_of_work import Actor, ReadTransaction, Store, Transaction, UnitOfWork
from pilothouse_server.values.random_ids import random_id

Send = Callable[[bytes], Awaitable[None]]


class Need(NamedTuple):
    """A permission that a call goes on needing: that of `rule` in a namespace, for the field `path` of its request."""

    rule: Rule
    namespace: str
    path: str = ""

    def error(self, error: PilothouseError) -> PilothouseError:
        """The error of this need, with the name of its field."""
        return in_field(error, self.path) if self.path else error


Handler = TypeVar("Handler", bound=Callable[..., Any])


class CallClaim(Protocol):
    """The right of a call to serve its `request_id` (`idempotency.RequestClaim`)."""

    async def begin(self, transaction: ReadTransaction) -> None: ...

    async def finish(self) -> None: ...


@dataclass(slots=True)
class AuditFacts:
    """The handler's additions to the audit record, beyond the fields that the rule reads from the request.

    `grant` is the one that let the caller in. `before` renders the resource as it was before an update.
    `secrets` are the paths of changed values that no answer shows, and whether each was set before, and is
    after.
    """

    resource_id: int | None = None
    resource_uid: str = ""
    resource_name: str | None = None
    namespace_id: int | None = None
    grant: Grant | None = None
    before: Callable[[], Message] | None = None
    secrets: Mapping[str, tuple[bool, bool]] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class Call:
    """One call in flight.

    `request` is the parsed message of a unary request, `requests` the iterator of a stream of them.
    `principal` is set unless the method is public; for streams it is renewed while they last.
    """

    __slots__ = (
        "_actor",
        "_draft",
        "_operation_id",
        "_request_id",
        "_unit",
        "_write_as_system",
        "answer",
        "claim",
        "client_ip",
        "complete",
        "deadline",
        "facts",
        "handler_reached",
        "headers",
        "method",
        "needs",
        "on_renewed",
        "opened",
        "operation",
        "parse_error",
        "principal",
        "refusal",
        "refused_by_grpc",
        "request",
        "requests",
        "resume_token",
        "rule",
        "send",
        "shown",
        "started",
        "started_at",
        "store",
        "token",
        "trailing_metadata",
        "unheard",
        "waited_seconds",
    )

    def __init__(self, rule: Rule, store: Store, headers: Headers) -> None:
        self.rule = rule
        self.method = rule.method
        self.store = store
        self.headers = headers
        # The id of the operation, as text; `operation_id` is the same as a number.
        self.operation = random_id()
        self._operation_id: UUID | None = None
        self.started = time.perf_counter()
        # Whether its client was gone when it was refused.
        self.unheard = False
        # How long its refusal waited to be sent.
        self.waited_seconds = 0.0
        self.started_at = store.clock.now()
        self.deadline: float | None = None
        self.client_ip = ""
        self.token = headers.token
        # The caller's credential: the token, unless the connection has an accepted certificate.
        self.shown: Shown = self.token
        self.principal: Principal | None = None
        # Why it was refused before the layers: no valid token, no request in time, no seat.
        self.refusal: BaseException | None = None
        self.parse_error: PilothouseError | None = None
        # Whether gRPC itself has refused a request, which ends the call by its words.
        self.refused_by_grpc = False
        self.request: Any = None
        self.requests: AsyncIterator[Message] | None = None
        self.send: Send | None = None
        # Of the answer that a stream is about to send, '' before the first: what a consumer that is too slow resumes
        # with.
        self.resume_token = ""
        self.facts = AuditFacts()
        self.handler_reached = False
        # Of a stream: whether it is recorded that it opened.
        self.opened = False
        # Set by a stream that has an end once its last answer is sent: a client that goes away then missed nothing.
        self.complete = False
        # Permissions that the caller of a stream must hold while it is open; empty: the one of its rule.
        self.needs: Sequence[Need] = ()
        # Called when the caller of a stream, looked up again, turns out to hold other grants; PermissionDenied ends it.
        self.on_renewed: Callable[[], None] = _nothing
        self.trailing_metadata: dict[str, str] = {}
        # The handler's answer, if it was a message.
        self.answer: Message | None = None
        # The right to serve its `request_id`; None where it has none, or may be served again.
        self.claim: CallClaim | None = None
        self._draft: Draft | None = None
        self._request_id: UUID | None = None
        self._unit: UnitOfWork | None = None
        self._actor: Actor | None = None
        self._write_as_system = False

    def close(self) -> None:
        """Drops the references to the request and to the error of the call, which is over.

        Errors know the frames that they passed, and these the call: such a cycle would stay until the interpreter looks
        for garbage. And asyncio keeps the context of a timer, and by it the call, until the timer would have ended.
        """
        self.refusal = self.parse_error = None
        self.request = self.requests = self.answer = self.claim = None

    def log_fields(self) -> dict[str, str]:
        """Returns the facts about the call for each of its log lines."""
        fields = {"operation_id": self.operation, "method": self.method}
        return fields if self.principal is None else {**fields, "username": self.principal.username}

    @property
    def operation_id(self) -> UUID:
        """The id under which log, record and caller name the call."""
        if self._operation_id is None:
            self._operation_id = UUID(self.operation)
        return self._operation_id

    @property
    def user_id(self) -> int:
        """Id of the caller; only where a log-in is needed."""
        return self.caller.user_id

    @property
    def caller(self) -> Principal:
        """The caller; only where a log-in is needed."""
        assert self.principal is not None, "a public method has no caller"
        return self.principal

    @property
    def namespace(self) -> str:
        """The namespace that the request names; '' where it names none."""
        return "" if self.request is None else self.rule.namespace_of(self.request)

    @property
    def unit(self) -> UnitOfWork | Draft | None:
        """Returns the change to commit with the record, once the handler has its transaction or drafted one."""
        return self._draft if self._draft is not None and self._draft.writes else self._unit

    @property
    def request_id(self) -> UUID | None:
        """The request's `request_id`, if the method has one and it is given."""
        given = self.rule.has_request_id and self.request is not None and self.request.request_id
        if not given:
            return None
        if self._request_id is None:
            self._request_id = UUID(given)
        return self._request_id

    @property
    def happens_once_by(self) -> UUID | None:
        """The `request_id` under which the call is done once; None where it may be done again."""
        return None if self.principal is None or self.validate_only else self.request_id

    @property
    def validate_only(self) -> bool:
        """Whether nothing may be written but the audit record."""
        return self.rule.has_validate_only and self.request is not None and bool(self.request.validate_only)

    async def transaction(self) -> Transaction:
        """The one transaction of a mutation, opened on first use; the kernel commits it after the handler has returned.

        Raises:
            Replayed, BeingServed: the request is a replay, which the innermost layer handles.
        """
        assert self.rule.mutates, f"{self.method} declares no mutation, so it may not write"
        return await self._begun()

    def draft(self) -> Draft:
        """A change that the kernel sends by one statement after the handler has returned, in place of a transaction.

        The statement by which the handler reads its facts also looks for a replay.
        """
        assert self.rule.mutates, f"{self.method} declares no mutation, so it may not write"
        self.close_draft()
        actor = self.actor
        self._draft = Draft(self.store, actor, self.operation_id, self.method, self.happens_once_by)
        return self._draft

    def begin_again(self) -> bool:
        """Drops a draft that was outdated as it was sent, and returns whether there was one: then nothing is written,
        and the handler may make another.
        """
        drafted, self.answer, self._unit = self._draft is not None, None, None
        self.close_draft()
        return drafted

    def close_draft(self) -> None:
        """Drops a draft, and lets others have its turn."""
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    async def system_transaction(self) -> Transaction:
        """The same, as the system role.

        For changes that row-level security forbids the caller by design. The method is one that
        `waits_outside`: its `request_id` is not stored by a transaction, because there would be two.
        """
        assert self.rule.waits_outside, f"{self.method} has a transaction as the caller"
        self._write_as_system = True
        return await self._begun()

    async def transaction_if_none(self) -> None:
        """Opens the transaction of a mutation whose handler had nothing to write, for its record."""
        if self.unit is None:
            await self.transaction()

    async def leave_transaction(self) -> None:
        """Rolls back, and gives the connection back with all locks.

        A dry run (`validate_only`) ends so before a cluster is asked; its record is written by another
        transaction. So does a look that found another call serving the request.
        """
        self.close_draft()
        if self._unit is not None:
            unit, self._unit = self._unit, None
            await unit.rollback()

    def read(
        self, *, snapshot: bool = False, replica: bool = False, timed: bool = True
    ) -> AbstractAsyncContextManager[ReadTransaction]:
        """A read under the caller's row-level security; see `Store.read`."""
        return self.store.read(self.user_id, snapshot=snapshot, replica=replica, timed=timed)

    def visible_namespaces(self) -> frozenset[int] | None:
        """Ids of the namespaces in which the caller holds the method's permission; None means every one.

        Row-level security shows all namespaces that any grant reaches; a list shows fewer if a grant holds
        less.
        """
        return self.caller.namespaces_with(self.rule.permission)

    def may(self, namespace: str) -> May:
        """Returns the function that checks whether the caller holds a permission in this namespace."""
        caller = self.caller
        if caller.credential.read_only:
            return lambda permission: permission != REVEAL and caller.allows(permission, namespace)
        return lambda permission: caller.allows(permission, namespace)

    def describe(
        self,
        *,
        resource_id: int | None = None,
        resource_uid: str = "",
        resource_name: str | None = None,
        namespace_id: int | None = None,
        **metadata: Any,
    ) -> None:
        """Sets the target that the audit record names. Later calls override earlier ones."""
        if resource_id is not None:
            self.facts.resource_id = resource_id
        if resource_uid:
            self.facts.resource_uid = resource_uid
        if resource_name is not None:
            self.facts.resource_name = resource_name
        if namespace_id is not None:
            self.facts.namespace_id = namespace_id
        self.facts.metadata.update(metadata)

    def noting(
        self, check: Callable[[Any], None], to_proto: Callable[[Any], Message]
    ) -> Callable[[Any], None]:
        """Returns the check of a stored resource, which also stores it as the state before the update for the
        record.

        An operation that changes a resource checks the locked row anyway, so this reads nothing. It is
        rendered once the update is done.
        """

        def noted(stored: Any) -> None:
            self.facts.before = partial(to_proto, stored)
            check(stored)

        return noted

    def act_as(self, actor: Actor) -> None:
        """Names who acts in a public method, once it is known (log-in)."""
        self._actor = actor

    @property
    def actor(self) -> Actor:
        """The actor: the caller, or the user that a public method identified."""
        if self._actor is not None:
            return self._actor
        if self.principal is not None:
            return _actor(self.principal.user_id, self.principal.username)
        return Actor(None, "")

    def answer_message(self, answer: bytes) -> Message:
        """Returns the answer as a message: the handler's, or for a replay the one that is parsed from the
        stored bytes.
        """
        return self.rule.response_class.FromString(answer) if self.answer is None else self.answer

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline; None if there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def seconds(self) -> float:
        """How long it has taken, less the time for which its refusal waited."""
        return time.perf_counter() - self.started - self.waited_seconds

    @property
    def code_if_cut(self) -> str:
        """How a call that the transport has cut off ended: OK, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED or CANCELLED.

        The client's clock ends a call as the server's does, and its word may be here first. The remaining
        time reaches the server rounded up, the longer the more: if the call ends within that rounding, its
        time has run out.
        """
        if self.complete:
            return "OK"
        if self.refused_by_grpc:
            return "RESOURCE_EXHAUSTED"
        remaining = self.time_remaining()
        if remaining is None or self.deadline is None:
            return "CANCELLED"
        given = remaining + time.perf_counter() - self.started
        return "DEADLINE_EXCEEDED" if remaining <= max(0.1, given / 50) else "CANCELLED"

    async def _begun(self) -> Transaction:
        if self._unit is None:
            self._unit = self._new_unit()
        began = self._unit.transaction is None
        transaction = await self._unit.begin()
        transaction.request_id = self.request_id
        if began and self.claim is not None:
            await self.claim.begin(transaction)
        return transaction

    def _new_unit(self) -> UnitOfWork:
        if self._write_as_system:
            return self.store.system_unit(self.actor, self.operation_id, self.method)
        return self.store.unit_of_work(self.actor, self.operation_id, self.method)


# The same users call again and again.
_actor = lru_cache(maxsize=1024)(Actor)


def _nothing() -> None:
    return None


def waits_outside(handler: Handler) -> Handler:
    """Marks a mutation whose handler waits for a cluster or a hash before it writes, or writes as the system.

    It begins without a transaction, so that none is held while it waits; its `request_id` is claimed by a row
    instead.
    """
    handler.waits_outside = True  # type: ignore[attr-defined]
    return handler


def writes_many(handler: Handler) -> Handler:
    """Marks a mutation that may write hundreds of objects: it takes its user's turn of the class `applies`."""
    handler.writes_many = True  # type: ignore[attr-defined]
    return handler


def counts_as(rows: Callable[[Any], int]) -> Callable[[Handler], Handler]:
    """Marks a list whose page is more work than its size suggests.

    `rows` returns, for a request that is not checked yet, the number of rows by which seats are given
    (`flowcontrol`).
    """

    def marked(handler: Handler) -> Handler:
        handler.rows_of = rows  # type: ignore[attr-defined]
        return handler

    return marked


def too_slow(token: str) -> ResourceExhausted:
    """The error for a reader of a stream that does not keep up; `token` is where to resume, ''
    where nothing can be.
    """
    return ResourceExhausted(
        "the reader is too slow: read faster"
        + (", and resume with the token in the metadata" if token else ""),
        reason="SLOW_CONSUMER",
        metadata={"resume_token": token} if token else {},
    )


def client_address(peer: str, forwarded_for: str, trusted: Sequence[TrustedPeer]) -> str:
    """Returns the caller's address: the connection's, or, behind a trusted proxy, the last untrusted one it
    names.

    `peer` is gRPC's form (`ipv4:127.0.0.1:5000`, `ipv6:[::1]:5000`, `unix:`).
    """
    address = _peer_address(peer)
    if not forwarded_for:
        return address
    for hop in reversed([part.strip() for part in forwarded_for.split(",") if part.strip()]):
        if not _is_trusted(address, trusted):
            break
        try:
            address = str(ipaddress.ip_address(_without_port(hop)))
        except ValueError:
            break
    return address


def _without_port(hop: str) -> str:
    """The address that a proxy names, some of them with a port (`192.0.2.1:5000`, `[2001:db8::1]:5000`)."""
    if hop.startswith("["):
        host, closed, _ = hop[1:].partition("]")
        return host if closed else hop
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _is_trusted(address: str, trusted: Sequence[TrustedPeer]) -> bool:
    if address in trusted:
        return True
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in trusted if not isinstance(network, str))


# A connection has many calls.
@lru_cache(maxsize=4096)
def _peer_address(peer: str) -> str:
    kind, _, rest = peer.partition(":")
    if kind == "ipv4":
        return rest.rsplit(":", 1)[0]
    if kind == "ipv6":
        return rest.rsplit(":", 1)[0].replace("%5B", "[").replace("%5D", "]").strip("[]")
    return kind
