"""When credentials expire: read from client certificates, authorities and tokens, without asking the cluster.

A certificate contains its dates; a service account's token is a JWT with `exp`. Nothing is verified here: the API
server does that. The dates are read so that an expired credential is refused with its date, and an expiry is known in
advance.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from pilothouse_server.kubernetes.errors import CredentialsRefused

if TYPE_CHECKING:
    from cryptography import x509

CLIENT_CERTIFICATE = "client-certificate-data"
AUTHORITY = "certificate-authority-data"


class _Claims(msgspec.Struct):
    exp: float | None = None


def check(cluster: Mapping[str, Any], user: Mapping[str, Any], now: datetime) -> None:
    """Checks that credentials have not expired and are valid already.

    Entries are those of a kubeconfig; files are not read. Raises CredentialsRefused, naming the entry and the date.
    """
    if text := user.get(CLIENT_CERTIFICATE):
        certificate = _certificates(text, "the client certificate")[0]
        if certificate.not_valid_before_utc > now:
            raise CredentialsRefused(
                f"the client certificate is not valid before {_said(certificate.not_valid_before_utc)}"
            )
        if certificate.not_valid_after_utc <= now:
            raise CredentialsRefused(
                f"the client certificate expired on {_said(certificate.not_valid_after_utc)}; renew it"
            )
    if text := cluster.get(AUTHORITY):
        # A bundle may have old certificates next to new ones.
        last = max(each.not_valid_after_utc for each in _certificates(text, "the certificate authority"))
        if last <= now:
            raise CredentialsRefused(f"the certificate authority expired on {_said(last)}; renew it")
    expires = token_expires_at(str(user.get("token") or ""))
    if expires is not None and expires <= now:
        raise CredentialsRefused(f"the token expired on {_said(expires)}; make a new one")


def expires_at(user: Mapping[str, Any]) -> datetime | None:
    """Returns when the first of a user's credentials expires; None if none has a date."""
    ends = [token_expires_at(str(user.get("token") or ""))]
    if text := user.get(CLIENT_CERTIFICATE):
        ends.append(_certificates(text, "the client certificate")[0].not_valid_after_utc)
    return min((end for end in ends if end is not None), default=None)


def token_expires_at(token: str) -> datetime | None:
    """Returns the time in a JWT's `exp`; None for any other token."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    payload = parts[1] + "=" * (-len(parts[1]) % 4)
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload), type=_Claims)
        return None if claims.exp is None else datetime.fromtimestamp(claims.exp, UTC)
    except (msgspec.MsgspecError, binascii.Error, ValueError, OverflowError, OSError, RecursionError):
        return None


def _certificates(text: object, what: str) -> list[x509.Certificate]:
    # Imported with the first certificate, because it takes 8 MB, as in `encryption`.
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(base64.b64decode(str(text), validate=True))
    except (binascii.Error, ValueError):
        raise CredentialsRefused(f"{what} cannot be used: it is not a certificate in PEM") from None


def _said(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
