"""Checks the caller's permission. A resource that the caller may not see is reported like one that does not
exist.

A method with a namespace requires its permission there: a caller who does not reach the namespace gets NOT_FOUND,
exactly as for one that does not exist; one who reaches it without the permission gets PERMISSION_DENIED. A call that
has taken long, because its body came late or it waited for a cluster, a hash or a row, is asked the same again before
anything of it counts.

While streams are open their credentials and grants are checked again every two seconds, once for all streams of a
credential, and a stream ends when they no longer suffice. The credential of a stream that a session opened is the
session and not its access token, so a stream outlives the token, and a refresh ends none. A stream ends with
PERMISSION_DENIED, because its caller already knows that the namespace exists. It ends with NOT_FOUND if the namespace
itself is gone, and the grants with it; a watch reports that by itself after the earlier events. It also ends when the
server drains: immediately if its client can resume it elsewhere, and near the end of the grace period if it is
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
from pilothouse_server.authorization.denials import Beyond, Denial, Question
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
# A call that takes longer is checked again at its end. Most calls are done long before; principals are kept
# for longer.
LATE_SECONDS = 0.25
# Tokens that are looked up concurrently: each may take a connection.
_AT_ONCE = 4
_DENIED = "PERMISSION_DENIED"


class Lookup(Authenticator, Protocol):
    """The layer's questions to the database."""

    async def namespace_id(self, name: str) -> int | None:
        """Returns the id of a living namespace, whether or not the caller reaches it. Raises Unavailable."""

    async def why_foreign(self, namespace: str) -> str:
        """Why the Kubernetes namespace of this living namespace is not ours, '' where it is. Raises Unavailable."""


class Reasons(Protocol):
    """The database's facts about a refusal."""

    async def beyond(self, principal: Principal, question: Question) -> Beyond:
        """Returns as much as the caller may know of the explanation; nothing if it cannot be read now.

        It raises no error: the refusal that it explains stands without it.
        """


@dataclass(eq=False, slots=True)
class _OpenStream:
    """`ended` becomes the reason for which the stream must end."""

    call: Call
    ended: asyncio.Future[Exception]
    # Whether its namespace was found to be gone.
    gone: bool = False

    def end(self, reason: Exception) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)


class AuthorizationLayer:
    """The layer. `drain` ends the open streams. Without `reasons` a refusal explains only the caller's own
    grants.
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
        # One timer for all, while there are any.
        self._rechecking: asyncio.Task[None] | None = None
        self._draining = False
        self._last_call = 0.0

    def drain(self, grace_seconds: float = 0.0) -> None:
        """Ends the open streams and refuses new ones; bidirectional streams may continue for most of the
        grace period.

        The rest of it is for ending them with a status and a record, before they would be cut.
        """
        kept_back = min(1.0, grace_seconds / 4)
        self._last_call = asyncio.get_running_loop().time() + grace_seconds - kept_back
        self._draining = True
        for stream in self._open:
            self._drain(stream)

    def __call__(self, rule: Rule, inner: Runner) -> Runner:
        """Has each call refused, or run; a stream for as long as the caller may."""
        return partial(self._authorized, partial(self._guarded, inner) if rule.streams else inner)

    async def _authorized(self, inner: Runner, call: Call) -> bytes:
        if call.refusal or call.parse_error:
            # No name of this frame is given to it: the error will know the frame, and would keep the call.
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
        # A read is done again by the grants that are left.
        answer = await self._run(inner, call)
        if await self._may_still(call):
            return answer
        raise _grants_changed()

    async def _run(self, inner: Runner, call: Call) -> bytes:
        try:
            return await inner(call)
        except PermissionDenied as denied:
            # Its transaction may still be open, so no second connection is taken for a look-up.
            raise explained(denied, call.principal) from None
        except PilothouseError:
            raise
        except Exception:
            # A missing row would look like our fault, although the caller has only lost the permission to see it.
            if not await self._may_still(call):
                raise _grants_changed() from None
            raise

    def _is_late(self, call: Call) -> bool:
        return time.perf_counter() - call.started >= LATE_SECONDS

    async def _may_still(self, call: Call) -> bool:
        """Returns whether the caller of a unary call has all grants that the call began with.

        Where one was taken back that the call does not need, but which may have let a part of it be done, the call goes
        by the newer grants from here on.

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
        """The refusal with its reason."""
        rule = call.rule
        if denied.reason != _DENIED or self._reasons is None:
            return explained(denied, principal)
        question = Question(rule.permission, call.namespace, rule.reach(call.namespace), rule.of_platform)
        return explained(denied, principal, question, await self._reasons.beyond(principal, question))

    async def _refuse_foreign(self, call: Call, principal: Principal) -> None:
        """Raises FailedPrecondition for a call that acts in a namespace whose Kubernetes namespace belongs to
        another owner.

        The principal knows those namespaces as of a second ago, so only a call that would be refused looks
        them up again. For changes since then the cluster itself is asked (`kubernetes.homes`).
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
                    # A stream that reads again finds nothing any more once its permission is gone. The next check of
                    # the grants shows whether that is the reason.
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
            # Looks that take long do not put off the next.
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
                # A database that is away revokes nothing; the stream itself will notice.
                continue
            except Exception as error:  # noqa: BLE001 - the streams of one caller end by it, the others' are checked
                for stream in streams:
                    stream.end(error)
                continue
            before, changed = None, True
            for stream in streams:
                # As a rule all have the same from the last look, and nothing has changed since.
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
        """Lets the stream continue as its caller's present principal, or ends it."""
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
                    # It continues as before until the next look, so that it can report the end itself.
                    stream.gone = True
                    return
            except PermissionDenied:
                stream.end(need.error(lost))
        call.principal = principal

    async def _is_there(self, namespace: str) -> bool:
        try:
            return await self._authenticator.namespace_id(namespace) is not None
        except PilothouseError:
            # Then the grants count, as they were read.
            return True

    def _drain(self, stream: _OpenStream) -> None:
        """Ends the stream, or has it ended when the server no longer waits for it."""
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
    """Returns the grant by which `principal` may call a method with `rule` on `namespace` ('' where the
    request names none); None where the method needs none. Raises if no grant allows it, or if the caller's
    credential does not.
    """
    check_credential(rule, principal.credential)
    if rule.access != options.ACCESS_PERMISSION:
        return None
    reach = rule.reach(namespace)
    if reach == "there":
        granting = principal.granting(rule.permission, namespace)
        # A grant in this namespace proves that the namespace exists, and that the caller reaches it.
        if granting is None or granting.namespace is None:
            _check_reached(rule, principal, namespace)
    elif reach == "everywhere":
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
    """Raises if the caller's credential does not suffice for a method with `rule`, even if the caller holds
    the permission.

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
    beyond: Beyond | None = None,
) -> PermissionDenied:
    """Returns the refusal with the limit of the caller's permissions, as far as the caller may know; unchanged if it
    is about something else than a missing permission.
    """
    permission = denied.metadata.get("permission", "")
    if principal is None or denied.reason != _DENIED or "*" in permission or not permission:
        return denied
    question = question or denials.asked(permission, denied.metadata.get("namespace", ""))
    finding = denials.weigh(question, principal.living_grants(), beyond or Beyond())
    if finding.allowed or finding.denial is Denial.NAMESPACE_NOT_FOUND:
        return denied
    finding = denials.weigh_credential(question, finding, principal.credential)
    return PermissionDenied(
        f"{denied.message} ({denials.reason(finding)})",
        reason=denied.reason,
        metadata={**denied.metadata, **denials.metadata(finding)},
        violations=denied.violations,
    )


def permission_denied(permission: str, namespace: str = "") -> PermissionDenied:
    """The error that names the permission that is missing, and where."""
    where = f' in namespace "{namespace}"' if namespace else ""
    return PermissionDenied(
        f"permission {permission} is needed{where}",
        reason=_DENIED,
        metadata={"permission": permission, **({"namespace": namespace} if namespace else {})},
    )
