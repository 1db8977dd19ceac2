"""Persons that an issuer vouches for: their users, the grants by the issuer's rules, and their sessions.

The pair of issuer and subject identifies a person. A user is created at the first log-in, if the issuer's entry allows
it. If another user has the name, a suffix is added; if another user has the e-mail address, the address is not used. So
neither gives access to another user's account. The grants by rules are updated at each log-in and each time the issuer
is asked again. Grants that a user gave are not changed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from pilothouse_server.errors import AlreadyExists, Unauthenticated
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.bootstrap import system_record
from pilothouse_server.identity.accounts.operations.user_secrets import UserSecrets
from pilothouse_server.identity.accounts.repository import users
from pilothouse_server.identity.federation import repository
from pilothouse_server.identity.federation.oidc.issuers import IssuerConfig
from pilothouse_server.identity.federation.oidc.rules import given_by
from pilothouse_server.identity.federation.oidc.verify import VerifiedToken
from pilothouse_server.identity.federation.operations.session_starter import SessionStarter
from pilothouse_server.identity.federation.repository import AskedSession, RuleGrant, TakenGrant
from pilothouse_server.identity.model import NO_PASSWORD, IssuedTokens, LoginOrigin, User, UserId
from pilothouse_server.settings.model import SettingsError
from pilothouse_server.store.unit_of_work import ReadTransaction, Store, Transaction
from pilothouse_server.values.actors import is_reserved_username
from pilothouse_server.values.names import email_problem, text_problem, username_problem

log = structlog.get_logger(__name__)

_LONGEST_NAME: Final = 50
_LONGEST_FULL_NAME: Final = 100
_LONGEST_EMAIL: Final = 254
_SUFFIX_LENGTH: Final = 8
_UNUSUAL = re.compile(r"[^A-Za-z0-9._@-]+")
TIDY_SECONDS: Final = 300.0
_USERS_AT_ONCE: Final = 200
_MOST_IN_A_RECORD: Final = 100


@dataclass(frozen=True, slots=True)
class Entered:
    """A person that an issuer vouches for, with a new session.

    `given` describes the grants by the rules.
    """

    user: User
    issued: IssuedTokens
    given: tuple[str, ...]


class Federation:
    """Creates users, grants and sessions from the statements of issuers."""

    def __init__(self, sessions: SessionStarter, user_secrets: UserSecrets) -> None:
        self._sessions = sessions
        self._user_secrets = user_secrets

    async def enter(
        self,
        transaction: Transaction,
        config: IssuerConfig,
        token: VerifiedToken,
        refresh_token: str,
        origin: LoginOrigin,
    ) -> Entered:
        """Begins a session for the person of an ID token; `refresh_token` is the issuer's, '' if it gave none.

        The transaction must run as the system role, and must not wait for anything outside the database.

        Raises:
            Unauthenticated: NO_ACCOUNT, the issuer's entry creates no user for the person; ACCOUNT_CLOSED, the
                user may not log in.
        """
        await repository.lock_identity(transaction, token.issuer, token.subject)
        given = await _resolved(transaction, config, token)
        user = await self._user(transaction, config, token, may_be_made=_may_enter(config, given))
        await self._keep_in_step(transaction, config, user.id, user.username, given)
        identity_id = await repository.confirm_identity(
            transaction, user.id, token.issuer, token.subject, timedelta(days=config.grants_days)
        )
        await repository.note_login(transaction, user.id)
        issued = await self._sessions.begin(transaction, user.id, origin, "oidc", token.asked_at)
        if refresh_token:
            family_id = await self._sessions.family_of(transaction, issued)
            await repository.put_session(transaction, family_id, identity_id)
            await self.keep_refresh_token(transaction, user.id, family_id, refresh_token)
        await grants.notify_changed(transaction)
        return Entered(user, issued, given.words)

    async def go_on(
        self,
        transaction: Transaction,
        config: IssuerConfig,
        session: AskedSession,
        token: VerifiedToken,
    ) -> None:
        """Updates a user's grants from an issuer's new ID token, and records that it confirmed the session."""
        given = await _resolved(transaction, config, token)
        if await users.get(transaction, session.user_id, lock=True) is None:
            return
        if await self._keep_in_step(transaction, config, session.user_id, session.username, given):
            await grants.notify_changed(transaction)
        identity_id = await repository.confirm_identity(
            transaction, session.user_id, token.issuer, token.subject, timedelta(days=config.grants_days)
        )
        await repository.put_session(transaction, session.family_id, identity_id)

    async def end(self, transaction: Transaction, session: AskedSession, why: str) -> None:
        """Ends a session that its issuer no longer vouches for, and the grants by its rules.

        `why` is the reason for the audit record.
        """
        await users.get(transaction, session.user_id, lock=True)
        await self._sessions.end(transaction, session.user_id, session.family_id)
        taken = await repository.end_rule_grants(transaction, session.user_id)
        _record(transaction, session.username, why, (), taken)
        await self._user_secrets.forget(transaction, session.user_id, "token", str(session.family_id))
        await grants.notify_changed(transaction)

    async def refresh_token(self, transaction: ReadTransaction, session: AskedSession) -> str:
        """Returns the issuer's refresh token of the session; '' if there is none. Raises as `UserSecrets.read`."""
        found = await self._user_secrets.read(transaction, session.user_id, "token", str(session.family_id))
        return "" if found is None else found.value.decode()

    async def keep_refresh_token(
        self, transaction: Transaction, user_id: UserId, family_id: UUID, refresh_token: str
    ) -> None:
        """Replaces the issuer's refresh token of a session."""
        await self._user_secrets.keep(transaction, user_id, "token", refresh_token.encode(), str(family_id))

    async def _keep_in_step(
        self, transaction: Transaction, config: IssuerConfig, user_id: UserId, username: str, given: _Given
    ) -> bool:
        changes = await repository.put_rule_grants(transaction, user_id, list(given.grants), config.name)
        words = tuple(given.grants[grant] for grant in changes.given)
        _record(transaction, username, f"rules of {config.name}", words, changes.taken)
        return bool(changes.given or changes.taken)

    async def _user(
        self, transaction: Transaction, config: IssuerConfig, token: VerifiedToken, *, may_be_made: bool
    ) -> User:
        """Returns the user and locks its row; creates a user if there is none. Raises as `enter`."""
        user_id = await repository.find_user(transaction, token.issuer, token.subject)
        if user_id is None:
            if not may_be_made:
                raise Unauthenticated(
                    "you have no account here, and the issuer's entry (provision, rules) does not create one",
                    reason="NO_ACCOUNT",
                    metadata={"issuer": config.name},
                )
            user_id = (await self._made(transaction, config, token)).id
        user = await users.get(transaction, user_id, lock=True)
        if user is None or user.status != "active":
            raise Unauthenticated(
                "this account may not log in: ask an administrator", reason="ACCOUNT_CLOSED"
            )
        return user

    async def _made(self, transaction: Transaction, config: IssuerConfig, token: VerifiedToken) -> User:
        try:
            async with transaction.attempt():
                return await _made(transaction, config, token)
        except AlreadyExists:
            # A concurrent transaction took the name or the e-mail address. Now that is visible, and another is chosen.
            return await _made(transaction, config, token)


@dataclass(frozen=True, slots=True)
class _Given:
    """The grants by the rules for one person, each with a description for the audit record."""

    grants: dict[RuleGrant, str]

    @property
    def words(self) -> tuple[str, ...]:
        """The descriptions of all grants."""
        return tuple(self.grants.values())


async def check_roles(store: Store, issuers: Iterable[IssuerConfig]) -> None:
    """Checks at the start that the roles in rules exist. Raises SettingsError, which names the rule."""
    rules = [rule for config in issuers for rule in config.rules]
    async with store.system_read() as transaction:
        known = await repository.role_ids(transaction, {rule.role for rule in rules})
    for rule in rules:
        if rule.role not in known:
            raise SettingsError(f'{rule.place}.role: there is no role "{rule.role}": make it first')


async def tidy(store: Store, now: datetime) -> None:
    """Deletes ended log-ins and issuers' tokens, and ends grants that issuers have not confirmed in time.

    `now` is the earlier of two clocks, because a deletion cannot be undone.
    """
    async with store.system_write("periodic") as transaction:
        await repository.remove_ended(transaction, now)
    while True:
        async with store.system_write("periodic") as transaction:
            gone = await repository.end_unconfirmed(transaction, now, _USERS_AT_ONCE)
            for (username, issuer), taken in gone.items():
                _record(transaction, username, f"{issuer} has not confirmed the user in time", (), taken)
            if gone:
                await grants.notify_changed(transaction)
        if len(gone) < _USERS_AT_ONCE:
            break


def _record(
    transaction: Transaction, username: str, why: str, given: Sequence[str], taken: Sequence[TakenGrant]
) -> None:
    """Writes the audit records of the grants that rules gave and took away, in the same transaction."""
    words = [_words(each.role, each.namespace) for each in taken]
    for action, grants_of_it in (("grant", list(given)), ("revoke", words)):
        if grants_of_it:
            facts = {"why": why, "grants": grants_of_it[:_MOST_IN_A_RECORD], "count": len(grants_of_it)}
            transaction.records.append(
                system_record(transaction, action, "role_grant", username, metadata=facts)
            )


def _words(role: str, namespace: str) -> str:
    return f"{role} in {namespace or 'all namespaces'}"


async def _resolved(transaction: ReadTransaction, config: IssuerConfig, token: VerifiedToken) -> _Given:
    """Returns the grants by the rules whose roles and namespaces exist now."""
    gives = sorted(given_by(config.rules, token.claims), key=lambda each: (each.role, each.namespace))
    roles = await repository.role_ids(transaction, {each.role for each in gives})
    namespaces = await repository.namespace_ids(
        transaction, {each.namespace for each in gives if each.namespace}
    )
    for name in sorted({each.role for each in gives} - roles.keys()):
        log.warning("a rule gives a role that does not exist", issuer=config.name, role=name)
    there = [
        each for each in gives if each.role in roles and (not each.namespace or each.namespace in namespaces)
    ]
    return _Given(
        {
            RuleGrant(roles[each.role], namespaces.get(each.namespace)): _words(each.role, each.namespace)
            for each in there
        }
    )


def _may_enter(config: IssuerConfig, given: _Given) -> bool:
    return config.provision == "everybody" or (config.provision == "by-rule" and bool(given.grants))


async def _made(transaction: Transaction, config: IssuerConfig, token: VerifiedToken) -> User:
    made = await users.insert_user(transaction, await _new_user(transaction, config, token), NO_PASSWORD)
    facts = {"why": f"the first log-in at {config.name}", "subject": token.subject}
    transaction.records.append(
        system_record(transaction, "create", "user", made.username, made.id, metadata=facts)
    )
    return made


async def _new_user(transaction: Transaction, config: IssuerConfig, token: VerifiedToken) -> User:
    suffix = hashlib.sha256(f"{token.issuer} {token.subject}".encode()).hexdigest()
    return User(
        id=UserId(0),
        uid="",
        username=await _free_name(transaction, config, token, suffix[:_SUFFIX_LENGTH]),
        email=await _free_email(transaction, config, token, suffix[:32]),
        full_name=_full_name(token.claims),
    )


async def _free_name(
    transaction: Transaction, config: IssuerConfig, token: VerifiedToken, suffix: str
) -> str:
    """Returns a name made from the token's claim.

    It gets a suffix if it is not a valid name, is reserved, or belongs to another user.
    """
    claimed = _claim(token.claims, config.username_claim)
    wanted = config.username_prefix + _UNUSUAL.sub("-", claimed).lstrip(".-_@") if claimed else ""
    usable = wanted and username_problem(wanted) is None and not is_reserved_username(wanted)
    if usable and await users.find(transaction, wanted) is None:
        return wanted
    base = (wanted or f"{config.username_prefix}{config.name}")[: _LONGEST_NAME - _SUFFIX_LENGTH - 1]
    named = f"{re.sub('[.]+', '.', base).rstrip('.-_@')}-{suffix}"
    return named if username_problem(named) is None else f"{config.name}-{suffix}"


async def _free_email(
    transaction: Transaction, config: IssuerConfig, token: VerifiedToken, suffix: str
) -> str:
    """Returns the token's e-mail address, or an address under `.invalid` that reaches nobody.

    The latter if the token has none, its issuer has not verified it (`email_verified`), or another user has it.
    """
    claimed = _claim(token.claims, config.email_claim)
    theirs = token.claims.get("email_verified") is True
    usable = claimed and theirs and len(claimed) <= _LONGEST_EMAIL and email_problem(claimed) is None
    if usable and await users.find_by_email(transaction, claimed) is None:
        return claimed
    return f"{suffix}@{config.name}.invalid"


def _full_name(claims: Mapping[str, Any]) -> str:
    name = claims.get("name")
    good = isinstance(name, str) and len(name) <= _LONGEST_FULL_NAME and text_problem(name) is None
    return str(name) if good else ""


def _claim(claims: Mapping[str, Any], path: Sequence[str]) -> str:
    """Returns the text of a claim; '' if the claim is missing or not a text."""
    found: object = claims
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""
