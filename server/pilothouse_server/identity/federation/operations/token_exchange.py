"""Exchanges a program's token of a trusted issuer for a short session (RFC 8693).

Nothing is stored for a program beforehand: its identity follows from the token, and its account from the rules of the
issuer's entry (`oidc.workloads`). The session ends with the exchanged token at the latest and cannot be renewed. A
program exchanges its next token instead. When the rules no longer give an account to a program, the program loses the
account once the last such session has ended.

A valid token may be exchanged any number of times, because a job may do so in several of its steps.

A token whose signature is not the issuer's counts as a guess, and each address has a budget of guesses. If a token with
a valid signature is refused, the refusal counts against its issuer and subject, so that one broken job does not lock
out other jobs at the same address. Keys of an issuer that are not cached are fetched without holding a database
connection, by one request for all waiting callers (`oidc.fetching`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog

from pilothouse_server.errors import PermissionDenied, Unauthenticated, invalid
from pilothouse_server.identity.accounts.repository import users
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.identity.federation.oidc.trusted import TrustedIssuer, TrustedIssuers
from pilothouse_server.identity.federation.oidc.verify import (
    BEFORE_SIGNATURE,
    GUESSES,
    Expected,
    VerifiedToken,
    issuer_named_by,
    subject_named_by,
    token_refused,
)
from pilothouse_server.identity.federation.oidc.workloads import WorkloadAccount, Workloads
from pilothouse_server.identity.federation.operations.session_starter import SessionStarter
from pilothouse_server.identity.model import LoginOrigin, ShortToken, User
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

# The longest lifetime of a session for an exchanged token, unless the issuer's entry sets another one.
DEFAULT_SECONDS: Final = 900

JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TOKEN_TYPES: Final = (JWT, "urn:ietf:params:oauth:token-type:id_token")
# A session that ends before its first call is of no use.
_SHORTEST_SECONDS: Final = 1.0
# The budget of refused tokens of one issuer and subject: the burst size, and the seconds until one more is allowed.
REFUSED_AT_ONCE: Final = 10
_REFUSED_SECONDS_EACH: Final = 1.0

# Called with the verified token, also if the call then fails.
Verified = Callable[[VerifiedToken], None]


@dataclass(frozen=True, slots=True)
class ExchangeSubject:
    """A program's token, and its request.

    `lifetime_seconds` None: the longest permitted lifetime.
    """

    token: str = field(repr=False)
    token_type: str = ""
    username: str = ""
    lifetime_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A session that has begun."""

    user: User
    issued: ShortToken


@dataclass(frozen=True, slots=True)
class _Given:
    """The result of the rules for a verified token: an account, and the lifetime of its session in seconds."""

    account: WorkloadAccount
    seconds: float
    issuer: str


class TokenExchange:
    """Exchanges the tokens of programs."""

    def __init__(
        self,
        store: Store,
        issuers: TrustedIssuers,
        sessions: SessionStarter,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._issuers = issuers
        self._sessions = sessions
        self._failure_budgets = FailureBudgets(
            settings.login_failures_per_address,
            message="too many tokens from this address that no issuer has signed, try again later",
        )
        self._refused = FailureBudgets(
            REFUSED_AT_ONCE,
            seconds_each=_REFUSED_SECONDS_EACH,
            message="too many tokens of this issuer and subject were refused, try again later",
        )
        self._clock = clock

    async def exchange(self, subject: ExchangeSubject, origin: LoginOrigin, verified: Verified) -> Exchanged:
        """Begins a session that cannot be renewed.

        Raises:
            InvalidArgument: an unknown type of token, or too short a lifetime.
            Unauthenticated: ISSUER_TOKEN_REFUSED.
            PermissionDenied: WORKLOAD_NOT_ALLOWED, no rule gives this token the account.
            ResourceExhausted: LOGIN_LIMITED after too many tokens from this address that no issuer has signed, or too
                many refused tokens of the same issuer and subject.
            Unavailable: ISSUER_UNAVAILABLE.
        """
        _check(subject)
        issuer, workloads = self._trusted(subject.token)
        token = await self._verified(issuer, workloads, subject.token, origin)
        verified(token)
        who = _who(issuer, token.subject)
        self._refused.check(who)
        try:
            given = self._given(workloads, token, subject, issuer.config.name)
            begun = await self._begin(given, origin)
            if begun is None:
                log.warning(
                    "a rule gives an account that does not exist or is not active", rule=given.account.place
                )
                raise _not_allowed(given.issuer)
        except (PermissionDenied, Unauthenticated):
            self._refused.spend(who)
            raise
        return begun

    def _trusted(self, token: str) -> tuple[TrustedIssuer, Workloads]:
        """Returns the issuer that a token names, and its section about programs.

        Raises Unauthenticated if the issuer is not trusted or has no such section.
        """
        named = issuer_named_by(token)
        if not named:
            raise token_refused("form", "it is not a signed token in the compact form that names its issuer")
        issuer = self._issuers.of(named)
        if issuer is None or issuer.config.workloads is None:
            raise token_refused("issuer", "this server does not accept programs' tokens from its issuer")
        return issuer, issuer.config.workloads

    async def _verified(
        self, issuer: TrustedIssuer, workloads: Workloads, token: str, origin: LoginOrigin
    ) -> VerifiedToken:
        """Verifies a token and counts a refusal; returns the content. Raises as `exchange`."""
        self._failure_budgets.check(origin.address_group)
        try:
            return await issuer.verify(token, Expected(workloads.audiences))
        except Unauthenticated as refusal:
            rule = refusal.metadata.get("rule", "")
            if rule in GUESSES:
                self._failure_budgets.spend(origin.address_group)
            elif rule not in BEFORE_SIGNATURE:
                self._refused.take(_who(issuer, subject_named_by(token)))
            raise

    def _given(
        self, workloads: Workloads, token: VerifiedToken, subject: ExchangeSubject, issuer: str
    ) -> _Given:
        account = workloads.account(token.claims, subject.username)
        if account is None:
            raise _not_allowed(issuer)
        left = token.expires_at.timestamp() - self._clock()
        if left < _SHORTEST_SECONDS:
            # An expired token is accepted within the clock skew, but no session may outlive its token.
            raise token_refused("expiry", "it has expired, or expires within a second")
        longest = workloads.lifetime_seconds or DEFAULT_SECONDS
        return _Given(account, min(left, longest, subject.lifetime_seconds or longest), issuer)

    async def _begin(self, given: _Given, origin: LoginOrigin) -> Exchanged | None:
        async with self._store.system_write("token exchange") as transaction:
            # Lock the user's row first: see `login`.
            user = await users.find(transaction, given.account.username, lock=True)
            if user is None or user.status != "active":
                return None
            issued = await self._sessions.begin_short(
                transaction, user.id, origin, "token_exchange", timedelta(seconds=given.seconds)
            )
            return Exchanged(user, issued)


def _check(subject: ExchangeSubject) -> None:
    if subject.token_type not in ("", *TOKEN_TYPES):
        raise invalid(
            "subject_token_type",
            f"must be {' or '.join(TOKEN_TYPES)}, or empty",
            reason="UNKNOWN_TOKEN_TYPE",
        )
    if subject.lifetime_seconds is not None and subject.lifetime_seconds < _SHORTEST_SECONDS:
        raise invalid("lifetime", "must be at least one second", reason="TOO_SHORT")


def _who(issuer: TrustedIssuer, subject: str) -> str:
    return f"{issuer.config.name} {subject}"


def _not_allowed(issuer: str) -> PermissionDenied:
    """Returns the same error whether no rule fits, another account was requested, or the account does not exist."""
    return PermissionDenied(
        f'the rules of issuer "{issuer}" give this token no active account, or not the requested one',
        reason="WORKLOAD_NOT_ALLOWED",
        metadata={"issuer": issuer},
    )
