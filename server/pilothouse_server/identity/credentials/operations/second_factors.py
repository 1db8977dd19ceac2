"""Second factors: enrolment, confirmation, checks, removal, and the roles that require one.

A factor is enrolled in two steps. A new seed is pending. It becomes active when a code shows that an authenticator has
it; then recovery codes are made, and each log-in needs a code. A pending seed expires after ten minutes, and each
log-in has a pending seed of its own. So a thief who has only the password cannot make the user confirm a seed that the
thief knows.

Each code is accepted once. The user's row contains the newest used time step, and one UPDATE raises it, which requires
a later step. So only one of two concurrent uses succeeds, on any servers. Times are the database's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pilothouse_server.errors import FailedPrecondition, InvalidArgument, invalid, missing
from pilothouse_server.identity.access.repository import roles
from pilothouse_server.identity.accounts.operations.user_secrets import UserSecrets
from pilothouse_server.identity.accounts.repository.users import PasswordCredentials
from pilothouse_server.identity.credentials import totp
from pilothouse_server.identity.credentials.repository import second_factors
from pilothouse_server.identity.model import EVERY_ROLE, Enrolment, SessionMethod, UserId
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction

# How long a pending seed stays valid.
ENROLMENT_LIFE: Final = timedelta(minutes=10)
# The number of consecutive wrong codes, over any time, after which codes are no longer accepted. A guesser with this
# many attempts finds a valid code among the million with a probability of 0.03 %.
MOST_WRONG_CODES: Final = 100
_KIND: Final = "totp"


@dataclass(frozen=True, slots=True)
class FactorSteps:
    """The steps that must follow a correct password."""

    code: bool = False
    enrolment: bool = False
    new_password: bool = False

    @property
    def any(self) -> bool:
        """Whether any step is needed."""
        return self.code or self.enrolment or self.new_password


@dataclass(frozen=True, slots=True)
class ShownCode:
    """A user's second factor: a code of the authenticator, or a recovery code."""

    code: str = field(default="", repr=False)
    recovery_code: str = field(default="", repr=False)

    def check(self) -> None:
        """Raises InvalidArgument unless one of the two is given."""
        if self.code and self.recovery_code:
            raise invalid("recovery_code", "must be empty if code is given", reason="TWO_CODES")
        if not self.code and not self.recovery_code:
            raise missing("code")

    @property
    def method(self) -> SessionMethod:
        """The `method` of a session that begins with this code."""
        return "password_recovery" if self.recovery_code else "password_totp"


class SecondFactors:
    """The rules of second factors."""

    def __init__(self, secrets: UserSecrets, settings: Settings) -> None:
        self._secrets = secrets
        self._roles = named_roles(settings)

    async def needed(self, transaction: ReadTransaction, stored: PasswordCredentials) -> FactorSteps:
        """Returns the steps that a user must complete after the correct password."""
        has_one = stored.user.second_factor
        enrolment = not has_one and await self.must_have_one(transaction, stored.user.id)
        return FactorSteps(code=has_one, enrolment=enrolment, new_password=stored.one_time)

    async def must_have_one(self, transaction: ReadTransaction, user_id: UserId) -> bool:
        """Returns whether the settings require a second factor for one of the user's roles."""
        if EVERY_ROLE in self._roles:
            return True
        return bool(self._roles) and await second_factors.holds_one_of(transaction, user_id, self._roles)

    async def enrol(
        self, transaction: Transaction, user_id: UserId, username: str, name: str, now: datetime
    ) -> Enrolment:
        """Makes a seed and stores it as pending under `name`; replaces a former seed of that name.

        Raises:
            Unavailable: no key provider of this server has the active key.
        """
        seed = totp.new_seed()
        await self._secrets.keep(transaction, user_id, _KIND, seed, name)
        return Enrolment(totp.shown(seed), totp.otpauth_uri(seed, username), now + ENROLMENT_LIFE)

    async def confirm(
        self, transaction: Transaction, user_id: UserId, name: str, code: str, now: datetime
    ) -> Sequence[str] | None:
        """Activates the pending seed of `name`; returns the recovery codes.

        Returns None if the code does not belong to that seed, or if the pending seed has expired.

        Raises:
            FailedPrecondition: TOTP_ENROLLED, another seed was confirmed in the meantime.
        """
        kept = await self._secrets.read(transaction, user_id, _KIND, name, lock=True)
        if kept is None or now - kept.updated_at > ENROLMENT_LIFE:
            return None
        step = totp.matching_step(kept.value, code, now, after=0)
        if step is None:
            return None
        if not await second_factors.begin(transaction, user_id, step):
            raise already_enrolled()
        await self._secrets.forget(transaction, user_id, _KIND)
        await self._secrets.keep(transaction, user_id, _KIND, kept.value)
        codes = totp.new_recovery_codes()
        hashes = [totp.recovery_hash(user_id, each) for each in codes]
        await second_factors.put_recovery_codes(transaction, user_id, hashes)
        return codes

    async def take(self, transaction: Transaction, user_id: UserId, shown: ShownCode, now: datetime) -> bool:
        """Returns whether the code is correct, and marks it as used; counts a wrong code of an authenticator.

        Raises:
            FailedPrecondition: SECOND_FACTOR_LOCKED, after too many wrong codes: only a recovery code is accepted.
        """
        if shown.recovery_code:
            code_hash = totp.recovery_hash(user_id, shown.recovery_code)
            return await second_factors.use_recovery_code(transaction, user_id, code_hash)
        used = await second_factors.used(transaction, user_id)
        seed = await self._secrets.read(transaction, user_id, _KIND)
        if used is None or seed is None:
            return False
        if used.failures >= MOST_WRONG_CODES:
            raise _locked()
        step = totp.matching_step(seed.value, shown.code, now, after=used.last_step)
        if step is not None and await second_factors.use_step(transaction, user_id, step):
            return True
        await second_factors.count_failure(transaction, user_id)
        return False

    async def remove(self, transaction: Transaction, user_id: UserId) -> bool:
        """Removes a user's factor, with all codes; returns False if there was no factor."""
        await self._secrets.forget(transaction, user_id, _KIND)
        return await second_factors.end(transaction, user_id)


def named_roles(settings: Settings) -> frozenset[str]:
    """Returns the roles whose users need a second factor, from the settings."""
    return frozenset(filter(None, map(str.strip, settings.second_factor_roles.split(","))))


async def check_roles(store: Store, settings: Settings) -> None:
    """Checks at the start that the roles whose users must have a factor exist.

    Without this check, a misspelt role would go unnoticed.

    Raises:
        SettingsError: names the role.
    """
    async with store.system_read() as transaction:
        for name in sorted(named_roles(settings) - {EVERY_ROLE}):
            if await roles.find(transaction, name) is None:
                raise SettingsError(
                    f'{PREFIX}SECOND_FACTOR_ROLES: there is no role "{name}": make it first, or leave it out'
                )


def already_enrolled() -> FailedPrecondition:
    """Returns the error for a user who already has a factor."""
    return FailedPrecondition(
        "this account has an authenticator: remove it first (DisableTotp)", reason="TOTP_ENROLLED"
    )


def _locked() -> FailedPrecondition:
    return FailedPrecondition(
        f"{MOST_WRONG_CODES} wrong codes were sent with the right password: log in with a recovery code and change the"
        " password, or ask an administrator to reset both",
        reason="SECOND_FACTOR_LOCKED",
    )


def wrong_code(field_name: str) -> InvalidArgument:
    """Returns the error for a first code that does not belong to the pending seed."""
    return invalid(
        field_name,
        "is not the current code of the authenticator enrolled last; if that was over ten minutes ago, enrol again",
        reason="WRONG_CODE",
    )
