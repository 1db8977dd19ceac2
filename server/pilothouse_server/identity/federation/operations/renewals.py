"""Before a session that was begun at an issuer is renewed, its issuer is asked whether it still vouches.

It is asked with the refresh token that it gave, which is sealed in `user_secrets`. Its answer is stored
immediately, in a transaction of its own: the grants by its rules, and its next refresh token, so that none is
lost if the renewal itself fails. So a grant by a group ends, after the group does, within the lifetime of an
access token.

  * The issuer refuses: the session ends, and with it the user's grants by the issuer's rules.
  * The issuer is away, or its answer decides nothing: the session continues unchanged for `away_seconds` after its
    last answer. Then it is refused as UNAVAILABLE and can be tried again, once the issuer is back.
  * It gave no refresh token: the session cannot be renewed. One logs in again, which a browser that is logged in at the
    issuer makes short.

An issuer may take each refresh token once and end everything at the second use. So one call at a time asks about a
session (`asking_until`), and it asks to the end, whether its caller waits or not. A server that is killed while it asks
may lose the answer: then the issuer refuses the next time, and the user logs in again.
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

# Longer than an issuer is waited for: its discovery document, its keys, and its answer.
ASKING_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Why:
    """The reason why a session ends: for its caller, and for the record of the ended grants."""

    told: str
    recorded: str


_DOES_NOT_VOUCH: Final = _Why(
    "the issuer of this session no longer vouches for you",
    "the issuer does not vouch any more",
)
# Only what was asked can have refused.
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
        """Returns where a session may be renewed as far as its issuer is concerned; others than of issuers always may.

        `identified` gets the session's user, also if the session ends here.

        Raises:
            Unauthenticated: ISSUER_REFUSED, also where the issuer cannot be asked, and the session has ended.
            Unavailable: ISSUER_UNAVAILABLE, and it has been for longer than the issuer's entry allows.
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
                    "another call refreshes this session, try again",
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
            # The former refresh token may no longer be valid, even if the ID token is wrong.
            async with self._store.system_write("login") as transaction:
                await self._federated.keep_refresh_token(
                    transaction, session.user_id, session.family_id, granted.refresh_token
                )
        token = await issuer.verify(granted.id_token, issuer.of_log_ins(None))
        if token.subject != session.subject:
            # A statement about another person does not vouch for this one.
            raise GrantRefused("invalid_grant")
        return token

    async def _stay(self, session: AskedSession, issuer: TrustedIssuer, error: PilothouseError) -> None:
        """Lets a session continue if its issuer has not answered, for as long as its entry allows. Raises as
        `check`.
        """
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
