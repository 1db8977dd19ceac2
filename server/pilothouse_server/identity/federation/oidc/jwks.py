"""An issuer's public keys (RFC 7517), by the key names (`kid`) in its tokens.

A key serves one family of algorithms, or only the algorithm that its entry names. A token's header chooses among the
keys that the issuer publishes, and decides nothing else. Entries that are not for signatures or are of an unknown kind
are ignored, as the standard requires. RSA keys of fewer than 2,048 bits verify nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.identity.federation.oidc.fetching import IssuerFailed

MOST_KEYS: Final = 100
LEAST_RSA_BITS: Final = 2048
# The length of an 8,192-bit RSA modulus in base64. Verification with a longer one blocks the event loop for too long.
_LONGEST_NUMBER: Final = 1366
# The permitted names of a key. A name is compared with the names that the issuer publishes, and used for nothing else.
_KID = re.compile(r"(?!.*\.\.)[A-Za-z0-9._~+/=:@-]{1,200}\Z")
_FAMILIES: Final = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}
_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}


class PublicKey(msgspec.Struct, frozen=True):
    """A key as the issuer publishes it (`parts`), and the algorithms that it serves."""

    algorithms: tuple[str, ...]
    parts: dict[str, str]

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Returns whether this key made the signature, with an algorithm that the key serves."""
        from jwt.algorithms import get_default_algorithms
        from jwt.exceptions import PyJWTError

        if algorithm not in self.algorithms:
            return False
        by = get_default_algorithms()[algorithm]
        try:
            key = by.from_jwk(dict(self.parts))
            if getattr(key, "key_size", LEAST_RSA_BITS) < LEAST_RSA_BITS and self.parts["kty"] == "RSA":
                return False
            return bool(by.verify(signed, key, signature))
        except (PyJWTError, ValueError, TypeError):
            return False


def is_kid(value: object) -> bool:
    """Returns whether the value is a permitted name of a key."""
    return isinstance(value, str) and _KID.match(value) is not None


def read_keys(document: Mapping[str, Any]) -> dict[str, PublicKey]:
    """Returns the keys of a document that serve signatures, by name. Raises IssuerFailed: no valid key document."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise IssuerFailed("its key document contains no list of keys")
    if len(entries) > MOST_KEYS:
        raise IssuerFailed(f"its key document contains more than {MOST_KEYS} keys")
    found: dict[str, PublicKey] = {}
    for entry in entries:
        key = _key(entry) if isinstance(entry, dict) else None
        if key is None:
            continue
        if entry["kid"] in found:
            raise IssuerFailed("its key document contains two keys with the same kid")
        found[entry["kid"]] = key
    return found


def _key(entry: dict[str, Any]) -> PublicKey | None:
    kind, parts = entry.get("kty"), {}
    if not is_kid(entry.get("kid")) or not isinstance(kind, str) or kind not in _PUBLIC or not _signs(entry):
        return None
    for name in _PUBLIC[kind]:
        if not isinstance(entry.get(name), str) or len(entry[name]) > _LONGEST_NUMBER:
            return None
        parts[name] = entry[name]
    curve = kind if kind == "RSA" else entry.get("crv")
    algorithms = _FAMILIES.get(curve, ()) if isinstance(curve, str) else ()
    if entry.get("alg") is not None:
        algorithms = tuple(each for each in algorithms if each == entry["alg"])
    if not algorithms:
        return None
    return PublicKey(algorithms, {"kty": kind, **parts} | ({} if kind == "RSA" else {"crv": str(curve)}))


def _signs(entry: dict[str, Any]) -> bool:
    operations = entry.get("key_ops", ["verify"])
    return entry.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations
