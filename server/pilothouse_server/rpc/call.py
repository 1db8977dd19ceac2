"""One call, as the interceptors and the handler see it.

A `Call` has all facts about a call: its rule, the caller, the request, the transaction that the handler works in, and
the names for the audit record. A handler gets the request and this object; it does not use gRPC.
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
    """A permission that a stream's caller must keep: that of `rule` in `namespace`.

    `path` is the field of the request that requires it; '' if no field does.
    """

    rule: Rule
    namespace: str
    path: str = ""

    def error(self, error: PilothouseError) -> PilothouseError:
        """Returns the error of this need, with the name of its field."""
        return in_field(error, self.path) if self.path else error


Handler = TypeVar("Handler", bound=Callable[..., Any])


class CallClaim(Protocol):
    """The right of a call to serve its `request_id` (`idempotency.RequestClaim`)."""

    async def begin(self, transaction: ReadTransaction) -> None: ...

    async def finish(self) -> None: ...


@dataclass(slots=True)
class AuditFacts:
    """The handler's additions to the audit record, beyond the fields that the rule reads from the request.

    `grant` is the grant that admitted the caller. `before` renders the resource as it was before an update. `secrets`
    has the paths of changed values that no response shows, each with whether it was set before and is set after.
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
    `principal` is set unless the method is public; for a stream it is renewed while the stream is open.
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
        # The id of the operation as text; `operation_id` is the same id as a UUID.
        self.operation = random_id()
        self._operation_id: UUID | None = None
        self.started = time.perf_counter()
        # Whether the client had ended the call before the call was refused.
        self.unheard = False
        # How long the refusal waited to be sent.
        self.waited_seconds = 0.0
        self.started_at = store.clock.now()
        self.deadline: float | None = None
        self.client_ip = ""
        self.token = headers.token
        # The caller's credential: the token, unless the connection has an accepted certificate.
        self.shown: Shown = self.token
        self.principal: Principal | None = None
        # Why the call was refused before the layers: no valid token, no request in time, no seat.
        self.refusal: BaseException | None = None
        self.parse_error: PilothouseError | None = None
        # Whether gRPC itself has refused a request. gRPC then ends the call with its own message.
        self.refused_by_grpc = False
        self.request: Any = None
        self.requests: AsyncIterator[Message] | None = None
        self.send: Send | None = None
        # The token of the response that a stream is about to send, '' before the first. A consumer that is too slow
        # resumes with it.
        self.resume_token = ""
        self.facts = AuditFacts()
        self.handler_reached = False
        # For a stream: whether its opening is recorded.
        self.opened = False
        # Set by a finite stream once its last response is sent. A client that disconnects then has missed nothing.
        self.complete = False
        # Permissions that the caller of a stream must keep while it is open; empty: only the permission of its rule.
        self.needs: Sequence[Need] = ()
        # Called when a recheck finds that a stream's caller has other grants. PermissionDenied ends the stream.
        self.on_renewed: Callable[[], None] = _nothing
        self.trailing_metadata: dict[str, str] = {}
        # The handler's response, if it was a message.
        self.answer: Message | None = None
        # The right to serve the `request_id`; None if the call has no id, or if it may be served again.
        self.claim: CallClaim | None = None
        self._draft: Draft | None = None
        self._request_id: UUID | None = None
        self._unit: UnitOfWork | None = None
        self._actor: Actor | None = None
        self._write_as_system = False

    def close(self) -> None:
        """Drops the references to the request and to the error of the call, which is over.

        An error refers to the frames that it passed, and these refer to the call. Such a cycle would stay until the
        garbage collector runs. Also, asyncio keeps the context of a timer, and through it the call, until the timer
        would have ended.
        """
        self.refusal = self.parse_error = None
        self.request = self.requests = self.answer = self.claim = None

    def log_fields(self) -> dict[str, str]:
        """Returns the facts about the call for each of its log lines."""
        fields = {"operation_id": self.operation, "method": self.method}
        return fields if self.principal is None else {**fields, "username": self.principal.username}

    @property
    def operation_id(self) -> UUID:
        """The id that the log, the audit record and the caller use for the call."""
        if self._operation_id is None:
            self._operation_id = UUID(self.operation)
        return self._operation_id

    @property
    def user_id(self) -> int:
        """The caller's id; only available if the method requires a log-in."""
        return self.caller.user_id

    @property
    def caller(self) -> Principal:
        """The caller; only available if the method requires a log-in."""
        assert self.principal is not None, "a public method has no caller"
        return self.principal

    @property
    def namespace(self) -> str:
        """The namespace that the request names; '' if it names none."""
        return "" if self.request is None else self.rule.namespace_of(self.request)

    @property
    def unit(self) -> UnitOfWork | Draft | None:
        """The change to commit with the audit record: the handler's draft if it writes, otherwise its transaction."""
        return self._draft if self._draft is not None and self._draft.writes else self._unit

    @property
    def request_id(self) -> UUID | None:
        """The request's `request_id`; None if the method has none or the request leaves it empty."""
        given = self.rule.has_request_id and self.request is not None and self.request.request_id
        if not given:
            return None
        if self._request_id is None:
            self._request_id = UUID(given)
        return self._request_id

    @property
    def happens_once_by(self) -> UUID | None:
        """The `request_id` under which the call is done once; None if it may be done again."""
        return None if self.principal is None or self.validate_only else self.request_id

    @property
    def validate_only(self) -> bool:
        """Whether nothing may be written but the audit record."""
        return self.rule.has_validate_only and self.request is not None and bool(self.request.validate_only)

    async def transaction(self) -> Transaction:
        """Returns the one transaction of a mutation, opened on first use.

        The audit layer commits it after the handler has returned.

        Raises:
            Replayed, BeingServed: the request is a replay, which the innermost layer handles.
        """
        assert self.rule.mutates, f"{self.method} declares no mutation, so it may not write"
        return await self._begun()

    def draft(self) -> Draft:
        """Returns a change that is sent in one statement after the handler has returned, instead of a transaction.

        The statement that reads the handler's facts also checks for a replay.
        """
        assert self.rule.mutates, f"{self.method} declares no mutation, so it may not write"
        self.close_draft()
        actor = self.actor
        self._draft = Draft(self.store, actor, self.operation_id, self.method, self.happens_once_by)
        return self._draft

    def begin_again(self) -> bool:
        """Drops a draft that was outdated when it was sent; returns whether there was one.

        Then nothing was written, and the handler may make another.
        """
        drafted, self.answer, self._unit = self._draft is not None, None, None
        self.close_draft()
        return drafted

    def close_draft(self) -> None:
        """Drops the draft, if there is one, and ends its turn."""
        if self._draft is not None:
            self._draft.close()
            self._draft = None

    async def system_transaction(self) -> Transaction:
        """Returns the same as `transaction`, but with the system role.

        For changes that row-level security forbids the caller by design. The method is one that `waits_outside`: no
        transaction stores its `request_id`, because there would be two transactions.
        """
        assert self.rule.waits_outside, f"{self.method} has a transaction as the caller"
        self._write_as_system = True
        return await self._begun()

    async def transaction_if_none(self) -> None:
        """Opens the transaction of a mutation whose handler wrote nothing, for the audit record."""
        if self.unit is None:
            await self.transaction()

    async def leave_transaction(self) -> None:
        """Rolls back, and releases the connection with all locks.

        A dry run (`validate_only`) does this before it calls a cluster; its record is written in another
        transaction. A call that finds that another call serves the same request does it, too.
        """
        self.close_draft()
        if self._unit is not None:
            unit, self._unit = self._unit, None
            await unit.rollback()

    def read(
        self, *, snapshot: bool = False, replica: bool = False, timed: bool = True
    ) -> AbstractAsyncContextManager[ReadTransaction]:
        """Returns a read transaction with the caller's row-level security; see `Store.read`."""
        return self.store.read(self.user_id, snapshot=snapshot, replica=replica, timed=timed)

    def visible_namespaces(self) -> frozenset[int] | None:
        """Returns the ids of the namespaces in which the caller has the method's permission; None means all.

        Row-level security shows every namespace that any grant covers. A list shows fewer if a grant lacks the
        permission.
        """
        return self.caller.namespaces_with(self.rule.permission)

    def may(self, namespace: str) -> May:
        """Returns the function that checks whether the caller has a permission in this namespace."""
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
        """Returns `check`, extended to store the resource as the state before the update for the audit record.

        An operation that changes a resource checks the locked row anyway, so this reads nothing more. The state
        is rendered once the update is done.
        """

        def noted(stored: Any) -> None:
            self.facts.before = partial(to_proto, stored)
            check(stored)

        return noted

    def act_as(self, actor: Actor) -> None:
        """Sets the actor of a public method once it is known (log-in)."""
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
        """Returns the response as a message.

        It is the handler's, or, for a replay, parsed from the stored bytes.
        """
        return self.rule.response_class.FromString(answer) if self.answer is None else self.answer

    def time_remaining(self) -> float | None:
        """Returns the seconds until the caller's deadline; None if there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def seconds(self) -> float:
        """Returns the duration of the call, without the time for which its refusal waited."""
        return time.perf_counter() - self.started - self.waited_seconds

    @property
    def code_if_cut(self) -> str:
        """The code of a call that the transport has cut off.

        It is OK, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED or CANCELLED. Client and server both measure the deadline, and
        the client's cancellation may arrive before the server's timer fires. The remaining time reaches the server
        rounded up, and the rounding grows with the time. If the call ends within that rounding, its deadline has
        passed.
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

    The call begins without a transaction, so that none is open while the handler waits; a row claims its `request_id`
    instead.
    """
    handler.waits_outside = True  # type: ignore[attr-defined]
    return handler


def writes_many(handler: Handler) -> Handler:
    """Marks a mutation that may write hundreds of objects: it takes its user's turn of the class `applies`."""
    handler.writes_many = True  # type: ignore[attr-defined]
    return handler


def counts_as(rows: Callable[[Any], int]) -> Callable[[Handler], Handler]:
    """Marks a list whose pages cost more than their size suggests.

    `rows` returns the number of rows by which a request is given seats (`flowcontrol`). The request is not validated
    yet.
    """

    def marked(handler: Handler) -> Handler:
        handler.rows_of = rows  # type: ignore[attr-defined]
        return handler

    return marked


def too_slow(token: str) -> ResourceExhausted:
    """Returns the error for a stream's reader that does not keep up.

    `token` is where to resume; '' if the stream cannot be resumed.
    """
    return ResourceExhausted(
        "the reader is too slow: read faster"
        + (", and resume with the token in the metadata" if token else ""),
        reason="SLOW_CONSUMER",
        metadata={"resume_token": token} if token else {},
    )


def client_address(peer: str, forwarded_for: str, trusted: Sequence[TrustedPeer]) -> str:
    """Returns the caller's address: that of the connection, or one that a trusted proxy names.

    Behind trusted proxies, it is the last untrusted address that they name.
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
    """Returns the address that a proxy names; some add a port (`192.0.2.1:5000`, `[2001:db8::1]:5000`)."""
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
