"""Checks the caller's permission.

A resource that the caller may not see is reported as one that does not exist.

A method with a namespace requires its permission there. A caller who cannot see the namespace gets NOT_FOUND, exactly
as for one that does not exist; a caller who sees it but lacks the permission gets PERMISSION_DENIED. A call that
has taken long, because its request came late or because it waited for a cluster, a hash or a row, is authorized again
before its result counts.

While streams are open, their credentials and grants are checked again every two seconds, once for all streams of a
credential. A stream ends when they no longer suffice. The credential of a stream that a session opened is the
session and not its access token, so a stream outlives the token, and a refresh ends no stream. A stream ends with
PERMISSION_DENIED, because its caller already knows that the namespace exists. It ends with NOT_FOUND if the namespace
itself is deleted, and the grants with it; a watch reports that itself after the earlier events. A stream also ends when
the server drains: immediately if its client can resume it elsewhere, and near the end of the grace period if it is
bidirectional, because nobody can resume it.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.authorization import denials
from pilothouse_server.authorization.access import Credential, Grant, Principal
from pilothouse_server.authorization.denials import DatabaseFacts, Denial, Question
from pilothouse_server.errors import (
    Aborted,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    PilothouseError,
    Unavailable,
    invalid,
    missing,
    not_found,
)
from pilothouse_server.rpc.call import Call, Need
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.pipeline import Authenticator, Runner
from pilothouse_server.rpc.tls.shown import Shown, lasting
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.values import names

RECHECK_SECONDS = 2.0
# A call that takes longer is authorized again at its end. Most calls are done long before. Principals are cached for
# longer than this.
LATE_SECONDS = 0.25
# The number of tokens that are looked up concurrently: each look-up may take a connection.
_AT_ONCE = 4
_DENIED = "PERMISSION_DENIED"


class Lookup(Authenticator, Protocol):
    """The layer's queries to the database."""

    async def namespace_id(self, name: str) -> int | None:
        """Returns the id of an existing namespace, whether or not the caller can see it.

        Raises Unavailable.
        """

    async def why_foreign(self, namespace: str) -> str:
        """Returns why the Kubernetes namespace belongs to another owner, '' if it does not.

        Raises Unavailable.
        """


class Reasons(Protocol):
    """The database's facts about a refusal."""

    async def database_facts(self, principal: Principal, question: Question) -> DatabaseFacts:
        """Returns the facts that explain the refusal, as far as the caller may know them.

        Returns no facts if they cannot be read, and raises no error: the refusal is valid without the explanation.
        """


@dataclass(eq=False, slots=True)
class _OpenStream:
    """An open stream; `ended` is set to the reason for which it must end."""

    call: Call
    ended: asyncio.Future[Exception]
    # Whether a recheck found that its namespace is deleted.
    gone: bool = False

    def end(self, reason: Exception) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


class AuthorizationLayer:
    """The layer. `drain` ends the open streams.

    Without `reasons` a refusal explains only the caller's own grants.
    """

    def __init__(
        self,
        authenticator: Lookup,
        reasons: Reasons | None = None,
        *,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> None:
        self._authenticator = authenticator
        self._reasons = reasons
        self._recheck_seconds = recheck_seconds
        self._open: set[_OpenStream] = set()
        # One task for all open streams; None while there are none.
        self._rechecking: asyncio.Task[None] | None = None
        self._draining = False
        self._last_call = 0.0

    def drain(self, grace_seconds: float = 0.0) -> None:
        """Ends the open streams and refuses new ones.

        Bidirectional streams may continue for most of the grace period. The last part of it is reserved for ending them
        with a status and a record, before gRPC would cut them.
        """
        kept_back = min(1.0, grace_seconds / 4)
        self._last_call = asyncio.get_running_loop().time() + grace_seconds - kept_back
        self._draining = True
        for stream in self._open:
            self._drain(stream)

    def __call__(self, rule: Rule, inner: Runner) -> Runner:
        """Returns the runner that refuses each call, or runs it; a stream for as long as the caller is authorized."""
        return partial(self._authorized, partial(self._guarded, inner) if rule.streams else inner)

    async def _authorized(self, inner: Runner, call: Call) -> bytes:
        if call.refusal or call.parse_error:
            # The error is not assigned to a local variable: it will refer to this frame, and would keep the call.
            raise call.refusal or call.parse_error  # type: ignore[misc]
        if call.principal is not None:
            try:
                call.facts.grant = authorize(call.rule, call.principal, call.namespace)
            except PermissionDenied as denied:
                raise await self._explained(call, call.principal, denied) from None
            if call.principal.foreign_namespaces:
                await self._refuse_foreign(call, call.principal)
        answer = await self._run(inner, call)
        if not self._is_late(call) or await self._may_still(call):
            return answer
        if call.rule.mutates or not call.rule.only_reads:
            raise _grants_changed()
        # A read is repeated with the remaining grants.
        answer = await self._run(inner, call)
        if await self._may_still(call):
            return answer
        raise _grants_changed()

    async def _run(self, inner: Runner, call: Call) -> bytes:
        try:
            return await inner(call)
        except PermissionDenied as denied:
            # The call's transaction may still be open, so no second connection is taken for a look-up.
            raise explained(denied, call.principal) from None
        except PilothouseError:
            raise
        except Exception:
            # A missing row would look like a server fault, although the caller only lost the permission to see it.
            if not await self._may_still(call):
                raise _grants_changed() from None
            raise

    def _is_late(self, call: Call) -> bool:
        return time.perf_counter() - call.started >= LATE_SECONDS

    async def _may_still(self, call: Call) -> bool:
        """Returns whether the caller of a unary call still has all grants that the call began with.

        A revoked grant that the call does not require may still have admitted a part of its work. In that case the
        call uses the newer grants from here on.

        Raises:
            Unauthenticated: the caller's credential has ended.
            PermissionDenied: PERMISSION_REVOKED.
        """
        before = call.principal
        if before is None or call.rule.streams:
            return True
        principal = await self._authenticator.authenticate(call.shown, call.client_ip)
        if principal is before:
            return True
        try:
            grant = authorize(call.rule, principal, call.namespace)
        except (NotFound, PermissionDenied):
            raise revoked(call.rule.permission, call.namespace) from None
        if set(before.grants).issubset(principal.grants):
            return True
        call.principal, call.facts.grant = principal, grant
        return False

    async def _explained(
        self, call: Call, principal: Principal, denied: PermissionDenied
    ) -> PermissionDenied:
        """Returns the refusal with its reason."""
        rule = call.rule
        if denied.reason != _DENIED or self._reasons is None:
            return explained(denied, principal)
        question = Question(
            rule.permission, call.namespace, rule.permission_scope(call.namespace), rule.of_platform
        )
        return explained(denied, principal, question, await self._reasons.database_facts(principal, question))

    async def _refuse_foreign(self, call: Call, principal: Principal) -> None:
        """Raises FailedPrecondition if the Kubernetes namespace of the call belongs to another owner.

        Applies to calls that act in the namespace. The principal's list of such namespaces may be a second old, so a
        call that would be refused looks them up again. Changes since then are detected at the cluster itself
        (`kubernetes.namespace_ownership`).
        """
        namespace = call.namespace
        if namespace not in principal.foreign_namespaces or not call.rule.acts_in_namespace:
            return
        if words := await self._authenticator.why_foreign(namespace):
            raise FailedPrecondition(
                f'namespace "{namespace}" is read-only: {words}',
                reason="NAMESPACE_NOT_OURS",
                metadata={"namespace": namespace},
            )

    async def _guarded(self, inner: Runner, call: Call) -> bytes:
        stream = _OpenStream(call, asyncio.get_running_loop().create_future())
        self._opened(stream)
        work = asyncio.ensure_future(inner(call))
        try:
            either: list[asyncio.Future[Any]] = [stream.ended, work]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                if isinstance(work.exception(), NotFound) and call.resume_token and not call.complete:
                    # A stream that reads again finds nothing once its permission is revoked. The next check of the
                    # grants shows whether that is the reason.
                    await asyncio.wait([stream.ended], timeout=1.5 * self._recheck_seconds)
                if not stream.ended.done():
                    return work.result()
            raise stream.ended.result()
        finally:
            self._closed(stream)
            await cancel_and_wait(work)

    def _opened(self, stream: _OpenStream) -> None:
        self._open.add(stream)
        if self._draining:
            self._drain(stream)
        if self._rechecking is None:
            self._rechecking = asyncio.create_task(self._recheck(), name="recheck open streams")

    def _closed(self, stream: _OpenStream) -> None:
        self._open.discard(stream)
        stream.ended.cancel()
        if not self._open and self._rechecking is not None:
            self._rechecking.cancel()
            self._rechecking = None

    async def _recheck(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            # A recheck that takes long does not postpone the next one.
            due = max(due + self._recheck_seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            by_shown: defaultdict[Shown, list[_OpenStream]] = defaultdict(list)
            for stream in self._open:
                if (principal := stream.call.principal) is not None:
                    by_shown[lasting(stream.call.shown, principal.session_id)].append(stream)
            each = iter(by_shown.items())
            await asyncio.gather(*(self._recheck_next(each) for _ in range(min(_AT_ONCE, len(by_shown)))))

    async def _recheck_next(self, all_shown: Iterator[tuple[Shown, list[_OpenStream]]]) -> None:
        for shown, streams in all_shown:
            try:
                principal = await self._authenticator.authenticate(shown)
            except Unavailable:
                # A database that cannot be reached revokes nothing; the stream itself will notice the outage.
                continue
            except Exception as error:  # noqa: BLE001 - it ends the streams of one caller; the others' are checked
                for stream in streams:
                    stream.end(error)
                continue
            before, changed = None, True
            for stream in streams:
                # Usually all streams have the same principal from the last check, and nothing has changed since.
                if stream.call.principal is not before:
                    before = stream.call.principal
                    changed = before != principal
                if changed:
                    await self._renew(stream, principal)
                    try:
                        stream.call.on_renewed()
                    except PermissionDenied as lost:
                        stream.end(lost)

    async def _renew(self, stream: _OpenStream, principal: Principal) -> None:
        """Lets the stream continue with its caller's present principal, or ends it."""
        call = stream.call
        for need in call.needs or (Need(call.rule, call.namespace),):
            lost = revoked(need.rule.permission, need.namespace)
            try:
                authorize(need.rule, principal, need.namespace)
            except NotFound as error:
                if await self._is_there(need.namespace):
                    stream.end(need.error(lost))
                elif stream.gone:
                    stream.end(need.error(error))
                else:
                    # The stream continues as before until the next check, so that it can report the deletion itself.
                    stream.gone = True
                    return
            except PermissionDenied:
                stream.end(need.error(lost))
        call.principal = principal

    async def _is_there(self, namespace: str) -> bool:
        try:
            return await self._authenticator.namespace_id(namespace) is not None
        except PilothouseError:
            # If the database cannot be read, the grants decide, as they were read.
            return True

    def _drain(self, stream: _OpenStream) -> None:
        """Ends the stream, or schedules its end for when the server no longer waits for it."""
        if stream.call.rule.shape == "stream_stream":
            asyncio.get_running_loop().call_at(self._last_call, stream.end, _broken_off())
            return
        stream.end(
            Unavailable(
                "this server is shutting down; reconnect to another replica",
                reason="SHUTTING_DOWN",
                retry_after_seconds=0.1,
            )
        )


def _broken_off() -> Unavailable:
    return Unavailable(
        (
            "this server is shutting down and could not wait longer for the end of the call: it was "
            "interrupted, and another server cannot continue it"
        ),
        reason="SHUTTING_DOWN",
    )


def _grants_changed() -> Aborted:
    return Aborted(
        "your grants changed during the call; retry",
        reason="CONCURRENT_CHANGE",
        retry_after_seconds=0.1,
    )


def authorize(rule: Rule, principal: Principal, namespace: str) -> Grant | None:
    """Returns the grant by which `principal` may call a method with `rule` on `namespace`.

    `namespace` is '' if the request names none. Returns None if the method needs no grant. Raises if no grant allows
    the call, or if the caller's credential does not.
    """
    check_credential(rule, principal.credential)
    if rule.access != options.ACCESS_PERMISSION:
        return None
    permission_scope = rule.permission_scope(namespace)
    if permission_scope == "there":
        granting = principal.granting(rule.permission, namespace)
        # A grant in this namespace proves that the namespace exists, and that the caller can see it.
        if granting is None or granting.namespace is None:
            _check_reached(rule, principal, namespace)
    elif permission_scope == "everywhere":
        granting = principal.granting(rule.permission)
    else:
        granting = principal.granting_somewhere(rule.permission)
    if granting is None:
        raise permission_denied(rule.permission, namespace)
    return granting


def _check_reached(rule: Rule, principal: Principal, namespace: str) -> None:
    if not namespace:
        raise missing(rule.namespace_field)
    fault = names.dns_label_problem(namespace)
    if fault:
        raise invalid(rule.namespace_field, fault, rule="format.dns_label")
    if not principal.reaches(namespace):
        raise not_found("namespace", namespace)


def check_credential(rule: Rule, credential: Credential) -> None:
    """Raises if the caller's credential does not suffice for a method with `rule`.

    This holds even if the caller has the permission.

    Raises:
        PermissionDenied: SESSION_NEEDED, KEY_READ_ONLY.
    """
    if rule.session_only and not credential.is_login:
        raise PermissionDenied(
            f"{rule.name} manages credentials: log in and call it in that session",
            reason="SESSION_NEEDED",
            metadata={"method": rule.name},
        )
    if credential.read_only and not (rule.only_reads or rule.ends_keys):
        raise PermissionDenied(
            f'key "{credential.name}" is read-only, and {rule.name} does more than read',
            reason="KEY_READ_ONLY",
            metadata={"method": rule.name, "key": credential.name},
        )


def revoked(permission: str, namespace: str = "") -> PermissionDenied:
    """Returns the error for a stream whose caller was admitted, but may not continue."""
    where = f' in namespace "{namespace}"' if namespace else ""
    return PermissionDenied(
        f"permission {permission}{where} was revoked during the call",
        reason="PERMISSION_REVOKED",
        metadata={"permission": permission, **({"namespace": namespace} if namespace else {})},
    )


def explained(
    denied: PermissionDenied,
    principal: Principal | None,
    question: Question | None = None,
    database_facts: DatabaseFacts | None = None,
) -> PermissionDenied:
    """Returns the refusal with the limit of the caller's permissions.

    It shows the limit as far as the caller may know it, and is unchanged if it is not about a missing permission.
    """
    permission = denied.metadata.get("permission", "")
    if principal is None or denied.reason != _DENIED or "*" in permission or not permission:
        return denied
    question = question or denials.asked(permission, denied.metadata.get("namespace", ""))
    finding = denials.explain(question, principal.living_grants(), database_facts or DatabaseFacts())
    if finding.allowed or finding.denial is Denial.NAMESPACE_NOT_FOUND:
        return denied
    finding = denials.explain_credential(question, finding, principal.credential)
    return PermissionDenied(
        f"{denied.message} ({denials.reason(finding)})",
        reason=denied.reason,
        metadata={**denied.metadata, **denials.metadata(finding)},
        violations=denied.violations,
    )


def permission_denied(permission: str, namespace: str = "") -> PermissionDenied:
    """Returns the error that names the missing permission, and where it is missing."""
    where = f' in namespace "{namespace}"' if namespace else ""
    return PermissionDenied(
        f"permission {permission} is needed{where}",
        reason=_DENIED,
        metadata={"permission": permission, **({"namespace": namespace} if namespace else {})},
    )
