"""Asks the issuer of a session whether it still vouches for the user, before the session is renewed.

The request uses the refresh token that the issuer gave, which is encrypted in `user_secrets`. The grants by the
issuer's rules and its next refresh token are stored immediately, in transactions of their own, so that neither is lost
if the renewal itself fails. When a user leaves a group at the issuer, the grants of that group therefore end within the
lifetime of an access token.

  * The issuer refuses: the session ends, and so do the user's grants by the issuer's rules.
  * The issuer is unreachable, or its response contains no decision: the session continues unchanged for `away_seconds`
    after the issuer's last confirmation. After that, renewals fail as UNAVAILABLE and can be retried.
  * The issuer gave no refresh token: the session cannot be renewed. The user logs in again, which is quick in a browser
    that is still logged in at the issuer.

An issuer may accept each refresh token once and revoke the whole log-in at a second use. So one call at a time asks
about a session (`asking_until`), and it completes even if its caller gives up. A server that is killed during the
request may lose the response. Then the issuer refuses the next request, and the user logs in again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from pilothouse_server.errors import Aborted, PilothouseError, Unauthenticated, Unavailable
from pilothouse_server.identity.federation import repository
from pilothouse_server.identity.federation.oidc.fetching import issuer_away
from pilothouse_server.identity.federation.oidc.trusted import GrantRefused, TrustedIssuer, TrustedIssuers
from pilothouse_server.identity.federation.oidc.verify import VerifiedToken
from pilothouse_server.identity.federation.operations.federated_users import Federation
from pilothouse_server.identity.federation.repository import AskedSession
from pilothouse_server.runtime.tasks import uncancelled
from pilothouse_server.store.unit_of_work import Actor, Store

log = structlog.get_logger(__name__)

Identified = Callable[[Actor], None]

# Longer than all requests to an issuer can take: for its discovery document, its keys, and the tokens.
ASKING_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Why:
    """The reason why a session ends: `told` is for its caller, `recorded` for the audit record of the ended grants."""

    told: str
    recorded: str


_DOES_NOT_VOUCH: Final = _Why(
    "the issuer of this session no longer vouches for you",
    "the issuer does not vouch any more",
)
# The issuer was not asked, so the text must not say that it refused.
_NOTHING_TO_ASK_WITH: Final = _Why(
    "the issuer of this session gave no refresh token, so the session cannot be renewed",
    "the issuer gave no refresh token",
)
_NOT_TRUSTED: Final = _Why(
    "this server no longer trusts the issuer of this session, so it cannot be renewed",
    "the issuer is not trusted any more",
)


class Renewals:
    """Asks issuers about sessions."""

    def __init__(self, store: Store, issuers: TrustedIssuers, federated: Federation) -> None:
        self._store = store
        self._issuers = issuers
        self._federated = federated

    async def check(self, refresh_token_hash: bytes, identified: Identified) -> None:
        """Returns if the session's issuer permits the renewal; returns immediately for sessions without an issuer.

        `identified` receives the session's user, also if the session ends here.

        Raises:
            Unauthenticated: ISSUER_REFUSED, the session has ended: the issuer refuses, is no longer trusted, or gave no
                refresh token.
            Unavailable: ISSUER_UNAVAILABLE, for longer than the issuer's entry allows.
            Aborted: REFRESH_UNDER_WAY, another call asks about this session.
        """
        async with self._store.system_look() as transaction:
            session = await repository.find_session(transaction, refresh_token_hash)
        if session is not None:
            identified(Actor(session.user_id, session.username))
            await uncancelled(self._ask_about(session))

    async def _ask_about(self, session: AskedSession) -> None:
        issuer = self._issuers.of(session.issuer)
        if session.identity_id is None:
            raise await self._ended(session, _NOTHING_TO_ASK_WITH)
        if issuer is None:
            raise await self._ended(session, _NOT_TRUSTED)
        async with self._store.system_write("login") as transaction:
            if not await repository.begin_asking(transaction, session.family_id, ASKING_SECONDS):
                raise Aborted(
                    "another call is refreshing this session; retry",
                    reason="REFRESH_UNDER_WAY",
                    retry_after_seconds=1.0,
                )
            given = await self._federated.refresh_token(transaction, session)
        if not given:
            raise await self._ended(session, _NOTHING_TO_ASK_WITH)
        try:
            token = await self._asked(issuer, session, given)
        except GrantRefused:
            raise await self._ended(session, _DOES_NOT_VOUCH) from None
        except PilothouseError as error:
            await self._stay(session, issuer, error)
            return
        async with self._store.system_write("login") as transaction:
            await self._federated.go_on(transaction, issuer.config, session, token)

    async def _asked(self, issuer: TrustedIssuer, session: AskedSession, given: str) -> VerifiedToken:
        fields = {"grant_type": "refresh_token", "refresh_token": given}
        granted = await issuer.grant(fields, stranger=False)
        if granted.refresh_token:
            # Store it first: even if the ID token turns out to be wrong, the former refresh token may be invalid now.
            async with self._store.system_write("login") as transaction:
                await self._federated.keep_refresh_token(
                    transaction, session.user_id, session.family_id, granted.refresh_token
                )
        token = await issuer.verify(granted.id_token, issuer.of_log_ins(None))
        if token.subject != session.subject:
            # The ID token is about another person, so the issuer does not vouch for this user.
            raise GrantRefused("invalid_grant")
        return token

    async def _stay(self, session: AskedSession, issuer: TrustedIssuer, error: PilothouseError) -> None:
        """Lets a session continue without its issuer, for as long as the issuer's entry allows. Raises as `check`."""
        async with self._store.system_write("login") as transaction:
            await repository.end_asking(transaction, session.family_id)
        since = None if session.confirmed_at is None else (session.now - session.confirmed_at).total_seconds()
        if since is None or not 0 <= since < issuer.config.away_seconds:
            if isinstance(error, Unavailable):
                raise error
            raise issuer_away(issuer.config.name, error.message) from None
        log.warning("a session is renewed without its issuer", issuer=issuer.config.name, reason=error.reason)

    async def _ended(self, session: AskedSession, why: _Why) -> Unauthenticated:
        """Ends a session; returns the error for its caller."""
        async with self._store.system_write("login") as transaction:
            await self._federated.end(transaction, session, why.recorded)
        return Unauthenticated(f"{why.told}: log in again", reason="ISSUER_REFUSED")
