"""A reference verifier of tokens: its checks can be switched off one by one.

It shows that every forgery is well made: the named checks refuse it, and without them it is accepted. The
verifier shares no code with the product.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.identity.forge import Forge
from tests.identity.jose import SigningKey, unb64

CHECKS = (
    "form",
    "critical",
    "algorithm",
    "key",
    "signature",
    "type",
    "issuer",
    "audience",
    "azp",
    "nonce",
    "expiry",
    "not before",
    "issued at",
    "subject",
)
_ALGORITHMS = {"RS256", "PS256", "ES256", "ES384", "EdDSA"}
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\Z")
_LEEWAY = 60


class Refused(Exception):
    """The token is refused; the text is the check's name."""


@dataclass(frozen=True)
class Expected:
    """The requirements on a token; `nonce` is None if it belongs to no login."""

    forge: Forge
    audience: str
    nonce: str | None = None


def verify(token: str, expected: Expected, without: Collection[str] = ()) -> None:
    """Accepts a token or raises Refused; the checks in `without` are skipped."""
    for check in _failing(token, expected, without):
        if check not in without:
            raise Refused(check)


def _failing(token: str, expected: Expected, without: Collection[str]) -> Iterator[str]:
    """Yields the checks that a token fails.

    A token that cannot be read fails `form`, and no other check runs.
    """
    try:
        header, claims, signed, signature = _read(token)
    except (ValueError, RecursionError):
        yield "form"
        return
    if not _COMPACT.match(token) or not isinstance(claims, dict):
        yield "form"
    if "crit" in header:
        yield "critical"
    yield from _wrong_signature(header, signed, signature, expected.forge, without)
    if str(header.get("typ", "JWT")).lower() != "jwt":
        yield "type"
    if isinstance(claims, dict):
        yield from _wrong_claims(claims, expected)


def _read(token: str) -> tuple[dict[str, Any], Any, bytes, bytes]:
    if token.startswith("{"):
        document = json.loads(token)
        own = document.get("signatures", [document])[-1]
        token = f"{own['protected']}.{document['payload']}.{own['signature']}"
    pieces = [piece.strip().rstrip("=") for piece in token.split(".")]
    # `form` refuses extra or missing parts. The other checks read the first three.
    header, payload, signature = (*pieces, "", "")[:3] if len(pieces) < 5 else (pieces[0], pieces[3], "")
    read = json.loads(unb64(header) or b"{}")
    body = unb64(payload)
    try:
        claims = json.loads(body or b"[]")
    except ValueError:
        claims = body
    return read, claims, f"{header}.{payload}".encode(), unb64(signature)


def _wrong_signature(
    header: dict[str, Any], signed: bytes, signature: bytes, forge: Forge, without: Collection[str]
) -> Iterator[str]:
    alg, kid = header.get("alg"), header.get("kid")
    found = [key for key in forge.issuer.keys if key.kid == kid and key.use == "sig"]
    if not isinstance(alg, str) or alg not in _ALGORITHMS or (found and found[0].alg != alg):
        yield "algorithm"
        if "algorithm" in without and _careless(alg, kid, signed, signature, forge):
            return
    if not found:
        yield "key"
        if "key" in without and _by_the_header(alg, signed, signature, forge):
            return
    if not found or not _signed_by(found[0], str(alg), signed, signature):
        yield "signature"


def _careless(alg: object, kid: object, signed: bytes, signature: bytes, forge: Forge) -> bool:
    """Returns whether a verifier that trusts the token's algorithm would accept it."""
    if not isinstance(alg, str) or alg.lower() in ("", "none"):
        return True
    key = forge.published
    if not alg.startswith("HS"):
        return _signed_by(SigningKey(key.kid, alg, key.private), alg, signed, signature)
    pem = key.public(serialization.Encoding.PEM)
    public = (pem, pem.strip(), key.public(serialization.Encoding.DER), json.dumps(key.jwk()).encode())
    digest = {"256": hashlib.sha256, "384": hashlib.sha384, "512": hashlib.sha512}[alg[2:]]
    return any(
        hmac.digest(secret, signed, digest) == signature for secret in (*public, key.kid.encode(), b"")
    )


def _by_the_header(alg: object, signed: bytes, signature: bytes, forge: Forge) -> bool:
    """Returns whether a verifier that trusts the key named in the token accepts it."""
    known = [forge.own, SigningKey.of("key-0", "RS256", 1000), *forge.issuer.keys]
    return any(_signed_by(key, str(alg), signed, signature) for key in known)


def _signed_by(key: SigningKey, alg: str, signed: bytes, signature: bytes) -> bool:
    try:
        _verify(key, alg, signed, signature)
    except (InvalidSignature, ValueError):
        return False
    return True


def _verify(key: SigningKey, alg: str, signed: bytes, signature: bytes) -> None:
    public = key.private.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(signature, signed)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        digest = hashes.SHA384() if alg == "ES384" else hashes.SHA256()
        public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
    elif isinstance(public, rsa.RSAPublicKey):
        sha256 = hashes.SHA256()
        pss = padding.PSS(padding.MGF1(sha256), padding.PSS.DIGEST_LENGTH)
        public.verify(signature, signed, pss if alg.startswith("PS") else padding.PKCS1v15(), sha256)


def _wrong_claims(claims: dict[str, Any], expected: Expected) -> Iterator[str]:
    if claims.get("iss") != expected.forge.issuer.url:
        yield "issuer"
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if expected.audience not in audiences:
        yield "audience"
    several = len(audiences) > 1
    looks_at_azp = several or expected.nonce is not None
    if looks_at_azp and claims.get("azp", None if several else expected.audience) != expected.audience:
        yield "azp"
    if expected.nonce is not None and claims.get("nonce") != expected.nonce:
        yield "nonce"
    yield from _wrong_times(claims)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not re.fullmatch(r"[ -~]{1,255}", subject):
        yield "subject"


def _wrong_times(claims: dict[str, Any]) -> Iterator[str]:
    now = time.time()
    if not _number(claims.get("exp")) or claims["exp"] <= now - _LEEWAY:
        yield "expiry"
    if not _number(claims.get("nbf", 0)) or claims.get("nbf", 0) > now + _LEEWAY:
        yield "not before"
    if not _number(claims.get("iat")) or claims["iat"] > now + _LEEWAY:
        yield "issued at"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
