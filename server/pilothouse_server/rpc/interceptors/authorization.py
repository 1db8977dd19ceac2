"""Whether the caller may. What the caller may not see answers as what does not exist.

A method with a namespace asks for its permission there: a caller who does not reach the namespace gets
NOT_FOUND, exactly as for one that does not exist; one who reaches it without the permission gets
PERMISSION_DENIED. While a stream is open the token and the grants are looked at again every two seconds,
and the stream ends when they no longer suffice: with PERMISSION_DENIED, because who was let in knows already
what is there. It also ends when the server drains: at once where its client can resume it elsewhere, and near
the end of the grace where it runs both ways, which nobody can resume.
"""

from __future__ import annotations

import asyncio

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.access import Principal
from pilothouse_server.errors import (
    NotFound,
    PermissionDenied,
    PilothouseError,
    Unavailable,
    invalid,
    missing,
    not_found,
)
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.pipeline import Authenticator, Proceed
from pilothouse_server.tasks import cancel_and_wait
from pilothouse_server.values import names

RECHECK_SECONDS = 2.0


class AuthorizationLayer:
    """The layer. `drain` ends the open streams."""

    def __init__(self, authenticator: Authenticator, *, recheck_seconds: float = RECHECK_SECONDS) -> None:
        self._authenticator = authenticator
        self._recheck_seconds = recheck_seconds
        self._draining = asyncio.Event()
        self._last_call = 0.0

    def drain(self, grace_seconds: float = 0.0) -> None:
        """Ends the open streams and refuses new ones; streams both ways may go on for most of the grace.

        What is left of it is theirs to be ended with words and a record, before they would be cut.
        """
        kept_back = min(1.0, grace_seconds / 4)
        self._last_call = asyncio.get_running_loop().time() + grace_seconds - kept_back
        self._draining.set()

    async def __call__(self, call: Call, proceed: Proceed) -> bytes:
        """Refuses the call, or runs it; a stream for as long as the caller may."""
        if call.authentication_error is not None:
            raise call.authentication_error
        if call.parse_error is not None:
            raise call.parse_error
        if call.principal is not None:
            authorize(call.rule, call.principal, call.namespace)
        if call.rule.shape == "unary_unary":
            return await proceed()
        return await self._guarded(call, proceed)

    async def _guarded(self, call: Call, proceed: Proceed) -> bytes:
        guard = asyncio.ensure_future(self._watch_over(call))
        work = asyncio.ensure_future(proceed())
        try:
            await asyncio.wait([guard, work], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                if isinstance(work.exception(), NotFound) and call.resume_token:
                    # A stream that has begun and looks again finds nothing any more once the right to it is gone. The
                    # guard knows whether that is why, but may not have looked so far.
                    await asyncio.wait([guard], timeout=1.5 * self._recheck_seconds)
                if not guard.done():
                    return work.result()
            raise guard.result()
        finally:
            await cancel_and_wait(guard, work)

    async def _watch_over(self, call: Call) -> PilothouseError:
        """Returns the reason for which the stream must end."""
        while True:
            try:
                async with asyncio.timeout(self._recheck_seconds):
                    return await self._drained(call)
            except TimeoutError:
                pass
            if call.principal is None:
                continue
            try:
                call.principal = await self._authenticator.authenticate(call.token)
            except Unavailable:
                # A database that is away revokes nothing; the stream itself will notice.
                continue
            except PilothouseError as error:
                return error
            try:
                authorize(call.rule, call.principal, call.namespace)
            except (NotFound, PermissionDenied):
                return revoked(call.rule.permission, call.namespace)

    async def _drained(self, call: Call) -> Unavailable:
        """Waits until the server no longer waits for the stream."""
        await self._draining.wait()
        if call.rule.shape != "stream_stream":
            return Unavailable(
                "this server is shutting down, go on with another one",
                reason="SHUTTING_DOWN",
                retry_after_seconds=0.1,
            )
        await asyncio.sleep(self._last_call - asyncio.get_running_loop().time())
        return Unavailable(
            "this server is shutting down and could not wait for the end of the call any longer: it is broken off, "
            "and another server cannot go on with it",
            reason="SHUTTING_DOWN",
        )


def authorize(rule: Rule, principal: Principal, namespace: str) -> None:
    """Raises unless `principal` may call a method with `rule` on `namespace` ('' where the request
    names none).
    """
    if rule.access != options.ACCESS_PERMISSION:
        return
    if rule.scope == options.SCOPE_NAMESPACE or namespace:
        if rule.scope == options.SCOPE_NAMESPACE and not namespace:
            raise missing(rule.namespace_field)
        fault = names.dns_label_problem(namespace)
        if fault:
            raise invalid(rule.namespace_field, fault, rule="format.dns_label")
        if not principal.reaches(namespace):
            raise not_found("namespace", namespace)
        allowed = principal.allows(rule.permission, namespace)
    elif rule.scope == options.SCOPE_PLATFORM or rule.mutates:
        # A change that names no namespace is one over all of them.
        allowed = principal.allows(rule.permission)
    else:
        allowed = principal.allows_somewhere(rule.permission)
    if not allowed:
        raise permission_denied(rule.permission, namespace)


def revoked(permission: str, namespace: str = "") -> PermissionDenied:
    """The error for a stream whose caller was let in, and may go on no longer."""
    where = f' in namespace "{namespace}"' if namespace else ""
    return PermissionDenied(
        f"permission {permission}{where} was revoked while the call went on",
        reason="PERMISSION_REVOKED",
        metadata={"permission": permission, **({"namespace": namespace} if namespace else {})},
    )


def permission_denied(permission: str, namespace: str = "") -> PermissionDenied:
    """The error that names the permission that is missing, and where."""
    where = f' in namespace "{namespace}"' if namespace else ""
    return PermissionDenied(
        f"permission {permission} is needed{where}",
        reason="PERMISSION_DENIED",
        metadata={"permission": permission, **({"namespace": namespace} if namespace else {})},
    )
