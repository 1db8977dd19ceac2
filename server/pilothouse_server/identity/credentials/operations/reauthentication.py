"""Recent proofs of identity, which making API keys and second factors requires.

The tokens of a session alone do not suffice, because tokens can be stolen. A thief could make an API key with a stolen
session and keep access after the session has ended, or enrol an authenticator and lock the owner out. Both operations
need a proof that is at most ten minutes old: a log-in, or a password or code that is sent again (Reauthenticate). The
session's row stores the time of the proof. A refresh copies that time and does not renew it.

The proof for a session of an issuer is a new log-in there; its time is when the issuer authenticated the person
(`auth_time`). Callers with a certificate or an API key need no recent proof: a certificate proves the caller's identity
in each handshake, and an API key gives no more than it was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pilothouse_server.authorization.access import Principal
from pilothouse_server.errors import (
    FailedPrecondition,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    missing,
)
from pilothouse_server.identity.accounts.operations import users
from pilothouse_server.identity.accounts.repository.users import get as get_user
from pilothouse_server.identity.credentials.login_turns import of_account
from pilothouse_server.identity.credentials.operations.factor_changes import FactorChanges
from pilothouse_server.identity.credentials.operations.login import Logins
from pilothouse_server.identity.credentials.operations.login_throttle import LoginThrottle
from pilothouse_server.identity.credentials.operations.second_factors import ShownCode
from pilothouse_server.identity.credentials.repository import sessions
from pilothouse_server.identity.model import LoginOrigin, UserId
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

PROOF_LASTS: Final = timedelta(minutes=10)
_BY_ISSUER: Final = "oidc"
# How a caller can give a new proof, by the values of `proof` in the error's metadata.
_WAYS: Final[Mapping[str, str]] = {
    "password": "send your password again with Reauthenticate",
    "code": "send a code of your authenticator, a recovery code or your password with Reauthenticate",
    "log_in": "log in at the issuer again, with max_age_seconds of BeginOidcLogin",
}


@dataclass(frozen=True, slots=True)
class Proof:
    """The caller's proof: a password, or a code. A missing field is ''."""

    password: str = field(default="", repr=False)
    shown: ShownCode = field(default_factory=ShownCode)


async def check_recent_proof(transaction: ReadTransaction, caller: Principal) -> None:
    """Raises if the caller uses a session without a recent proof.

    `transaction` must see the caller's sessions.

    Raises:
        PermissionDenied: REAUTHENTICATION_REQUIRED; `proof` in its metadata is `password`, `code` or `log_in`.
        Unauthenticated: the session has ended in the meantime.
    """
    if caller.session_id is None:
        return
    found = await sessions.proof_of(transaction, caller.session_id, PROOF_LASTS)
    if found is None:
        raise _session_ended()
    if found.recent:
        return
    way = "log_in" if caller.credential.method == _BY_ISSUER else "code" if found.has_code else "password"
    raise PermissionDenied(
        (
            f"the last proof of your identity is older than {PROOF_LASTS // timedelta(minutes=1)} "
            f"minutes: {_WAYS[way]}, or log in again"
        ),
        reason="REAUTHENTICATION_REQUIRED",
        metadata={"proof": way},
    )


class Reauthentication:
    """Gives sessions a recent proof.

    Wrong proofs count as failed log-ins of the account (`login_throttle`).
    """

    def __init__(self, store: Store, logins: Logins, factors: FactorChanges, throttle: LoginThrottle) -> None:
        self._store = store
        self._logins = logins
        self._factors = factors
        self._throttle = throttle

    async def check(self, caller: Principal, proof: Proof, origin: LoginOrigin) -> None:
        """Checks the caller's proof like a log-in; marks a code as used.

        Raises:
            InvalidArgument: no proof is given.
            FailedPrecondition: ISSUER_SESSION; NO_SECOND_FACTOR; SECOND_FACTOR_LOCKED, use a recovery code.
            PermissionDenied: WRONG_PASSWORD, WRONG_CODE.
            ResourceExhausted: LOGIN_THROTTLED, LOGIN_LIMITED, LOGIN_BUSY, as Login.
        """
        if caller.credential.method == _BY_ISSUER:
            raise FailedPrecondition(
                f"an issuer has begun this session: {_WAYS['log_in']}", reason="ISSUER_SESSION"
            )
        by_code = bool(proof.shown.code or proof.shown.recovery_code)
        if not by_code and not proof.password:
            raise missing("password")
        if by_code:
            await self._check_has_factor(caller)
        tried = self._throttle.tried(caller.username, origin, "")
        # The budget is that of this account at this address, so failures do not lock out others at the address.
        who = of_account(tried.account_hash.hex(), origin.address_group)
        budgets = self._throttle.budgets
        budgets.take(who)
        try:
            if by_code:
                await self._factors.check_code(caller, proof.shown, origin)
            else:
                await self._logins.confirm(caller.username, proof.password, origin)
        except ResourceExhausted as refused:
            if refused.reason == "LOGIN_BUSY":
                # No password was checked.
                budgets.give_back(who)
            raise
        budgets.give_back(who)

    async def prove(self, transaction: Transaction, caller: Principal) -> datetime:
        """Records the proof that `check` has accepted in the caller's session; returns when the proof expires.

        Raises:
            Unauthenticated: the session has ended in the meantime.
        """
        assert caller.session_id is not None, "only sessions call this"
        # Lock the user's row, like renewals and revocations, so that the newest row of the session is updated.
        user = await get_user(transaction, caller.user_id, lock=True)
        proved_at = await sessions.prove(transaction, UserId(caller.user_id), caller.session_id)
        if user is None or proved_at is None:
            raise _session_ended()
        return proved_at + PROOF_LASTS

    async def _check_has_factor(self, caller: Principal) -> None:
        async with self._store.system_read() as looking:
            user = await users.own(looking, caller)
        if not user.second_factor:
            raise FailedPrecondition(
                "this account has no authenticator: send the password", reason="NO_SECOND_FACTOR"
            )


def _session_ended() -> Unauthenticated:
    return Unauthenticated("the session has ended: log in again", reason="INVALID_TOKEN")
