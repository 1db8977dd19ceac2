"""The file of PILOTHOUSE_OIDC_ISSUERS_FILE: the issuers, and the permissions that their tokens give here.

    issuers:
      - name: company
        issuer: https://sso.example.com/realms/company
        client_id: pilothouse
        client_secret_file: company.secret
        rules:
          - when: [{claim: groups, contains: platform-admins}]
            role: admin
            namespaces: ["*"]

It is read and checked once, at the start.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from pilothouse_server.identity.federation.oidc.documents import DocumentEntry, read_entry
from pilothouse_server.identity.federation.oidc.rules import ClaimRule, read_rule
from pilothouse_server.identity.federation.oidc.workloads import Workloads, read_workloads
from pilothouse_server.outbound.destinations import AddressRefused, Origin, Reach, origin
from pilothouse_server.settings.model import PREFIX, SettingsError

VARIABLE: Final = f"{PREFIX}OIDC_ISSUERS_FILE"
# The algorithms that a public key verifies. Signatures with a shared secret are not allowed, nor is `none`.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_USUAL_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA")
_USUAL_SCOPES: Final = ("openid", "profile", "email", "offline_access")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
# The parameters of the authorization URL that only this server sets.
_OWN_PARAMETERS: Final = frozenset(
    [
        "response_type",
        "response_mode",
        "client_id",
        "client_secret",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code",
        "code_challenge",
        "code_challenge_method",
        "request",
        "request_uri",
        "claims",
    ]
)
_MOST_SECRET_BYTES = 4096

# The people who get an account at the first log-in: all, only those to whom a rule gives a role, or none.
Provision = Literal["everybody", "by-rule", "nobody"]
ClientAuthentication = Literal["basic", "post"]


class IssuerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One issuer. `issuer` is its address exactly as in the `iss` of its tokens; `name` is this server's name for it.

    `client_id` is empty if people cannot log in at this issuer. `away_seconds`: while the issuer is unreachable, a
    session may be renewed for this long after the issuer last confirmed it. `grants_days`: a user's grants by the
    issuer's rules end after this many days without a confirmation, whether or not the user is logged in. `authority` is
    PEM; empty means the certificate authorities that this machine trusts.
    """

    name: str
    issuer: str
    display_name: str
    client_id: str = ""
    client_secret: str = ""
    client_authentication: ClientAuthentication = "basic"
    scopes: tuple[str, ...] = _USUAL_SCOPES
    algorithms: tuple[str, ...] = _USUAL_ALGORITHMS
    clock_skew_seconds: int = 60
    redirect_uris: tuple[str, ...] = ()
    authorization_parameters: tuple[tuple[str, str], ...] = ()
    username_claim: tuple[str, ...] = ("preferred_username",)
    email_claim: tuple[str, ...] = ("email",)
    username_prefix: str = ""
    provision: Provision = "by-rule"
    away_seconds: int = 3600
    grants_days: int = 7
    authority: str = ""
    rules: tuple[ClaimRule, ...] = ()
    workloads: Workloads | None = None
    place: str = VARIABLE

    def __repr__(self) -> str:
        return f"IssuerConfig({self.name}, {self.issuer})"

    @property
    def address(self) -> Origin:
        """The issuer's address, parsed."""
        return origin(self.issuer, path=True)


def load_issuers(path: Path, reach: Reach) -> tuple[IssuerConfig, ...]:
    """Reads the file. Raises SettingsError, which names the setting, the entry and the rule."""
    document = read_entry(VARIABLE, path)
    issuers = tuple(_issuer(each, path.parent, reach) for each in document.entries("issuers", needed=True))
    document.finish()
    for what in ("name", "issuer"):
        _refuse_twice(issuers, what)
    return issuers


def _refuse_twice(issuers: Sequence[IssuerConfig], what: str) -> None:
    seen: set[str] = set()
    for each in issuers:
        value = getattr(each, what)
        if value in seen:
            raise SettingsError(f"{each.place}.{what}: {value} is already used by another entry")
        seen.add(value)


def _issuer(entry: DocumentEntry, folder: Path, reach: Reach) -> IssuerConfig:
    name = entry.text("name", most=40)
    if not _NAME.match(name):
        raise entry.wrong(
            "name", "must be lower-case letters, digits and -, 40 at most, without - at either end"
        )
    client_id = entry.text("client_id", "", most=255)
    made = IssuerConfig(
        name=name,
        issuer=_address(entry, reach),
        display_name=entry.text("display_name", name, most=100),
        client_id=client_id,
        client_secret=_secret(entry, folder) if entry.given("client_secret_file") else "",
        client_authentication=entry.choice("client_authentication", ("basic", "post"), "basic"),  # type: ignore[arg-type]
        scopes=_scopes(entry),
        algorithms=_algorithms(entry),
        clock_skew_seconds=entry.number("clock_skew_seconds", 60, least=0, most=300),
        redirect_uris=_redirects(entry),
        authorization_parameters=_parameters(entry),
        username_claim=_claim(entry, "username_claim", "preferred_username"),
        email_claim=_claim(entry, "email_claim", "email"),
        username_prefix=_prefix(entry),
        provision=entry.choice("provision", ("everybody", "by-rule", "nobody"), "by-rule"),  # type: ignore[arg-type]
        away_seconds=entry.number("away_seconds", 3600, least=0, most=7 * 86400),
        grants_days=entry.number("grants_days", 7, least=1, most=400),
        authority=_authority(entry, folder),
        rules=tuple(read_rule(each) for each in entry.entries("rules")),
        workloads=read_workloads(entry.mapping("workloads"), client_id),
        place=entry.place,
    )
    entry.finish()
    return made


def _address(entry: DocumentEntry, reach: Reach) -> str:
    text = entry.text("issuer", most=500)
    try:
        address = origin(text, path=True)
        reach.check(address.host)
    except AddressRefused as error:
        raise entry.wrong("issuer", str(error)) from None
    if address.scheme != "https" and not entry.flag("insecure_http", False):
        raise entry.wrong(
            "issuer", "must begin with https://, unless insecure_http is true (unsafe over a network)"
        )
    entry.flag("insecure_http", False)
    return text


def _scopes(entry: DocumentEntry) -> tuple[str, ...]:
    scopes = entry.texts("scopes", _USUAL_SCOPES, most=30)
    if "openid" not in scopes:
        raise entry.wrong("scopes", "must contain openid: without it there is no ID token")
    if any(
        set(scope) - {chr(code) for code in range(33, 127)} or set(scope) & set('"\\') for scope in scopes
    ):
        raise entry.wrong("scopes", "must be ASCII words without spaces, double quotes and backslashes")
    return scopes


def _algorithms(entry: DocumentEntry) -> tuple[str, ...]:
    algorithms = entry.texts("algorithms", _USUAL_ALGORITHMS)
    for each in algorithms:
        if each not in ALGORITHMS:
            raise entry.wrong(
                "algorithms", f"{each} is not a public-key algorithm: use {', '.join(ALGORITHMS)}"
            )
    return algorithms


def _redirects(entry: DocumentEntry) -> tuple[str, ...]:
    """Reads the addresses of web applications.

    Loopback addresses, which the command uses, are always allowed.
    """
    found = entry.texts("redirect_uris", (), most=20)
    for each in found:
        try:
            origin(each, schemes=("https",), path=True)
        except AddressRefused as error:
            raise entry.wrong("redirect_uris", f"{each} {error}") from None
    return found


def _parameters(entry: DocumentEntry) -> tuple[tuple[str, str], ...]:
    found = entry.text_values("authorization_parameters")
    for name in found:
        if name in _OWN_PARAMETERS:
            raise entry.wrong("authorization_parameters", f"{name} is set by the server itself")
    return tuple(found.items())


def _claim(entry: DocumentEntry, name: str, default: str) -> tuple[str, ...]:
    return entry.path_of_claim(name) if entry.given(name) else (default,)


def _prefix(entry: DocumentEntry) -> str:
    prefix = entry.text("username_prefix", "", most=20)
    if prefix and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]*", prefix):
        raise entry.wrong(
            "username_prefix", "must begin with a letter or digit, and contain only letters, digits and ._@-"
        )
    return prefix


def _secret(entry: DocumentEntry, folder: Path) -> str:
    secret = _file(entry, "client_secret_file", folder).strip()
    if not secret or not secret.isascii() or not secret.isprintable():
        raise entry.wrong(
            "client_secret_file", "must contain the secret, printable ASCII characters in one line"
        )
    return secret


def _authority(entry: DocumentEntry, folder: Path) -> str:
    if not entry.given("certificate_authority_file"):
        return ""
    text = _file(entry, "certificate_authority_file", folder, most=1024 * 1024)
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise entry.wrong("certificate_authority_file", "must contain certificates in PEM form") from None
    return text


def _file(entry: DocumentEntry, name: str, folder: Path, most: int = _MOST_SECRET_BYTES) -> str:
    path = folder / entry.text(name)
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)
        text = raw.decode()
    except OSError as error:
        words = error.strerror or "cannot be read"
        raise entry.wrong(name, f"{path}: {words.lower()}") from None
    except UnicodeDecodeError:
        raise entry.wrong(name, f"{path}: must be text in UTF-8") from None
    if len(raw) > most:
        raise entry.wrong(name, f"{path}: has more than {most} bytes")
    return text
