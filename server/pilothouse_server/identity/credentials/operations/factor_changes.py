"""Changes of second factors.

Users change their own factor; administrators remove the factor of a user who has lost it. Whenever a factor changes,
the user's other sessions end, so that a thief who has the password loses access.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pilothouse_server.authorization.access import Principal
from pilothouse_server.errors import (
    FailedPrecondition,
    PermissionDenied,
    PilothouseError,
    Unauthenticated,
    not_found,
)
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.operations.users import check_untouched
from pilothouse_server.identity.accounts.repository import users
from pilothouse_server.identity.accounts.repository.users import PasswordCredentials
from pilothouse_server.identity.credentials.operations.login_throttle import LoginThrottle
from pilothouse_server.identity.credentials.operations.second_factors import (
    SecondFactors,
    ShownCode,
    already_enrolled,
    wrong_code,
)
from pilothouse_server.identity.credentials.repository import sessions
from pilothouse_server.identity.model import NO_PASSWORD, Enrolment, LoginOrigin, User, UserId
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

# The name of a pending seed that a session has requested.
_PENDING: Final = "pending"


class FactorChanges:
    """Changes second factors. The transactions run as the system role: the request role cannot access factors."""

    def __init__(self, store: Store, factors: SecondFactors, throttle: LoginThrottle) -> None:
        self._store = store
        self._factors = factors
        self._throttle = throttle

    async def enrol(self, transaction: Transaction, caller: Principal) -> tuple[User, Enrolment]:
        """Returns the caller, and a new seed for an authenticator.

        Raises:
            FailedPrecondition: TOTP_ENROLLED, NO_PASSWORD.
        """
        stored = await _own(transaction, caller, lock=True)
        if stored.password_hash == NO_PASSWORD:
            raise FailedPrecondition(
                "this account cannot log in by password, so it cannot have a second factor",
                reason="NO_PASSWORD",
            )
        if stored.user.second_factor:
            raise already_enrolled()
        user, moment = stored.user, await transaction.moment()
        return user, await self._factors.enrol(transaction, user.id, user.username, _PENDING, moment)

    async def confirm(
        self, transaction: Transaction, caller: Principal, code: str
    ) -> tuple[User, Sequence[str]]:
        """Activates the caller's new authenticator; returns the caller and the recovery codes.

        Raises:
            InvalidArgument: WRONG_CODE.
            FailedPrecondition: TOTP_ENROLLED.
        """
        stored = await _own(transaction, caller, lock=True)
        if stored.user.second_factor:
            raise already_enrolled()
        user_id = stored.user.id
        moment = await transaction.moment()
        codes = await self._factors.confirm(transaction, user_id, _PENDING, code, moment)
        if codes is None:
            raise wrong_code("code")
        if caller.session_id is not None:
            await sessions.set_method(transaction, user_id, caller.session_id, "password_totp")
        await _end_others(transaction, user_id, caller)
        return stored.user, codes

    async def check_disable(self, transaction: ReadTransaction, caller: Principal) -> None:
        """Raises unless the caller may remove the own factor.

        Raises:
            FailedPrecondition: NO_SECOND_FACTOR, SECOND_FACTOR_REQUIRED.
        """
        stored = await _own(transaction, caller)
        if not stored.user.second_factor:
            raise _none(stored.user)
        if await self._factors.must_have_one(transaction, stored.user.id):
            raise FailedPrecondition(
                "the server's PILOTHOUSE_SECOND_FACTOR_ROLES requires a second factor for this account",
                reason="SECOND_FACTOR_REQUIRED",
            )

    async def check_code(self, caller: Principal, shown: ShownCode, origin: LoginOrigin) -> None:
        """Checks a code of the caller and marks it as used, with the same counters as a log-in.

        Raises:
            PermissionDenied: WRONG_CODE.
            ResourceExhausted: LOGIN_THROTTLED.
        """
        shown.check()
        tried = self._throttle.tried(caller.username, origin, "")
        refusal: PilothouseError | None
        async with self._store.system_write("login") as transaction:
            stored = await users.credentials_of(transaction, UserId(caller.user_id))
            held = await self._throttle.hold(transaction, tried, stored)
            refusal = held.refusal
            if refusal is None and not await self._factors.take(
                transaction, UserId(caller.user_id), shown, held.throttle.now
            ):
                await self._throttle.failed(transaction, held)
                refusal = PermissionDenied("the code is wrong, or was used already", reason="WRONG_CODE")
        if refusal is not None:
            raise refusal

    async def disable(self, transaction: Transaction, caller: Principal) -> User:
        """Removes the caller's own factor. Raises as `check_disable`."""
        stored = await _own(transaction, caller, lock=True)
        await self.check_disable(transaction, caller)
        await self._factors.remove(transaction, stored.user.id)
        await _end_others(transaction, stored.user.id, caller)
        return stored.user

    async def reset(self, transaction: Transaction, caller: Principal, username: str) -> User:
        """Removes another user's factor, and ends all sessions of that user.

        Raises:
            NotFound: the user.
            PermissionDenied: ESCALATION, the user holds permissions that the caller does not hold.
            FailedPrecondition: OWN_SECOND_FACTOR, NO_SECOND_FACTOR.
        """
        target = await users.find(transaction, username, lock=True)
        if target is None:
            raise not_found("user", username)
        if target.id == caller.user_id:
            raise FailedPrecondition(
                "this is your own account: use DisableTotp, which asks for the password or a code",
                reason="OWN_SECOND_FACTOR",
            )
        await check_untouched(transaction, caller, target)
        if not await self._factors.remove(transaction, target.id):
            raise _none(target)
        await sessions.revoke_of_user(transaction, target.id)
        await grants.notify_changed(transaction)
        return target


async def _own(transaction: ReadTransaction, caller: Principal, *, lock: bool = False) -> PasswordCredentials:
    stored = await users.credentials_of(transaction, UserId(caller.user_id), lock=lock)
    if stored is None:
        raise Unauthenticated("this account was deleted", reason="INVALID_TOKEN")
    return stored


async def _end_others(transaction: Transaction, user_id: UserId, caller: Principal) -> None:
    await sessions.revoke_of_user(transaction, user_id, keep=caller.session_id)
    await grants.notify_changed(transaction)


def _none(user: User) -> FailedPrecondition:
    return FailedPrecondition(
        f'user "{user.username}" has no second factor',
        reason="NO_SECOND_FACTOR",
        metadata={"username": user.username},
    )
