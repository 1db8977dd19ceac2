"""Verifies a token: signed by its issuer, made for this server and this log-in, and valid now.

Nothing in the token is trusted before its signature is verified, except to choose among the issuer's published keys. A
header that contains a key, or the address of a key (`jku`, `x5u`, `jwk`, `x5c`), is refused without reading it. Times
may differ by at most the clock skew of the issuer's entry.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, Protocol, TypeGuard

import msgspec

from pilothouse_server.errors import Unauthenticated
from pilothouse_server.identity.federation.oidc.fetching import IssuerFailed, parse_object
from pilothouse_server.identity.federation.oidc.issuers import IssuerConfig
from pilothouse_server.identity.federation.oidc.jwks import PublicKey, is_kid

MOST_TOKEN_LENGTH: Final = 16 * 1024
# `GUESSES`: the rules that a token breaks if its issuer has not signed it. `BEFORE_SIGNATURE`: these and all rules that
# are checked before the signature.
GUESSES: Final = frozenset({"key", "signature"})
BEFORE_SIGNATURE: Final = frozenset({"form", "header", "algorithm", "type", *GUESSES})
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_LONGEST_SUBJECT: Final = 255
_SUBJECT = re.compile(rf"[ -~]{{1,{_LONGEST_SUBJECT}}}\Z")
_REFUSED_HEADERS: Final = ("jku", "x5u", "jwk", "x5c", "crit", "b64", "zip", "cty", "enc")
# Later times are refused, because they may not fit in a `datetime`.
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


class IssuerKeys(Protocol):
    """The source of the issuer's keys."""

    async def key(self, kid: str) -> PublicKey | None:
        """Returns the key of this name; None if the issuer publishes no such key. Raises Unavailable."""


class Expected(msgspec.Struct, frozen=True):
    """The requirements on a token.

    `audiences`: one of them must be in `aud`. `party`: the required value of `azp`, if the token has an `azp` or
    several audiences. If `party` is empty: `azp` must be one of `audiences` if the token has several audiences, and is
    ignored otherwise. `nonce`: the nonce that was sent when the log-in began; None if the token belongs to no log-in.
    `asked_since`: `auth_time` is required and must not be earlier, in seconds since 1970; 0 makes it optional.
    """

    audiences: frozenset[str]
    party: str = ""
    nonce: str | None = None
    asked_since: int = 0
    types: frozenset[str] = frozenset({"jwt"})


class VerifiedToken(msgspec.Struct, frozen=True):
    """An issuer's verified statement about a person.

    Only the pair of `issuer` and `subject` identifies the person. `asked_at` is the time when the issuer authenticated
    the person; None if the token does not contain it.
    """

    issuer: str
    subject: str
    expires_at: datetime
    claims: dict[str, Any]
    asked_at: datetime | None = None

    def __repr__(self) -> str:
        return f"VerifiedToken({self.issuer}, {self.subject})"


def token_refused(rule: str, message: str) -> Unauthenticated:
    """Returns the error for a refused token of an issuer; `rule` is the machine-readable name of the broken rule."""
    return Unauthenticated(
        f"the issuer's token is refused: {message}", reason="ISSUER_TOKEN_REFUSED", metadata={"rule": rule}
    )


async def verify(
    token: str,
    config: IssuerConfig,
    keys: IssuerKeys,
    expected: Expected,
    *,
    clock: Callable[[], float] = time.time,
) -> VerifiedToken:
    """Returns the content of a token that fulfils every rule.

    Raises:
        Unauthenticated: ISSUER_TOKEN_REFUSED; `rule` in its metadata names the broken rule.
        Unavailable: ISSUER_UNAVAILABLE, the issuer's keys cannot be fetched.
    """
    if len(token) > MOST_TOKEN_LENGTH or not _COMPACT.match(token):
        _refuse("form", "it is not a signed token in the compact form, or is too long")
    head, body, signature = token.split(".")
    header = _object(head)
    algorithm, kid = _checked_header(header, config, expected)
    key = await keys.key(kid)
    if key is None:
        _refuse("key", "the issuer publishes no key with its kid")
    if algorithm not in key.algorithms:
        _refuse("algorithm", "its algorithm does not fit its key")
    if not key.verifies(algorithm, f"{head}.{body}".encode(), _decoded(signature, rule="signature")):
        _refuse("signature", "its signature is not the issuer's")
    claims = _object(body)
    if claims.get("iss") != config.issuer:
        _refuse("issuer", "its iss is not this issuer")
    _check_parties(claims, expected)
    expires = _check_times(claims, clock(), config.clock_skew_seconds)
    asked_at = _checked_auth_time(claims, expected.asked_since, config.clock_skew_seconds)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _SUBJECT.match(subject):
        _refuse("subject", "its subject is missing, or is not 1 to 255 characters of ASCII")
    return VerifiedToken(config.issuer, subject, datetime.fromtimestamp(expires, UTC), claims, asked_at)


def issuer_named_by(token: str) -> str:
    """Returns the issuer that an unverified token names; '' if it names none.

    The name selects the issuer whose keys verify the token. It proves nothing.
    """
    return _text_claim(token, "iss")


def subject_named_by(token: str) -> str:
    """Returns the subject of a refused token with a verified signature; '' if it names none."""
    return _text_claim(token, "sub")[:_LONGEST_SUBJECT]


def _text_claim(token: str, name: str) -> str:
    if len(token) > MOST_TOKEN_LENGTH or not _COMPACT.match(token):
        return ""
    try:
        found = _object(token.split(".")[1]).get(name)
    except Unauthenticated:
        return ""
    return found if isinstance(found, str) else ""


def _checked_header(header: dict[str, Any], config: IssuerConfig, expected: Expected) -> tuple[str, str]:
    for name in _REFUSED_HEADERS:
        if name in header:
            _refuse("header", f"its header contains {name}, which this server does not accept")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in config.algorithms:
        _refuse("algorithm", "its algorithm is not one that this issuer may sign with")
    if not isinstance(kind, str) or kind.lower() not in expected.types:
        _refuse("type", "it is a token for another use")
    if not isinstance(kid, str) or not is_kid(kid):
        _refuse("key", "its kid is missing or malformed")
    return algorithm, kid


def _check_parties(claims: dict[str, Any], expected: Expected) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(each, str) for each in audiences) or not expected.audiences.intersection(audiences):
        _refuse("audience", "its aud is missing, or names another audience")
    named, several = claims.get("azp"), len(audiences) > 1
    if expected.party:
        if (named is not None or several) and named != expected.party:
            _refuse("azp", "its azp is not the client_id of this server")
    elif several and named not in list(expected.audiences):
        _refuse("azp", "it has several audiences, so its azp must be an audience of this server")
    if expected.nonce is not None:
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
            _refuse("nonce", "its nonce is not that of this log-in")


def _check_times(claims: dict[str, Any], now: float, skew: float) -> float:
    expires, begins, made = claims.get("exp"), claims.get("nbf", 0), claims.get("iat")
    if not _is_time(expires) or expires <= now - skew:
        _refuse("expiry", "it has expired, or its exp is missing")
    if not _is_time(begins) or begins > now + skew:
        _refuse("not before", "it is not valid yet, or its nbf is malformed")
    if not _is_time(made) or made > now + skew:
        _refuse("issued at", "its iat is in the future, or missing")
    return float(expires)


def _checked_auth_time(claims: dict[str, Any], since: int, skew: float) -> datetime | None:
    """Returns when the issuer authenticated the person; None if the time is missing and not required."""
    asked = claims.get("auth_time")
    if asked is None and not since:
        return None
    if not _is_time(asked) or asked < since - skew:
        _refuse("auth_time", "its auth_time is missing, or older than this log-in permits")
    return datetime.fromtimestamp(asked, UTC)


def _is_time(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST


def _object(part: str) -> dict[str, Any]:
    try:
        return parse_object(_decoded(part))
    except IssuerFailed:
        _refuse("form", "its header or content is not a JSON object")


def _decoded(part: str, *, rule: str = "form") -> bytes:
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        _refuse(rule, "it is not encoded in base64url")
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        _refuse(rule, "it is not encoded in base64url")
    return raw


def _refuse(rule: str, message: str) -> NoReturn:
    raise token_refused(rule, message)
