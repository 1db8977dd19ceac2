"""The clients of the issuers that this server trusts: discovery, keys and tokens of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.errors import NotFound, Unavailable, invalid, not_found
from pilothouse_server.identity.federation.oidc.discovery import Discovery, discover
from pilothouse_server.identity.federation.oidc.fetching import IssuerFailed, IssuerHttp, Kept, issuer_away
from pilothouse_server.identity.federation.oidc.issuers import IssuerConfig, load_issuers
from pilothouse_server.identity.federation.oidc.jwks import PublicKey, read_keys
from pilothouse_server.identity.federation.oidc.verify import Expected, VerifiedToken, verify
from pilothouse_server.outbound.destinations import Reach
from pilothouse_server.settings.model import Settings

# While the issuer is reachable, a key that it has withdrawn is accepted for at most this many seconds.
FRESH_SECONDS: Final = 300.0
# While the issuer is unreachable, cached keys are used for this many seconds.
STALE_SECONDS: Final = 24 * 3600.0
# Tokens with unknown key names cause at most one request in this many seconds.
PAUSE_SECONDS: Final = 10.0
_LONGEST_REFRESH_TOKEN: Final = 16 * 1024
# Errors of RFC 6749, RFC 8628 and OpenID Connect that concern the person or the log-in, and not this server.
REFUSALS: Final = frozenset(
    [
        "invalid_grant",
        "access_denied",
        "expired_token",
        "authorization_pending",
        "slow_down",
        "interaction_required",
        "login_required",
        "consent_required",
        "account_selection_required",
    ]
)
# Errors that mean that the issuer does not accept this server as a client.
_OF_THE_CLIENT: Final = frozenset(
    ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"]
)


class GrantRefused(Exception):
    """An issuer refuses to give tokens; `error` is one of `REFUSALS`."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class Granted(msgspec.Struct, frozen=True):
    """The tokens in an issuer's response: an unverified ID token, and a refresh token; '' if a token is missing."""

    id_token: str
    refresh_token: str

    def __repr__(self) -> str:
        return "Granted()"


class TrustedIssuer:
    """One issuer. No request is sent before it is needed, so the server can start without its issuers."""

    def __init__(
        self, config: IssuerConfig, reach: Reach, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self._http = IssuerHttp(config, reach)
        # Anonymous callers use separate connections, so that many of them cannot block the renewal of sessions.
        self._http_of_unverified = IssuerHttp(config, reach)

        async def keys() -> Mapping[str, PublicKey]:
            return read_keys(await self._http.get((await self._discovery.get()).jwks_uri))

        self._discovery: Kept[Discovery] = Kept(
            config.name,
            lambda: discover(config, self._http, reach),
            fresh_seconds=FRESH_SECONDS,
            stale_seconds=STALE_SECONDS,
            pause_seconds=PAUSE_SECONDS,
            clock=clock,
        )
        self._keys: Kept[Mapping[str, PublicKey]] = Kept(
            config.name,
            keys,
            fresh_seconds=FRESH_SECONDS,
            stale_seconds=STALE_SECONDS,
            pause_seconds=PAUSE_SECONDS,
            clock=clock,
        )

    def of_log_ins(self, nonce: str | None, asked_since: int = 0) -> Expected:
        """Returns the requirements on an ID token of this issuer.

        `nonce` is the log-in's nonce; None for the renewal of a session. `asked_since` is as in `Expected`.
        """
        return Expected(
            frozenset({self.config.client_id}),
            party=self.config.client_id,
            nonce=nonce,
            asked_since=asked_since,
        )

    async def discovery(self) -> Discovery:
        """Returns the addresses of its endpoints. Raises Unavailable: ISSUER_UNAVAILABLE."""
        return await self._discovery.get()

    async def key(self, kid: str) -> PublicKey | None:
        """Returns the issuer's key of this name; None if there is none. Raises Unavailable: ISSUER_UNAVAILABLE.

        An unknown name causes another request for the keys, at most once in `PAUSE_SECONDS`.
        """
        found = (await self._keys.get()).get(kid)
        if found is None and (newer := await self._keys.newer()) is not None:
            found = newer.get(kid)
        return found

    async def verify(self, token: str, expected: Expected) -> VerifiedToken:
        """Returns the verified content of a token. Raises as `verify.verify`, and Unavailable if `token` is empty."""
        if not token:
            raise issuer_away(self.config.name, "its response contains no ID token")
        return await verify(token, self.config, self, expected)

    async def grant(self, fields: Mapping[str, str], *, stranger: bool) -> Granted:
        """Returns the tokens that the issuer gives for a form.

        `stranger`: the caller is anonymous.

        Raises:
            GrantRefused: the issuer refuses the person.
            Unavailable: ISSUER_UNAVAILABLE, its response is missing or contains no decision.
        """
        status, body = await self.post("token_endpoint", fields, stranger=stranger)
        if status == 200:
            id_token, refresh_token = body.get("id_token", ""), body.get("refresh_token", "")
            if not isinstance(id_token, str) or not isinstance(refresh_token, str):
                raise issuer_away(self.config.name, "its response contains a token that is not a string")
            if len(refresh_token) > _LONGEST_REFRESH_TOKEN:
                raise issuer_away(self.config.name, "its refresh token is too long")
            return Granted(id_token, refresh_token)
        raise self.refusal(status, body)

    def refusal(self, status: int, body: Mapping[str, Any]) -> GrantRefused | Unavailable:
        """Returns the error for an unsuccessful response of the issuer.

        GrantRefused: the issuer refuses this log-in. Unavailable: anything else, such as a wrong client secret.
        """
        error = body.get("error")
        if status == 400 and isinstance(error, str) and error in REFUSALS:
            return GrantRefused(error)
        known = error if isinstance(error, str) and error in _OF_THE_CLIENT else ""
        why = f"it responds with {status}" + (
            f", {known}: check the client_id and the secret of its entry" if known else ""
        )
        return issuer_away(self.config.name, why)

    async def post(
        self, endpoint: str, fields: Mapping[str, str], *, stranger: bool
    ) -> tuple[int, dict[str, Any]]:
        """Sends a form to an endpoint of the issuer; returns the status (below 500) and the JSON object it sends.

        `endpoint` is a field of `Discovery`. Raises Unavailable: ISSUER_UNAVAILABLE.
        """
        url: str = getattr(await self.discovery(), endpoint)
        if not url:
            raise issuer_away(self.config.name, f"its discovery document has no {endpoint}")
        try:
            return await (self._http_of_unverified if stranger else self._http).post(url, fields)
        except IssuerFailed as error:
            raise issuer_away(self.config.name, str(error)) from None

    async def close(self) -> None:
        """Cancels the running requests and closes the connections."""
        await self._discovery.close()
        await self._keys.close()
        await self._http.close()
        await self._http_of_unverified.close()


class TrustedIssuers:
    """All trusted issuers, by this server's name and by the `iss` of their tokens."""

    def __init__(self, issuers: Iterable[TrustedIssuer] = ()) -> None:
        self._by_name = {each.config.name: each for each in issuers}
        self._by_issuer = {each.config.issuer: each for each in self._by_name.values()}

    @classmethod
    def load(cls, settings: Settings, reach: Reach) -> TrustedIssuers:
        """Returns the issuers in the settings' file; no issuers without a file. Raises SettingsError."""
        path = settings.oidc_issuers_file
        return cls(TrustedIssuer(each, reach) for each in (load_issuers(path, reach) if path else ()))

    def __iter__(self) -> Iterator[TrustedIssuer]:
        return iter(self._by_name.values())

    @property
    def ruled_roles(self) -> dict[str, str]:
        """The roles that rules give, each with the name of an issuer whose rule gives it."""
        return {rule.role: each.config.name for each in self for rule in each.config.rules}

    def find(self, name: str) -> TrustedIssuer | None:
        """Returns the issuer of this name; None if there is none."""
        return self._by_name.get(name)

    @property
    def log_ins(self) -> dict[str, str]:
        """The display names of the issuers where people can log in, by this server's names."""
        return {each.config.name: each.config.display_name for each in self if each.config.client_id}

    def of_log_ins(self, name: str) -> TrustedIssuer:
        """Returns the issuer of this name where people can log in; without a name, the only such issuer.

        Raises:
            NotFound: ISSUER_NOT_FOUND, there is no such issuer.
            InvalidArgument: no name is given, and there are several issuers.
        """
        those = self.log_ins
        if not name and len(those) > 1:
            raise invalid("issuer", f"must be given, one of {', '.join(sorted(those))}", reason="REQUIRED")
        wanted = name or next(iter(those), "")
        found = self.find(wanted) if wanted in those else None
        if found is None:
            raise not_found("issuer", name) if name else self._none_to_log_in_at()
        return found

    def _none_to_log_in_at(self) -> NotFound:
        """Returns the error for a caller that names no issuer; its text names the setting that the server lacks."""
        lacking = (
            "no issuer of this server permits log-ins: PILOTHOUSE_OIDC_ISSUERS_FILE has no entry with a client_id"
            if self._by_name
            else "this server has no issuer configured: PILOTHOUSE_OIDC_ISSUERS_FILE is not set"
        )
        return NotFound(lacking, reason="ISSUER_NOT_FOUND", metadata={"resource_type": "issuer", "name": ""})

    def of(self, issuer: str) -> TrustedIssuer | None:
        """Returns the issuer with this `iss`; None if this server does not trust it."""
        return self._by_issuer.get(issuer)

    async def close(self) -> None:
        """Closes every issuer."""
        await asyncio.gather(*(each.close() for each in self._by_name.values()))
