"""URLs of PostgreSQL, and how the server at a URL is verified.

The default of libraries (`sslmode=prefer`) does not protect. They accept any certificate, and plain text if the server
offers no TLS, so anybody who intercepts the connection could impersonate the database. Therefore a URL for another
machine that has no mode gets `sslmode=verify-full`: TLS with a certificate from a trusted authority for the host's
name. A URL with another mode keeps it. Nothing is required for this machine (a Unix socket, `localhost`, 127.0.0.0/8,
::1).

The authorities are those of the first of these that is set: `sslrootcert` of the URL, the environment variable
PGSSLROOTCERT, the setting DATABASE_CA_FILE, ~/.postgresql/root.crt, the system's.
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
# Files in which systems store the authorities that they trust.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# OpenSSL's codes for a name that does not match the certificate.
_OTHER_NAME = (62, 64)
_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


def secured(url: str, ca_file: str, environment: Mapping[str, str]) -> str:
    """Returns the URL with its TLS mode. A text that is not a PostgreSQL URL is returned unchanged.

    Raises:
        InvalidValueError: a certificate must be verified, but no authority is known.
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
        # This is libpq's word, which the driver does not support.
        return _joined(_without(url, "sslrootcert"), {**added, "sslrootcert": _system()})
    if mode in _VERIFYING and not named:
        if ca_file:
            added["sslrootcert"] = ca_file
        elif not _own_root(environment).exists():
            added["sslrootcert"] = _system()
    return _joined(url, added)


def weakness(url: str, environment: Mapping[str, str]) -> str:
    """Returns the mode of a URL with which an interceptor could impersonate the database; '' if the URL is safe."""
    if not _is_url(url) or is_local(url, environment):
        return ""
    mode = _query(url).get("sslmode") or environment.get("PGSSLMODE", "") or "prefer"
    return "" if mode == FULL else mode


def is_local(url: str, environment: Mapping[str, str]) -> bool:
    """Returns whether the URL leads only to this machine, by a socket or a loopback address.

    Other names are not resolved, because the DNS server that would resolve them is not trusted.
    """
    return all(_is_local(host) for host in _hosts(url, environment))


def is_encrypted(url: str) -> bool:
    """Returns whether the URL's mode requires TLS, so that a program without TLS cannot connect."""
    return _query(url).get("sslmode", "") in ("require", *_VERIFYING)


def tls_problem(error: BaseException) -> str:
    """Returns the TLS problem of a failed connection to PostgreSQL; '' if the problem is another one or unknown."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAME:
            return (
                "the certificate of the database is not for the host that its URL names: name the host as the"
                " certificate does, or give the URL sslmode=verify-ca to skip the check of the name"
            )
        return (
            "the certificate of the database cannot be verified: it must be valid now, and signed by a trusted "
            "authority (name its file by PILOTHOUSE_DATABASE_CA_FILE, or by sslrootcert in the URL)"
        )
    if isinstance(error, ssl.SSLError):
        return "TLS with the database failed: check its certificate, its TLS versions, and the TLS files of its URL"
    # The driver raises this class itself; errors of the system are subclasses of it.
    if type(error) is ConnectionError:
        return (
            "the database did not begin TLS: set it up there (ssl = on) and check its log, or give "
            "the URL sslmode=disable if nobody can intercept the connection"
        )
    return ""


def _is_url(url: str) -> bool:
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme in _SCHEMES


def _query(url: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(url.partition("?")[2]).items()}


def _hosts(url: str, environment: Mapping[str, str]) -> Sequence[str]:
    """Returns the hosts of a URL; directories of sockets begin with a slash."""
    place = url.partition("://")[2].partition("?")[0].partition("/")[0].rpartition("@")[2]
    named = unquote(place) or _query(url).get("host") or environment.get("PGHOST", "")
    return [_without_port(each) for each in named.split(",") if each]


def _without_port(place: str) -> str:
    if place.startswith("["):
        return place[1:].partition("]")[0]
    # An IPv6 address without brackets, as in a query, has no port.
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
    """Returns the file of the system's authorities. Raises InvalidValueError if there is none."""
    for each in (ssl.get_default_verify_paths().cafile, *_BUNDLES):
        if each and Path(each).is_file():
            return each
    raise InvalidValueError(
        "no authority can verify the certificate of the database: name one by "
        "PILOTHOUSE_DATABASE_CA_FILE, or by sslrootcert in the URL"
    )
