"""The second half of a log-in: a challenge, and the steps that must follow the password.

The steps are: a code of the user's authenticator, or a recovery code; or the first code of an authenticator that is
enrolled now, if the user's roles require one; or a new password, if the given one was the one-time code of a reset; or
two of these. One call sends all of them, and nothing changes unless all are correct.

A wrong code counts like a wrong password, against the account, the device and the address (`login_throttle`), and a
correct password does not reset the count. The response does not reveal which code is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pilothouse_server.errors import PilothouseError, Unauthenticated, invalid, missing
from pilothouse_server.identity import tokens
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.repository import users
from pilothouse_server.identity.accounts.repository.users import PasswordCredentials
from pilothouse_server.identity.credentials.login_turns import of_account
from pilothouse_server.identity.credentials.operations.challenges import invalid_challenge
from pilothouse_server.identity.credentials.operations.login import Named
from pilothouse_server.identity.credentials.operations.login_throttle import (
    HeldThrottle,
    LoginThrottle,
    Tried,
    throttled,
)
from pilothouse_server.identity.credentials.operations.second_factors import (
    FactorSteps,
    SecondFactors,
    ShownCode,
)
from pilothouse_server.identity.credentials.operations.session_tokens import SessionTokens
from pilothouse_server.identity.credentials.password_policy import NewPasswords
from pilothouse_server.identity.credentials.repository import challenges, second_factors, sessions
from pilothouse_server.identity.model import IssuedTokens, LoginOrigin, SessionMethod, User
from pilothouse_server.store.unit_of_work import Store, Transaction

_NEW_PASSWORD: Final = "new_password"


@dataclass(frozen=True, slots=True)
class Answer:
    """The caller's response to a challenge. A missing field is ''."""

    challenge: str = field(repr=False)
    shown: ShownCode
    new_password: str = field(default="", repr=False)
    device_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Completed:
    """A session that has begun. `recovery_codes` belong to the authenticator that this log-in enrolled, if any."""

    user: User
    method: SessionMethod
    issued: IssuedTokens
    device_token: str = field(repr=False)
    recovery_codes: Sequence[str] = field(default=(), repr=False)
    recovery_codes_left: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A valid challenge: its owner, and the keys under which guesses are counted."""

    stored: PasswordCredentials
    tried: Tried
    steps: FactorSteps
    challenge_hash: bytes


@dataclass(frozen=True, slots=True)
class _Accepted:
    """The proof that was accepted: its method, and the recovery codes if it enrolled a factor."""

    method: SessionMethod
    recovery_codes: Sequence[str] = ()


class LoginSteps:
    """Completes log-ins."""

    def __init__(
        self,
        store: Store,
        new_passwords: NewPasswords,
        session_tokens: SessionTokens,
        throttle: LoginThrottle,
        factors: SecondFactors,
    ) -> None:
        self._store = store
        self._new_passwords = new_passwords
        self._session_tokens = session_tokens
        self._throttle = throttle
        self._factors = factors

    async def complete(self, answer: Answer, origin: LoginOrigin, named: Named) -> Completed:
        """Begins a session. `named` receives the account's name, also if the call then fails.

        Raises:
            Unauthenticated: INVALID_CHALLENGE, or WRONG_CODE for any wrong or used code.
            InvalidArgument: a required field is missing, or a new password breaks a rule.
            FailedPrecondition: SECOND_FACTOR_LOCKED, only a recovery code is accepted.
            ResourceExhausted: LOGIN_THROTTLED, LOGIN_LIMITED, as Login; LOGIN_BUSY.
        """
        asked = await self._asked(answer, origin)
        named(asked.stored.user.username)
        # The password was correct, so a failure counts against the account at this address, not the whole address.
        who = of_account(asked.tried.account_hash.hex(), origin.address_group)
        self._throttle.budgets.take(who)
        password_hash = await self._hashed(answer, asked)
        async with self._store.system_write("login") as transaction:
            done = await self._settle(transaction, asked, answer, password_hash, origin)
        if isinstance(done, PilothouseError):
            raise done
        self._throttle.budgets.succeeded(who)
        return done

    async def _asked(self, answer: Answer, origin: LoginOrigin) -> _Asked:
        """Returns the challenge with its owner, read without waiting for locks.

        An unknown challenge counts against the address.
        """
        try:
            return await self._found(answer, origin)
        except Unauthenticated:
            self._throttle.budgets.take(origin.address_group)
            raise

    async def _found(self, answer: Answer, origin: LoginOrigin) -> _Asked:
        if not tokens.is_well_formed(answer.challenge, tokens.CHALLENGE_PREFIX):
            raise invalid_challenge()
        challenge_hash = tokens.token_hash(answer.challenge)
        async with self._store.system_read() as transaction:
            user_id = await challenges.owner(transaction, challenge_hash)
            stored = None if user_id is None else await users.credentials_of(transaction, user_id)
            if stored is None:
                raise invalid_challenge()
            tried = self._throttle.tried(stored.user.username, origin, answer.device_token)
            found = await challenges.find(transaction, challenge_hash, tried.origin_hash)
            if found is None or found.password_changed_at != stored.password_changed_at:
                raise invalid_challenge()
            locked_for = await self._throttle.locked_for(transaction, tried, stored)
            steps = await self._factors.needed(transaction, stored)
        if locked_for is not None:
            raise throttled(locked_for)
        return _Asked(stored, tried, steps, challenge_hash)

    async def _hashed(self, answer: Answer, asked: _Asked) -> str | None:
        """Checks that all required fields are present; returns the hash of the new password if one is required."""
        if asked.steps.code:
            answer.shown.check()
        elif asked.steps.enrolment and not answer.shown.code:
            raise missing("code")
        if not asked.steps.new_password:
            if answer.new_password:
                raise invalid(
                    _NEW_PASSWORD,
                    "must not be given: this log-in does not change the password",
                    reason="NOT_ASKED_FOR",
                )
            return None
        if not answer.new_password:
            raise missing(_NEW_PASSWORD)
        return await self._new_passwords.hash(
            _NEW_PASSWORD, answer.new_password, asked.stored.user.username, f"user {asked.stored.user.id}"
        )

    async def _settle(
        self,
        transaction: Transaction,
        asked: _Asked,
        answer: Answer,
        password_hash: str | None,
        origin: LoginOrigin,
    ) -> Completed | PilothouseError:
        """Returns the session or an error.

        The caller raises the error after the transaction has committed, so that the counted failure is stored.
        """
        held = await self._throttle.hold(transaction, asked.tried, asked.stored)
        if held.refusal is not None:
            return held.refusal
        # The lock serialises concurrent responses: the second one finds the challenge used.
        found = await challenges.find(transaction, asked.challenge_hash, asked.tried.origin_hash, lock=True)
        stored = await users.credentials_of(transaction, asked.stored.user.id, lock=True)
        if found is None or stored is None or not _is_as_before(stored, asked.stored):
            return invalid_challenge()
        accepted = await self._accepted(transaction, asked, answer, held)
        if accepted is None:
            await self._throttle.failed(transaction, held)
            return _wrong_code()
        await challenges.remove(transaction, asked.challenge_hash)
        if password_hash is not None:
            await users.set_password(transaction, stored.user.id, password_hash)
            await challenges.remove_of_user(transaction, stored.user.id)
        if accepted.recovery_codes:
            # A thief who has only the password loses access.
            await sessions.revoke_of_user(transaction, stored.user.id)
            await grants.notify_changed(transaction)
        return await self._begin(transaction, held, stored.user, accepted, origin)

    async def _accepted(
        self, transaction: Transaction, asked: _Asked, answer: Answer, held: HeldThrottle
    ) -> _Accepted | None:
        """Checks the codes and marks them as used; returns the accepted proof, None if a code is wrong."""
        user_id, now = asked.stored.user.id, held.throttle.now
        if asked.steps.code:
            taken = await self._factors.take(transaction, user_id, answer.shown, now)
            return _Accepted(answer.shown.method) if taken else None
        if asked.steps.enrolment:
            name = asked.challenge_hash.hex()
            codes = await self._factors.confirm(transaction, user_id, name, answer.shown.code, now)
            return None if codes is None else _Accepted("password_totp", codes)
        return _Accepted("password")

    async def _begin(
        self,
        transaction: Transaction,
        held: HeldThrottle,
        user: User,
        accepted: _Accepted,
        origin: LoginOrigin,
    ) -> Completed:
        checked = await users.credentials_of(transaction, user.id)
        assert checked is not None, "its row is locked"
        noted = await users.logged_in(transaction, checked, None)
        assert noted, "its row is locked"
        await self._throttle.forgive(transaction, held)
        device_token = await self._throttle.remember(transaction, held.tried, checked)
        issued = await self._session_tokens.begin(transaction, user.id, origin, accepted.method)
        left = await second_factors.recovery_codes_left(transaction, user.id)
        found = await users.get(transaction, user.id)
        assert found is not None, "its row is locked"
        return Completed(found, accepted.method, issued, device_token, accepted.recovery_codes, left)


def _is_as_before(stored: PasswordCredentials, asked: PasswordCredentials) -> bool:
    """Returns whether the required steps have not changed and the user may log in."""
    return (
        stored.user.status == "active"
        and not stored.expired
        and stored.password_changed_at == asked.password_changed_at
        and (stored.user.second_factor, stored.one_time) == (asked.user.second_factor, asked.one_time)
    )


def _wrong_code() -> Unauthenticated:
    return Unauthenticated("the code is wrong, or was used already", reason="WRONG_CODE")
