"""Log-in at an issuer by a browser: the authorization code with PKCE (RFC 6749, 7636), begun and completed.

The attacks, and the defence against each:

  * A code or a response of another browser: state, nonce and verifier are derived from the token of the caller that
    began the log-in (`oidc.pending`).
  * A code of another issuer: the token names the issuer to ask. If that issuer names itself in its responses (RFC
    9207), the response must contain its name.
  * Replay: the state of a completed log-in is stored until after its expiry.
  * A redirect to an attacker's address: only loopback addresses and the addresses that the issuer's entry lists are
    allowed.
  * Guesses, and many abandoned log-ins: each address has a budget, as for passwords (`failure_budgets`).

No database connection is held during a request to the issuer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from pilothouse_server.errors import Unauthenticated, Unavailable, invalid
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.identity.federation import repository
from pilothouse_server.identity.federation.oidc.fetching import issuer_away
from pilothouse_server.identity.federation.oidc.issuers import IssuerConfig
from pilothouse_server.identity.federation.oidc.pending import LoginSecrets, LoginTokens, PendingLogin
from pilothouse_server.identity.federation.oidc.trusted import (
    Granted,
    GrantRefused,
    TrustedIssuer,
    TrustedIssuers,
)
from pilothouse_server.identity.federation.operations.federated_users import Entered, Federation
from pilothouse_server.identity.model import BegunLogin, LoginOrigin
from pilothouse_server.outbound.destinations import AddressRefused, origin
from pilothouse_server.store.unit_of_work import Store

LOGIN_LASTS: Final = timedelta(minutes=10)
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Answered:
    """The issuer's response through the browser, and the token of the caller that began the log-in."""

    login_token: str = field(repr=False)
    state: str = field(repr=False)
    code: str = field(repr=False)
    iss: str


class OidcLogins:
    """Begins log-ins at issuers and completes them.

    `key` is the key of the tokens of pending log-ins.
    """

    def __init__(
        self,
        store: Store,
        issuers: TrustedIssuers,
        federated: Federation,
        budgets: FailureBudgets,
        key: bytes,
    ) -> None:
        self._store = store
        self._issuers = issuers
        self._federated = federated
        self._budgets = budgets
        self._tokens = LoginTokens(key)

    async def begin(
        self, issuer: str, redirect_uri: str, where: LoginOrigin, max_age_seconds: int = 0
    ) -> BegunLogin:
        """Begins a log-in; returns the URL where the browser continues it.

        With `max_age_seconds`, the issuer must have authenticated the person within that time.

        Raises:
            NotFound: ISSUER_NOT_FOUND, also if people cannot log in at this issuer.
            InvalidArgument: `redirect_uri` is not allowed; or no issuer is named and there are several.
            ResourceExhausted: LOGIN_LIMITED, this address began too many log-ins without completing them.
            Unavailable: ISSUER_UNAVAILABLE.
        """
        asked = self._issuers.of_log_ins(issuer)
        _check_redirect(redirect_uri, asked.config)
        self._budgets.take(where.address_group)
        endpoint = (await asked.discovery()).authorization_endpoint
        if not endpoint:
            raise issuer_away(asked.config.name, "its discovery document has no authorization_endpoint")
        now = datetime.now(UTC).replace(microsecond=0)
        expires_at = now + LOGIN_LASTS
        asked_since = int(now.timestamp()) - max_age_seconds if max_age_seconds else 0
        token, secrets = self._tokens.issue(
            asked.config.name, redirect_uri, int(expires_at.timestamp()), asked_since
        )
        parameters = _authorization(asked.config, redirect_uri, secrets)
        if max_age_seconds:
            parameters["max_age"] = str(max_age_seconds)
        query = urlencode(parameters)
        return BegunLogin(asked.config.name, f"{endpoint}?{query}", secrets.state, token, expires_at)

    async def complete(self, answered: Answered, where: LoginOrigin, named: Callable[[str], None]) -> Entered:
        """Begins a session for the person that the issuer names; `named` receives the name once it is known.

        Raises:
            Unauthenticated: INVALID_LOGIN, CODE_REFUSED, ISSUER_TOKEN_REFUSED, NO_ACCOUNT, ACCOUNT_CLOSED.
            ResourceExhausted: LOGIN_LIMITED.
            Unavailable: ISSUER_UNAVAILABLE; the log-in can still be completed if the issuer did not receive the code.
        """
        who = where.address_group
        self._budgets.take(who)
        try:
            asked, pending, secrets = await self._checked(answered)
            granted = await self._granted(asked, pending, secrets, answered.code)
            token = await asked.verify(granted.id_token, asked.of_log_ins(secrets.nonce, pending.asked_since))
        except Unavailable:
            self._budgets.give_back(who)
            raise
        named(f"{asked.config.name}:{token.subject}")
        async with self._store.system_write("login") as transaction:
            if not await repository.use_login(transaction, _hash(secrets.state), pending.expires_at):
                raise _not_of_this_login()
            entered = await self._federated.enter(
                transaction, asked.config, token, granted.refresh_token, where
            )
        # Return two tokens to the budget: this call's, and the one that `begin` took.
        self._budgets.give_back(who)
        self._budgets.succeeded(who)
        return entered

    async def _checked(self, answered: Answered) -> tuple[TrustedIssuer, PendingLogin, LoginSecrets]:
        """Returns the issuer, the log-in and its secrets for a response. Raises as `complete`."""
        read = self._tokens.read(answered.login_token)
        if read is None:
            raise _not_of_this_login()
        pending, secrets = read
        if not hmac.compare_digest(answered.state.encode(), secrets.state.encode()):
            raise _not_of_this_login()
        if pending.expires_at <= datetime.now(UTC):
            raise Unauthenticated("the log-in has expired: begin again", reason="INVALID_LOGIN")
        async with self._store.system_look() as transaction:
            used = await repository.login_is_used(transaction, _hash(secrets.state))
        asked = self._issuers.find(pending.issuer)
        if used or asked is None:
            raise _not_of_this_login()
        if answered.iss or (await asked.discovery()).names_itself:
            _check_named(answered.iss, asked.config)
        return asked, pending, secrets

    async def _granted(
        self, asked: TrustedIssuer, pending: PendingLogin, secrets: LoginSecrets, code: str
    ) -> Granted:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": pending.redirect_uri,
            "code_verifier": secrets.verifier,
        }
        try:
            return await asked.grant(fields, stranger=True)
        except GrantRefused:
            raise Unauthenticated(
                "the issuer does not accept the code: it has expired, was used, or belongs to another log-in",
                reason="CODE_REFUSED",
            ) from None


def _authorization(config: IssuerConfig, redirect_uri: str, secrets: LoginSecrets) -> dict[str, str]:
    return {
        "response_type": "code",
        "client_id": config.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(config.scopes),
        "state": secrets.state,
        "nonce": secrets.nonce,
        "code_challenge": secrets.challenge,
        "code_challenge_method": "S256",
        **dict(config.authorization_parameters),
    }


def _check_redirect(redirect_uri: str, config: IssuerConfig) -> None:
    if redirect_uri in config.redirect_uris:
        return
    try:
        local = origin(redirect_uri, schemes=("http",), path=True).host in _LOOPBACK
    except AddressRefused:
        local = False
    if not local:
        raise invalid(
            "redirect_uri",
            "must be a loopback address (http://127.0.0.1:PORT/...), or one of redirect_uris in the issuer's entry",
            reason="REDIRECT_REFUSED",
        )


def _check_named(iss: str, config: IssuerConfig) -> None:
    """Raises Unauthenticated if a response names another issuer, or does not name its issuer although it should."""
    if iss != config.issuer:
        raise Unauthenticated(
            "the response does not name the issuer of this log-in: begin again",
            reason="INVALID_LOGIN",
        )


def _hash(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()


def _not_of_this_login() -> Unauthenticated:
    return Unauthenticated(
        "the log-in is invalid, belongs to another browser, or was used: begin again",
        reason="INVALID_LOGIN",
    )
