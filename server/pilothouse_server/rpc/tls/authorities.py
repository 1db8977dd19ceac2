"""The authorities whose client certificates are accepted, and the certificates that they have revoked.

A list of revoked certificates (CRL) is accepted if an authority of the file has signed it, if it is complete (no delta,
not for some reasons only), and if it states when the next one comes. If the settings name a file of lists, each
authority must have its list: a missing one is a mistake, and never means "nothing is revoked".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from pilothouse_server.rpc.tls import files
from pilothouse_server.settings.model import PREFIX, SettingsError

_CA, _CRL = "TLS_CLIENT_CA_FILE", "TLS_CLIENT_CRL_FILE"
MOST_CRL_BYTES: Final = 64 << 20
_MOST_AUTHORITIES = 1000
_LONGEST_PATH = 8
_BEGIN, _END = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificates of a file, and their form for gRPC.

    They are valid from `not_before` to `not_after`.
    """

    certificates: tuple[x509.Certificate, ...]
    pem: bytes = field(repr=False)

    @property
    def not_before(self) -> datetime:
        return max(each.not_valid_before_utc for each in self.certificates)

    @property
    def not_after(self) -> datetime:
        return min(each.not_valid_after_utc for each in self.certificates)

    def path(
        self, leaf: x509.Certificate, shown: Sequence[x509.Certificate] = ()
    ) -> tuple[x509.Certificate, ...] | None:
        """Returns the certificates from `leaf` up to the last authority; None if no path leads to an authority.

        `shown` are the certificates that the client has sent with its own.
        """
        path = [leaf]
        while len(path) <= _LONGEST_PATH:
            above = _issuer(path[-1], self.certificates)
            if path[-1] in self.certificates:
                # From here on all are in the file. An issuer that is not in the file is not required.
                if above is None or above in path:
                    return tuple(path)
            elif above is None:
                above = _issuer(path[-1], shown)
            if above is None or above in path:
                return None
            path.append(above)
        return None


@dataclass(frozen=True, slots=True)
class Revoked:
    """The serial numbers that one authority has revoked.

    The list is valid until `not_after`.
    """

    serials: frozenset[int] = field(repr=False)
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Revocations:
    """The lists by the authority that has signed them.

    They are valid from `not_before` to `not_after`, when the first of them expires.
    """

    lists: Mapping[x509.Certificate, Revoked]

    @property
    def not_before(self) -> datetime:
        return max(each.not_before for each in self.lists.values())

    @property
    def not_after(self) -> datetime:
        return min(each.not_after for each in self.lists.values())


def _issuer(below: x509.Certificate, among: Iterable[x509.Certificate]) -> x509.Certificate | None:
    return next((each for each in among if each.subject == below.issuer and _signed(below, each)), None)


def _signed(below: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def load_authorities(path: Path) -> Authorities:
    """Returns the authorities of a PEM file. Raises SettingsError."""
    content = files.read(_CA, path)
    try:
        found = tuple(dict.fromkeys(x509.load_pem_x509_certificates(content)))
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{PREFIX}{_CA}: {path} must contain certificates in PEM form") from None
    if len(found) > _MOST_AUTHORITIES:
        raise SettingsError(f"{PREFIX}{_CA}: {path} has more than {_MOST_AUTHORITIES} certificates")
    # Leaves out anything else in the file: a key, for example, must not get to gRPC.
    return Authorities(found, b"".join(each.public_bytes(Encoding.PEM) for each in found))


def load_revocations(path: Path, authorities: Authorities) -> Revocations:
    """Returns the lists of a file, PEM or DER.

    Raises:
        SettingsError: the file cannot be read or has no list, a list is incomplete or no authority has signed it, or
            an authority has no list.
    """
    lists: dict[x509.Certificate, Revoked] = {}
    for crl in _parsed(path, files.read(_CRL, path, MOST_CRL_BYTES)):
        signers = [
            each for each in authorities.certificates if each.subject == crl.issuer and _signs(each, crl)
        ]
        if not signers:
            raise _refused(path, crl, f"is not signed by an authority of {PREFIX}{_CA}")
        if crl.next_update_utc is None:
            raise _refused(path, crl, "has no time of its next update")
        try:
            part, serials = _is_partial(crl), frozenset(each.serial_number for each in crl)
        except ValueError:
            raise _refused(path, crl, "cannot be parsed completely") from None
        if part is not None:
            raise _refused(path, crl, part)
        revoked = Revoked(serials, crl.last_update_utc, crl.next_update_utc)
        for signer in signers:
            # Of two lists of a signer, the newer one counts.
            if signer not in lists or lists[signer].not_before < revoked.not_before:
                lists[signer] = revoked
    for authority in authorities.certificates:
        if authority not in lists:
            raise SettingsError(
                f"{PREFIX}{_CRL}: {path} has no list of {_called(authority.subject)}, an authority of {PREFIX}{_CA}"
            )
    return Revocations(lists)


def _parsed(path: Path, content: bytes) -> Iterator[x509.CertificateRevocationList]:
    try:
        if _BEGIN not in content:
            yield x509.load_der_x509_crl(content)
            return
        for block in content.split(_BEGIN)[1:]:
            yield x509.load_pem_x509_crl(_BEGIN + block.partition(_END)[0] + _END + b"\n")
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(
            f"{PREFIX}{_CRL}: {path} must contain revocation lists (CRLs) in PEM or DER form"
        ) from None


def _signs(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _is_partial(crl: x509.CertificateRevocationList) -> str | None:
    """Returns why a list does not cover every certificate of its authority; None if it does.

    Raises ValueError if its extensions cannot be read.
    """
    for extension in crl.extensions:
        value = extension.value
        if extension.critical and isinstance(value, x509.UnrecognizedExtension):
            return f"has the critical extension {extension.oid.dotted_string}, which this server does not support"
        if isinstance(value, x509.DeltaCRLIndicator):
            return "has only changes (a delta CRL); name the complete list"
        if isinstance(value, x509.IssuingDistributionPoint) and (
            value.indirect_crl
            or value.only_some_reasons
            or value.only_contains_ca_certs
            or value.only_contains_attribute_certs
        ):
            return "is indirect, or covers only some certificates or reasons; name a complete list"
    return None


def _refused(path: Path, crl: x509.CertificateRevocationList, why: str) -> SettingsError:
    return SettingsError(f"{PREFIX}{_CRL}: {path}: the list of {_called(crl.issuer)} {why}")


def _called(name: x509.Name) -> str:
    return name.rfc4514_string()[:200] or "an authority without a name"
