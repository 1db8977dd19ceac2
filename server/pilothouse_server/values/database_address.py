"""URLs of PostgreSQL, and the verification of the server there.

The default of libraries (`sslmode=prefer`) is no protection: they accept any certificate, and plain text if TLS is not
offered, so somebody who intercepts the connection could pose as the database. So a URL that leads to another machine
and has no mode gets `sslmode=verify-full`: TLS with a certificate of a trusted authority and the name of the host. A
URL with another mode is obeyed. Nothing is required of this machine (a Unix socket, `localhost`, 127.0.0.0/8, ::1).

The authorities are those of the URL (`sslrootcert`), or the environment (PGSSLROOTCERT), or the setting
DATABASE_CA_FILE, or ~/.postgresql/root.crt, or the system's.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

from pilothouse_server.values import InvalidValueError

FULL = "verify-full"
_VERIFYING = ("verify-ca", FULL)
# Where systems keep the authorities that they trust, as one file.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# OpenSSL's numbers for a name that is not the certificate's.
_OTHER_NAME = (62, 64)
_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


def secured(url: str, ca_file: str, environment: Mapping[str, str]) -> str:
    """Returns the URL with its TLS mode. A text that is no URL of PostgreSQL is returned unchanged.

    Raises:
        InvalidValueError: a certificate must be verified, and there is no authority for it.
    """
    if not _is_url(url):
        return url
    query = _query(url)
    mode = query.get("sslmode") or environment.get("PGSSLMODE", "")
    added = {}
    if not mode and not is_local(url, environment):
        mode = added["sslmode"] = FULL
    named = query.get("sslrootcert") or environment.get("PGSSLROOTCERT", "")
    if named == "system":
        # libpq's word for it, which the driver does not know.
        return _joined(_without(url, "sslrootcert"), {**added, "sslrootcert": _system()})
    if mode in _VERIFYING and not named:
        if ca_file:
            added["sslrootcert"] = ca_file
        elif not _own_root(environment).exists():
            added["sslrootcert"] = _system()
    return _joined(url, added)


def weakness(url: str, environment: Mapping[str, str]) -> str:
    """The mode of a URL by which somebody in between could pose as the database; '' where nobody can."""
    if not _is_url(url) or is_local(url, environment):
        return ""
    mode = _query(url).get("sslmode") or environment.get("PGSSLMODE", "") or "prefer"
    return "" if mode == FULL else mode


def is_local(url: str, environment: Mapping[str, str]) -> bool:
    """Returns whether it leads to this machine only, by a socket or a loopback address.

    Other names are not resolved, because the server that answers for them is unknown.
    """
    return all(_is_local(host) for host in _hosts(url, environment))


def is_encrypted(url: str) -> bool:
    """Returns whether its mode requires TLS, so that a program without it cannot connect."""
    return _query(url).get("sslmode", "") in ("require", *_VERIFYING)


def tls_problem(error: BaseException) -> str:
    """Returns the TLS problem of a failed connection to PostgreSQL; '' if it is another problem, or unknown."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return (
                "the certificate of the database is not for the host that its URL names: name the host as the"
                " certificate does, or give the URL sslmode=verify-ca to do without the check of the name"
            )
        return (
            "no known authority has signed the certificate of the database: name its authority by "
            "PILOTHOUSE_DATABASE_CA_FILE, or by sslrootcert in the URL"
        )
    if isinstance(error, ssl.SSLError):
        return "the database and this program agree on no TLS: is its certificate in order?"
    # The driver's error; no system error has exactly that class.
    if type(error) is ConnectionError:
        return (
            "the database offers no TLS, which its URL requires: set it up there (ssl = on), or give "
            "the URL sslmode=disable if nobody can intercept the connection"
        )
    return ""


def _is_url(url: str) -> bool:
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme in _SCHEMES


def _query(url: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(url.partition("?")[2]).items()}


def _hosts(url: str, environment: Mapping[str, str]) -> Sequence[str]:
    """The hosts of a URL; folders of sockets begin with a slash."""
    place = url.partition("://")[2].partition("?")[0].partition("/")[0].rpartition("@")[2]
    named = unquote(place) or _query(url).get("host") or environment.get("PGHOST", "")
    return [_without_port(each) for each in named.split(",") if each]


def _without_port(place: str) -> str:
    if place.startswith("["):
        return place[1:].partition("]")[0]
    # An IPv6 address without brackets, as a query holds it, has no port.
    return place if place.count(":") > 1 else place.partition(":")[0]


def _is_local(host: str) -> bool:
    if host.startswith(("/", "@")) or host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _joined(url: str, added: Mapping[str, str]) -> str:
    if not added:
        return url
    more = "&".join(f"{name}={quote(value, safe='/')}" for name, value in added.items())
    return f"{url}{'&' if '?' in url else '?'}{more}"


def _without(url: str, name: str) -> str:
    place, _, query = url.partition("?")
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] != name)
    return f"{place}?{kept}" if kept else place


def _own_root(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("HOME", "/nowhere"), ".postgresql", "root.crt")


def _system() -> str:
    """The system's authorities. Raises InvalidValueError where there are none."""
    for each in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        if each and Path(each).is_file():
            return each
    raise InvalidValueError(
        "no authority can verify the certificate of the database: name one by "
        "PILOTHOUSE_DATABASE_CA_FILE, or by sslrootcert in the URL"
    )
