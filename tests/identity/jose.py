"""Keys and signatures by hand (RFC 7515, 7517, 7518, 8037).

They make tokens that no library would make. A token is header, payload and signature, each in base64url. Here
tests can set each of the three freely.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "256": hashes.SHA256(),
    "384": hashes.SHA384(),
    "512": hashes.SHA512(),
}
_CURVES: Mapping[str, tuple[type[ec.EllipticCurve], str]] = {
    "ES256": (ec.SECP256R1, "P-256"),
    "ES384": (ec.SECP384R1, "P-384"),
    "ES512": (ec.SECP521R1, "P-521"),
}


def b64(raw: bytes) -> str:
    """Returns base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Decodes base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def segment(value: object) -> str:
    """Returns a JSON value as a segment of a token; bytes and text are used unchanged."""
    if isinstance(value, bytes):
        return b64(value)
    return b64((value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))).encode())


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Returns header, claims and signature of a token in the compact form, unverified."""
    header, payload, signature = token.split(".")
    return json.loads(unb64(header)), json.loads(unb64(payload)), unb64(signature)


@functools.cache
def private_key(alg: str, number: int) -> PrivateKey:
    """Returns the key of this number for an algorithm.

    Keys are cached in the process, because RSA keys take long to make.
    """
    if alg in _CURVES:
        return ec.generate_private_key(_CURVES[alg][0]())
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class SigningKey:
    """A private key with its name and its algorithm."""

    kid: str
    alg: str
    private: PrivateKey
    use: str = "sig"

    @classmethod
    def of(cls, kid: str, alg: str = "RS256", number: int = 0, use: str = "sig") -> SigningKey:
        """Returns the key of this number for the algorithm, with the name `kid`."""
        return cls(kid, alg, private_key("RS256" if alg[:2] in ("RS", "PS") else alg, number), use)

    def jwk(self) -> dict[str, Any]:
        """Returns the public key as a JSON Web Key."""
        named = {"kid": self.kid, "alg": self.alg, "use": self.use}
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e), **named}
        if isinstance(public, ec.EllipticCurvePublicKey):
            size, point = (public.key_size + 7) // 8, public.public_numbers()
            x, y = _number(point.x, size), _number(point.y, size)
            return {"kty": "EC", "crv": _CURVES[self.alg][1], "x": x, "y": y, **named}
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(raw), **named}

    def public(self, encoding: serialization.Encoding) -> bytes:
        """Returns the public key as PEM or DER; anyone can derive it from the JWK."""
        return self.private.public_key().public_bytes(
            encoding, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def signature(self, data: bytes) -> bytes:
        """Returns the signature over `data`, in the form that tokens use."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(data)
        digest = _HASHES[self.alg[2:]]
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(digest)))
            size = (self.private.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if self.alg.startswith("PS"):
            pss = padding.PSS(padding.MGF1(digest), padding.PSS.DIGEST_LENGTH)
            return self.private.sign(data, pss, digest)
        return self.private.sign(data, padding.PKCS1v15(), digest)

    def header(self, **more: object) -> dict[str, Any]:
        """Returns the header of an honest token; None removes an entry."""
        entries = {"alg": self.alg, "typ": "JWT", "kid": self.kid} | more
        return {name: value for name, value in entries.items() if value is not None}

    def sign(self, payload: object, header: object = None) -> str:
        """Returns a token.

        Header and payload are JSON values, or text or bytes that are used unchanged.
        """
        signed = f"{segment(self.header() if header is None else header)}.{segment(payload)}"
        return f"{signed}.{b64(self.signature(signed.encode()))}"


def _number(number: int, size: int | None = None) -> str:
    return b64(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))
