"""Client certificates in place of tokens: the user of each, and why one is refused.

The handshake has already shown that an authority has issued the certificate and that the client has its key.
Facts that can change while a connection is open are checked for every call: whether the certificate has expired
or is revoked, whether its authority is still trusted, and which user it belongs to. The result is cached for each
certificate by its bytes, as long as the files stay the same, so a call costs one look-up in a dictionary.

An expired CRL is treated as missing: the certificates of its authority are refused until the next CRL
arrives. Tokens continue to work in that time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final, NamedTuple

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from pilothouse_server.errors import Unauthenticated
from pilothouse_server.rpc.tls import authorities, users
from pilothouse_server.rpc.tls.authorities import Authorities, Revocations
from pilothouse_server.rpc.tls.expiry import Expiry
from pilothouse_server.rpc.tls.files import Reloaded
from pilothouse_server.rpc.tls.pair import fingerprint
from pilothouse_server.rpc.tls.shown import Shown, TokenOverCertificate, Vouched
from pilothouse_server.rpc.tls.users import UserRules
from pilothouse_server.settings.model import Settings

log = structlog.get_logger(__name__)

_MOST_KEPT: Final = 10_000
# The most bytes of a client's certificate, with the certificates above it. An open stream keeps it, and the
# holder of one good certificate can send any bytes along with it.
MOST_BYTES: Final = 16 * 1024


class _Why(NamedTuple):
    """Why a certificate is refused."""

    reason: str
    words: str


_UNREADABLE: Final = _Why(
    "CERTIFICATE_UNTRUSTED", "your certificate, or its chain, cannot be read or is too long"
)
_UNTRUSTED: Final = _Why(
    "CERTIFICATE_UNTRUSTED",
    "your certificate is not signed by an authority that this server now trusts",
)
_REVOKED: Final = _Why("CERTIFICATE_REVOKED", "your certificate, or one in its chain, was revoked")
_EXPIRED: Final = _Why(
    "CERTIFICATE_EXPIRED", "your certificate, or one in its chain, has expired: connect with a new one"
)
_UNKNOWN: Final = _Why(
    "REVOCATION_UNKNOWN",
    (
        "the revocation list of your certificate's authority is missing or has expired; ask the operator "
        "of this server"
    ),
)
_UNMAPPED: Final = _Why(
    "CERTIFICATE_UNMAPPED",
    "your certificate belongs to no user: no rule of this server matches a name in its subjectAltName",
)


class _Refusal(NamedTuple):
    """A certificate that is refused regardless of the time; `fingerprint` is '' if it cannot be read."""

    why: _Why
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class _State:
    """The deciding facts from the files; immutable, replaced with every change."""

    authorities: Authorities
    revocations: Revocations | None
    users: UserRules | None


class ClientTrust:
    """Decides which client certificates are accepted, by the files of the settings.

    Raises:
        SettingsError: a file cannot be used.
    """

    def __init__(self, settings: Settings, *, most_kept: int = _MOST_KEPT) -> None:
        assert settings.tls_client_ca_file is not None
        ca, crl, mapping = (
            settings.tls_client_ca_file,
            settings.tls_client_crl_file,
            settings.tls_client_users_file,
        )
        self._authorities = Reloaded("client authorities", (ca,), partial(authorities.load_authorities, ca))
        # The lists must match the authorities that the file has at this moment.
        self._revocations = (
            None
            if crl is None
            else Reloaded(
                "client revocations",
                (crl, ca),
                lambda: authorities.load_revocations(crl, authorities.load_authorities(ca)),
            )
        )
        self._users = (
            None if mapping is None else Reloaded("client users", (mapping,), partial(users.load, mapping))
        )
        self._expiries = {what: Expiry(what) for what in ("client authorities", "client revocations")}
        self.clock: Callable[[], datetime] = _now
        self._most_kept = most_kept
        self._kept: OrderedDict[bytes, tuple[_State, Vouched | _Refusal]] = OrderedDict()
        self._state = self._found()

    @property
    def pem(self) -> bytes:
        """The authorities in the form that gRPC accepts."""
        return self._state.authorities.pem

    @property
    def revokes(self) -> bool:
        """Whether there are lists of revoked certificates.

        If so, certificates are checked for calls with a token, too.
        """
        return self._revocations is not None

    def shown(self, token: str, auth_context: Callable[[], Mapping[str, Any]]) -> Shown:
        """Returns the credential that counts, from the token and the certificate of a call.

        If there is a token, it identifies the caller. No header is read, because the certificate belongs to the
        connection.
        """
        found = auth_context()
        leaf = found.get("x509_pem_cert")
        if not leaf:
            return token
        above = found.get("x509_pem_cert_chain") or ()
        certificate = b"".join((*leaf, *above))[: MOST_BYTES + 1]
        if token:
            return TokenOverCertificate(token, certificate) if self.revokes else token
        return certificate if self._users is not None else token

    def look(self) -> bool:
        """Reads changed files; returns whether the authorities have changed.

        It blocks while it reads files.
        """
        before = self._state.authorities
        # All are checked: a changed one must not keep the next from being checked.
        changed = [each.look() for each in (self._authorities, self._revocations, self._users) if each]
        if any(changed):
            self._state = self._found()
            log.info("the files that client certificates are checked by have changed")
        self._expiries["client authorities"].look(self._state.authorities)
        if self._state.revocations is not None:
            self._expiries["client revocations"].look(self._state.revocations)
        return self._state.authorities is not before

    def vouch(self, shown: bytes) -> Vouched:
        """Returns the user of a certificate that a client has presented (as PEM, with the certificates above it).

        Raises:
            Unauthenticated: as `check`; CERTIFICATE_UNMAPPED if the certificate belongs to no user.
        """
        vouched = self.check(shown)
        if not vouched.username:
            raise _refused(_UNMAPPED, vouched.fingerprint)
        return vouched

    def check(self, shown: bytes) -> Vouched:
        """Returns the same, whether or not the certificate belongs to a user.

        Raises:
            Unauthenticated: CERTIFICATE_UNTRUSTED, CERTIFICATE_REVOKED, CERTIFICATE_EXPIRED, REVOCATION_UNKNOWN. Its
                metadata has the fingerprint.
        """
        state = self._state
        # Any bytes may come with a good certificate, so the cache stores only a digest.
        digest = sha256(shown).digest()
        kept = self._kept.get(digest)
        if kept is None or kept[0] is not state:
            kept = state, _judged(state, shown)
            self._kept[digest] = kept
            self._kept.move_to_end(digest)
            while len(self._kept) > self._most_kept:
                self._kept.popitem(last=False)
        verdict = kept[1]
        if isinstance(verdict, _Refusal):
            raise _refused(verdict.why, verdict.fingerprint)
        now = self.clock()
        if now >= verdict.not_after:
            raise _refused(_EXPIRED, verdict.fingerprint)
        if verdict.known_until is not None and now >= verdict.known_until:
            raise _refused(_UNKNOWN, verdict.fingerprint)
        return verdict

    def _found(self) -> _State:
        return _State(
            self._authorities.value,
            None if self._revocations is None else self._revocations.value,
            None if self._users is None else self._users.value,
        )


def _judged(state: _State, shown: bytes) -> Vouched | _Refusal:
    """Returns the files' verdict about a certificate, without regard to the clock."""
    if len(shown) > MOST_BYTES:
        return _Refusal(_UNREADABLE)
    try:
        # Names, times and extensions are parsed on access, so errors may also come from `_looked_at`.
        return _looked_at(state, x509.load_pem_x509_certificates(shown))
    except (ValueError, UnsupportedAlgorithm):
        return _Refusal(_UNREADABLE)


def _looked_at(state: _State, certificates: Sequence[x509.Certificate]) -> Vouched | _Refusal:
    """Returns the files' verdict about the first of these certificates.

    Raises ValueError if one of them cannot be read.
    """
    leaf = certificates[0]
    path = state.authorities.path(leaf, certificates[1:])
    if path is None:
        return _Refusal(_UNTRUSTED, fingerprint(leaf))
    known_until: datetime | None = None
    if state.revocations is not None:
        checked = _revoked(state.revocations, path)
        if isinstance(checked, _Why):
            return _Refusal(checked, fingerprint(leaf))
        known_until = checked
    matched = None if state.users is None else state.users.match(users.names_of(leaf))
    username, name = ("", "") if matched is None else (matched[0], f"{matched[1].kind}:{matched[1].text}")
    not_after = min(each.not_valid_after_utc for each in path)
    return Vouched(username, name, fingerprint(leaf), not_after, known_until)


def _revoked(revocations: Revocations, path: tuple[x509.Certificate, ...]) -> datetime | _Why | None:
    """Returns the time until which no certificate of the path is known to be revoked.

    Returns None for a single certificate. Returns the reason instead if a certificate is revoked, or if an authority
    has no list.
    """
    until: datetime | None = None
    for below, above in pairwise(path):
        listed = revocations.lists.get(above)
        if listed is None:
            return _UNKNOWN
        if below.serial_number in listed.serials:
            return _REVOKED
        until = listed.not_after if until is None else min(until, listed.not_after)
    return until


def _refused(why: _Why, of: str) -> Unauthenticated:
    return Unauthenticated(why.words, reason=why.reason, metadata={"fingerprint": of} if of else {})


def _now() -> datetime:
    return datetime.now(UTC)
