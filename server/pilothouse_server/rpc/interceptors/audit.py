"""Records every call: its caller, method and address, its result, and its duration.

The layer is outside authorization, so that denials are recorded, too.

A mutation's record is written in the transaction of the change itself. This layer commits the handler's unit
of work together with the record, the events and the idempotency row. If that fails, the call fails and
nothing has changed. Reads are recorded in batches. Refusals, failures and methods declared DURABLE are recorded before
the response is sent. A stream has two records with one `stream_id`: opened, before its first response, and closed.

Refused calls of anonymous callers, and of users, have individual records while they are few. Beyond that they are
summed (`rpc.refusals`). A refused stream has one record, because it was never open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol

from google.protobuf.message import Message

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.encryption.token_keys import KeyNotAtHand
from pilothouse_server.errors import Aborted, PilothouseError, Unavailable
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.credential_names import without_url_passwords
from pilothouse_server.rpc.idempotency import IdempotencyKeeper
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.pipeline import Runner
from pilothouse_server.rpc.refusals import MINUTE, Bounds, Kind, Refusals, RefusalsOfCallers
from pilothouse_server.rpc.status import HTTP_STATUS
from pilothouse_server.runtime.event_loop import long_work, others_first
from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.store.append import Operation
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.errors import translated
from pilothouse_server.values import names

# Metadata of the response to a `validate_only` request, which otherwise looks as if the change had been made.
DRY_RUN_KEY = "pilothouse-dry-run"
# How often an outdated change is drafted before its caller is asked to retry. Two servers whose callers change one
# container without a pause outdate each other's drafts: with five attempts, one call in a hundred lost all of them.
MOST_DRAFTS = 10
# Attempts left when a handler begins again for keys that only a token has. One that opens and seals needs three.
_KEYS_BROUGHT = (5, 4, 3, 2, 1, 0)
# The most characters of an anonymous caller's request in a record.
_MOST_OF_ANONYMOUS = 1024
# The bounds for one authenticated user. They are higher than those of anonymous callers, because a user needs a token.
_OF_A_USER = Bounds(of_a_kind=20, singly=400, sums=20)
# Rendering the record of a response of this size and its request takes milliseconds.
_LONG_BYTES = 32 * 1024
# The most bytes of a request in one record, and the usual size of the rest of a record.
_MOST_OF_REQUEST, _REST_OF_RECORD = 16 * 1024, 512


class RecordWriter(Protocol):
    """Writes records that belong to no other transaction (see `store.audit_writer`)."""

    def submit(self, record: AuditRecord) -> None:
        """Accepts the record of a plain read, which is written later."""

    async def write(self, record: AuditRecord) -> None:
        """Returns once the record is committed."""


class AuditLayer:
    """The layer. `namespace_id` returns the id of a namespace by its name; it may raise Unavailable.

    `header_is_kept` returns whether records contain a request header. The server runs `sum_up` as a task, and calls
    `flush` to write the present sums before it closes the writer.
    """

    def __init__(
        self,
        writer: RecordWriter,
        idempotency: IdempotencyKeeper,
        namespace_id: Callable[[str], Awaitable[int | None]],
        header_is_kept: Callable[[str], bool] = redaction.usual_header,
    ) -> None:
        self._writer = writer
        self._idempotency = idempotency
        self._namespace_id = namespace_id
        self._header_is_kept = header_is_kept
        self.anonymous_refusals = Refusals(writer.submit)
        self.users = RefusalsOfCallers(writer.submit, _OF_A_USER)

    async def sum_up(self) -> None:
        """Writes the sums of each minute until cancelled."""
        while True:
            await asyncio.sleep(MINUTE)
            self.flush()

    def flush(self) -> None:
        """Writes the present sums."""
        self.anonymous_refusals.flush()
        self.users.flush()

    def __call__(self, rule: Rule, inner: Runner) -> Runner:
        """Returns the runner that records each call of a method."""
        if rule.mutates:
            return partial(self._mutation, inner)
        return partial(self._stream if rule.streams else self._unary, inner)

    def replay(self, rule: Rule, inner: Runner) -> Runner:
        """Returns the runner of the innermost layer.

        It returns the stored response of a replay, and records that a stream opens. If a handler needs keys that only
        a token has, its transaction ends, and the handler begins again once the keys are cached. A stream does not
        begin again, because it may have sent something already.
        """
        if rule.streams:
            return partial(self._opening, inner)
        return partial(self._with_keys, partial(self._idempotency.answer, inner) if rule.mutates else inner)

    async def _opening(self, inner: Runner, call: Call) -> bytes:
        await self._locate(call)
        call.opened = True
        await self._record_opening(call)
        return await inner(call)

    async def _with_keys(self, inner: Runner, call: Call) -> bytes:
        for attempts_left in _KEYS_BROUGHT:
            try:
                return await inner(call)
            except KeyNotAtHand as missing:
                if not attempts_left:
                    raise
                await call.leave_transaction()
                await missing.bring()
        raise AssertionError("the last attempt returns or raises")

    async def _mutation(self, inner: Runner, call: Call) -> bytes:
        try:
            # If a handler's statement breaks a constraint, the record and the caller get the same translated
            # error.
            with translated():
                answer = await self._changed(inner, call)
        except BaseException as error:
            if call.unit is not None:
                if call.unit.committed:
                    # The client disconnected while its change was being committed. The record has OK, which is true.
                    raise
                await call.unit.rollback()
            await self._record_failure(call, error)
            raise
        finally:
            if call.claim is not None:
                await call.claim.finish()
            call.close_draft()
        return answer

    async def _changed(self, inner: Runner, call: Call) -> bytes:
        """Returns the response once the change is committed.

        An outdated draft is made again, a few times.
        """
        for attempts_left in reversed(range(MOST_DRAFTS)):
            answer = await inner(call)
            try:
                await self._commit(call, answer)
            except Aborted:
                if not (attempts_left and call.begin_again()):
                    raise
            else:
                return answer
        raise AssertionError("the last attempt returns or raises")

    async def _commit(self, call: Call, answer: bytes) -> None:
        if call.validate_only:
            call.trailing_metadata[DRY_RUN_KEY] = "true"
            await call.leave_transaction()
        replayed = bool(call.facts.metadata.get("replayed"))
        if replayed:
            # No handler has looked up the namespace. The look-up does not need this call's connection.
            await call.leave_transaction()
            await self._locate(call)
        await call.transaction_if_none()
        assert call.unit is not None
        response = await self._response(call, answer)
        await call.unit.commit(
            audit=[self._record(call, None, response=response)],
            # The operation that the replay repeats already has its row.
            operation=None if call.validate_only or replayed else _operation(call),
            idempotency=self._idempotency.row(call, answer),
        )

    async def _response(self, call: Call, answer: bytes) -> dict[str, Any]:
        """Returns the response for the record.

        A long one is rendered in slices, so that other calls can proceed.
        """
        if len(answer) <= _LONG_BYTES:
            return redaction.body(call.answer_message(answer))
        # A transaction occupies a connection and locks during the pauses, so it must not go last. A draft may.
        pause = partial(long_work, last=True) if isinstance(call.unit, Draft) else others_first
        await pause()
        response = redaction.body(call.answer_message(answer))
        await pause()
        if call.facts.before is not None:
            before = call.facts.before()
            call.facts.before = lambda: before
            await pause()
        return response

    async def _unary(self, inner: Runner, call: Call) -> bytes:
        try:
            answer = await inner(call)
        except BaseException as error:
            await self._record_failure(call, error)
            raise
        record = self._record(call, None)
        if call.rule.audit == options.AUDIT_LEVEL_DURABLE:
            await self._writer.write(record)
        else:
            self._writer.submit(record)
        return answer

    async def _stream(self, inner: Runner, call: Call) -> bytes:
        try:
            answer = await inner(call)
        except BaseException as error:
            await self._record_failure(call, error)
            raise
        self._writer.submit(self._record(call, None))
        return answer

    async def _record_opening(self, call: Call) -> None:
        # A separate method: a local variable of `_stream` would keep the record as long as the stream lasts.
        opened = self._record(call, None, opened=True)
        if call.rule.audit == options.AUDIT_LEVEL_DURABLE:
            await self._writer.write(opened)
        else:
            self._writer.submit(opened)

    async def _record_failure(self, call: Call, error: BaseException) -> None:
        """Writes the record of a refused or failed call before the call ends.

        A call whose client is gone cannot wait for that.

        If the record cannot be written either, a call that failed because a dependency is unavailable still
        reports that failure.
        """
        if self._is_summed(call, error):
            return
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._writer.submit(self._record(call, error))
            return
        try:
            await uncancelled(self._write_failure(call, error))
        except Unavailable:
            if not isinstance(error, Unavailable):
                raise

    async def _write_failure(self, call: Call, error: BaseException) -> None:
        await self._locate(call)
        if call.request is not None and call.request.ByteSize() > _LONG_BYTES:
            await long_work(last=True)
        await self._writer.write(self._record(call, error))

    def _is_summed(self, call: Call, error: BaseException) -> bool:
        """Returns whether the call is only counted, because enough similar calls have records of their own."""
        if call.opened:
            # The record of a stream's end belongs to the record of its opening.
            return False
        principal, size, namespace_id, namespace = call.principal, 0, None, ""
        if principal is None:
            refusals, name = self.anonymous_refusals, call.facts.resource_name
        else:
            refusals, name = self.users.of(principal.user_id, principal.username), _name(call)
            # With the id of a namespace whose creation was rolled back, the sum could not be numbered.
            namespace_id = _ids(call, error)[1] or _granted_namespace(call)
            namespace = "" if namespace_id is None else _namespace_name(call, namespace_id)
            if call.request is not None:
                size = _REST_OF_RECORD + min(call.request.ByteSize(), _MOST_OF_REQUEST)
        code, _ = _outcome(call, error)
        reason = error.reason if isinstance(error, PilothouseError) else ""
        kind = Kind(address_group(call.client_ip), call.rule.method, code, reason, namespace_id, namespace)
        return not refusals.singly(kind, call.rule, call.started_at, _plain(name, 253), size)

    async def _locate(self, call: Call) -> None:
        """Sets the record's namespace to the one in the request if no handler has looked it up.

        Only if the caller can see the namespace: a record that its own caller sees must not reveal that a foreign
        namespace exists.
        """
        name, principal = call.namespace, call.principal
        if not name or principal is None or call.facts.namespace_id is not None:
            return
        if len(name) > names.LONGEST_LABEL or not principal.reaches(name) or names.dns_label_problem(name):
            return
        found = _granted_namespace(call)
        call.describe(namespace_id=await self._namespace_id(name) if found is None else found)

    def _record(self, call: Call, error: BaseException | None, **more: Any) -> AuditRecord:
        headers = call.headers
        if headers.recorded is None:
            headers.recorded = redaction.metadata(headers.texts.items(), self._header_is_kept)
        return _record(call, error, headers.recorded, **more)


def _record(
    call: Call,
    error: BaseException | None,
    headers: Mapping[str, str],
    *,
    response: Mapping[str, Any] | None = None,
    opened: bool = False,
) -> AuditRecord:
    rule, actor = call.rule, call.actor
    # Most calls succeed, and each call has a record.
    code, message = ("OK", "") if error is None else _outcome(call, error)
    resource_id, namespace_id = _ids(call, error)
    return AuditRecord(
        operation_id=call.operation,
        user_id=actor.user_id,
        username=actor.username[:50] or None,
        action=rule.action,
        resource_type=rule.resource_type,
        resource_id=resource_id,
        resource_name=_plain(_name(call), 253) or None,
        namespace_id=namespace_id,
        request_method="STREAM" if rule.streams else "UNARY",
        request_path=call.method,
        request_body=_request_body(call, error),
        request_headers=headers,
        client_ip=call.client_ip[:45] or None,
        user_agent=_plain(call.headers.user_agent, 500) or None,
        status_code=HTTP_STATUS[code],
        response_body=response,
        duration_ms=None if opened else int(call.seconds() * 1000),
        error_code=None if code == "OK" else code,
        error_message=None if error is None else _plain(without_url_passwords(message), 2000) or None,
        started_at=call.started_at,
        completed_at=None if opened else call.store.clock.now(),
        metadata=_metadata(call, error, namespace_id, opened=opened),
        stream_id=call.operation if rule.streams else None,
    )


def _granted_namespace(call: Call) -> int | None:
    """Returns the id of the namespace that the request names, if a grant of the caller contains it."""
    name, principal = call.namespace, call.principal
    if not name or principal is None:
        return None
    return next((grant.namespace_id for grant in principal.grants if grant.namespace == name), None)


def _request_body(call: Call, error: BaseException | None) -> dict[str, Any] | None:
    if call.request is None:
        return None
    shown = redaction.body(call.request)
    if error is not None and call.principal is None and len(str(shown)) > _MOST_OF_ANONYMOUS:
        return {"[truncated]": f"{call.request.ByteSize()} bytes from an anonymous caller"}
    return shown


def _ids(call: Call, error: BaseException | None) -> tuple[int | None, int | None]:
    """Returns the ids of the resource and its namespace.

    Ids of rolled-back rows are left out, because they refer to nothing.
    """
    rule, facts = call.rule, call.facts
    if not _stands(call, error):
        return None, None if rule.resource_type == "namespace" else facts.namespace_id
    return facts.resource_id, facts.namespace_id


def _stands(call: Call, error: BaseException | None) -> bool:
    """Returns whether the resource of the call exists after it."""
    return not (call.rule.action == "create" and (error is not None or call.validate_only))


def _changes(
    before: Message, answer: Message | None, secrets: Mapping[str, tuple[bool, bool]] | None
) -> dict[str, Any]:
    """Returns the fields that an update changed in the resource of its response."""
    if answer is None:
        return {}
    for field in answer.DESCRIPTOR.fields:
        if field.message_type is before.DESCRIPTOR and not field.is_repeated:
            return {"changes": redaction.changes(before, getattr(answer, field.name), secrets)}
    return {}


def _name(call: Call) -> str | None:
    """Returns the name of the resource: the handler's, otherwise the one in the request."""
    if call.facts.resource_name is not None or call.request is None:
        return call.facts.resource_name
    # The name may be an image reference, which may contain a password.
    return without_url_passwords(call.rule.name_of(call.request))


def _namespace_name(call: Call, namespace_id: int) -> str:
    """Returns the present name of a record's namespace.

    Later, that namespace's row may be deleted, and another namespace may have the name.
    """
    if call.namespace:
        return call.namespace
    if call.rule.resource_type == "namespace":
        return _name(call) or ""
    grants = call.principal.grants if call.principal is not None else ()
    return next((grant.namespace or "" for grant in grants if grant.namespace_id == namespace_id), "")


def _metadata(
    call: Call, error: BaseException | None, namespace_id: int | None, *, opened: bool
) -> dict[str, Any]:
    facts = call.facts
    metadata: dict[str, Any] = dict(facts.metadata)
    if namespace_id is not None and (namespace := _namespace_name(call, namespace_id)):
        metadata["namespace"] = namespace
    if facts.resource_uid and _stands(call, error):
        metadata["resource_uid"] = facts.resource_uid
    if facts.grant is not None:
        metadata["grant"] = {"id": facts.grant.id, "role": facts.grant.role}
    if call.principal is not None and call.principal.credential.kind != "session":
        shown = call.principal.credential
        metadata["credential"] = {"kind": shown.kind, "id": shown.id, "name": shown.name}
    if (trace := call.headers.trace_id) is not None:
        metadata["trace_id"] = trace
    if facts.before is not None and error is None:
        metadata |= _changes(facts.before(), call.answer, facts.secrets)
    if call.rule.streams:
        metadata |= {"stream_id": call.operation, "stream_event": "opened" if opened else "closed"}
    if call.validate_only:
        metadata["validate_only"] = True
    if isinstance(error, PilothouseError):
        metadata["reason"] = error.reason
    return metadata


# The messages for calls that the transport cut off.
_CUT = {
    "OK": "",
    "CANCELLED": "the client cancelled the call or disconnected",
    "RESOURCE_EXHAUSTED": "a request exceeds the maximum message size of this server",
    "DEADLINE_EXCEEDED": "the deadline of the call has passed",
}


def _outcome(call: Call, error: BaseException | None) -> tuple[str, str]:
    if error is None:
        return "OK", ""
    if isinstance(error, PilothouseError):
        return error.code, error.message
    if isinstance(error, asyncio.CancelledError):
        code = call.code_if_cut
        return code, _CUT[code]
    return "INTERNAL", "internal error"


def _operation(call: Call) -> Operation:
    return Operation(
        operation_id=call.operation_id,
        user_id=call.actor.user_id,
        method=call.method,
        resource_type=call.rule.resource_type,
        resource_id=call.facts.resource_id,
        namespace_id=call.facts.namespace_id,
        request_id=call.request_id,
    )


def _plain(value: str | None, length: int) -> str:
    """Returns text that PostgreSQL can store: no NUL, no lone surrogate, not too long."""
    if not value:
        return ""
    if value.isascii() and "\x00" not in value:
        return value[:length]
    return value[:length].replace("\x00", "").encode("utf-8", "replace").decode()
