"""The issuers that this server trusts, at work: discovery, keys and tokens of each."""

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

# A key that the issuer takes back is not believed for longer than this, while the issuer can be asked.
FRESH_SECONDS: Final = 300.0
# For so long the keys that are there serve while it cannot.
STALE_SECONDS: Final = 24 * 3600.0
# Tokens with names of keys that nobody knows make no more than one request in this time.
PAUSE_SECONDS: Final = 10.0
_LONGEST_REFRESH_TOKEN: Final = 16 * 1024
# Errors of RFC 6749, 8628 and OpenID Connect that are about the person of a request.
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
# Errors that mean that the issuer does not know us.
_OF_THE_CLIENT: Final = frozenset(
    ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"]
)


class GrantRefused(Exception):
    """An issuer gives no tokens; `error` is one of `REFUSALS`."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class Granted(msgspec.Struct, frozen=True):
    """The answer of an issuer: an ID token that is not verified yet, and a refresh token; '' if there is
    none.
    """

    id_token: str
    refresh_token: str

    def __repr__(self) -> str:
        return "Granted()"


class TrustedIssuer:
    """One issuer. Nothing is asked of it before it is needed, so that none of them is needed for a start."""

    def __init__(
        self, config: IssuerConfig, reach: Reach, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.config = config
        self._http = IssuerHttp(config, reach)
        # Those who are not known yet have connections of their own: however many come, sessions are renewed.
        self._http_of_strangers = IssuerHttp(config, reach)

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

        `nonce` is that of the log-in, None if the issuer is asked again; `asked_since` as in `Expected`.
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
        """Returns the issuer's key of this name. An unknown name causes one request. Raises Unavailable:
        ISSUER_UNAVAILABLE.
        """
        found = (await self._keys.get()).get(kid)
        if found is None and (newer := await self._keys.newer()) is not None:
            found = newer.get(kid)
        return found

    async def verify(self, token: str, expected: Expected) -> VerifiedToken:
        """Returns the verified content of its token. Raises as `verify.verify`, and Unavailable if there is
        no token.
        """
        if not token:
            raise issuer_away(self.config.name, "its answer holds no ID token")
        return await verify(token, self.config, self, expected)

    async def grant(self, fields: Mapping[str, str], *, stranger: bool) -> Granted:
        """Returns the tokens that the issuer gives for a form. `stranger`: the caller is not known yet.

        Raises:
            GrantRefused: the issuer refuses the person.
            Unavailable: ISSUER_UNAVAILABLE, its answer is missing or decides nothing.
        """
        status, body = await self.post("token_endpoint", fields, stranger=stranger)
        if status == 200:
            id_token, refresh_token = body.get("id_token", ""), body.get("refresh_token", "")
            if not isinstance(id_token, str) or not isinstance(refresh_token, str):
                raise issuer_away(self.config.name, "its answer does not hold tokens")
            if len(refresh_token) > _LONGEST_REFRESH_TOKEN:
                raise issuer_away(self.config.name, "its refresh token is longer than it may be")
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
        why = f"it answers {status}" + (
            f", {known}: check the client_id and the secret of its entry" if known else ""
        )
        return issuer_away(self.config.name, why)

    async def post(
        self, endpoint: str, fields: Mapping[str, str], *, stranger: bool
    ) -> tuple[int, dict[str, Any]]:
        """Sends a form to one of the addresses of its discovery document; returns the status, below 500, and the object
        that it answers.

        Raises Unavailable: ISSUER_UNAVAILABLE.
        """
        url: str = getattr(await self.discovery(), endpoint)
        if not url:
            raise issuer_away(self.config.name, f"it names no {endpoint}")
        try:
            return await (self._http_of_strangers if stranger else self._http).post(url, fields)
        except IssuerFailed as error:
            raise issuer_away(self.config.name, str(error)) from None

    async def close(self) -> None:
        """Ends the running requests and the connections."""
        await self._discovery.close()
        await self._keys.close()
        await self._http.close()
        await self._http_of_strangers.close()


class TrustedIssuers:
    """All trusted issuers, by our name and by the name in their tokens."""

    def __init__(self, issuers: Iterable[TrustedIssuer] = ()) -> None:
        self._by_name = {each.config.name: each for each in issuers}
        self._by_issuer = {each.config.issuer: each for each in self._by_name.values()}

    @classmethod
    def load(cls, settings: Settings, reach: Reach) -> TrustedIssuers:
        """Those of the settings' file. Raises SettingsError."""
        path = settings.oidc_issuers_file
        return cls(TrustedIssuer(each, reach) for each in (load_issuers(path, reach) if path else ()))

    def __iter__(self) -> Iterator[TrustedIssuer]:
        return iter(self._by_name.values())

    @property
    def ruled_roles(self) -> dict[str, str]:
        """The roles that rules give, each with the name of an issuer whose rule does."""
        return {rule.role: each.config.name for each in self for rule in each.config.rules}

    def find(self, name: str) -> TrustedIssuer | None:
        """The issuer of this name; None where there is none."""
        return self._by_name.get(name)

    @property
    def log_ins(self) -> dict[str, str]:
        """The issuers where people log in: the name that people read, by ours."""
        return {each.config.name: each.config.display_name for each in self if each.config.client_id}

    def of_log_ins(self, name: str) -> TrustedIssuer:
        """The issuer of this name where people log in; without a name the only one.

        Raises:
            NotFound: ISSUER_NOT_FOUND; no name, and there is none.
            InvalidArgument: no name, and there are several.
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
        """Returns the error for a caller that names no issuer. There is no name to report, so the text names the
        setting that the server lacks.
        """
        lacking = (
            "nobody logs in at an issuer of this server: PILOTHOUSE_OIDC_ISSUERS_FILE names none with a client_id"
            if self._by_name
            else "this server has no issuer configured: they are named by PILOTHOUSE_OIDC_ISSUERS_FILE"
        )
        return NotFound(lacking, reason="ISSUER_NOT_FOUND", metadata={"resource_type": "issuer", "name": ""})

    def of(self, issuer: str) -> TrustedIssuer | None:
        """The issuer that tokens call so; None where it is not trusted."""
        return self._by_issuer.get(issuer)

    async def close(self) -> None:
        """Closes every issuer."""
        await asyncio.gather(*(each.close() for each in self._by_name.values()))
