"""Connections to addresses that callers name.

This module decides which addresses are allowed or denied, how much of a response is read, and the texts of failures.
The server connects in this way to clusters that callers register, and to every other address that a caller names.
Naming an address must not let a caller learn about this machine or its network, or read data that only this
machine may read:

  * An address is scheme, host and port, without user info (`origin`); a path is allowed only for some purposes.
  * Loopback, link-local and the metadata services of clouds are denied by the resolved address. The check is made
    on the address that the socket connects to, so a name that changes its address cannot evade it
    (`Reach.connector`). Other private networks are not denied: clusters run in them.
  * Redirects are not followed (`refuse_redirects`).
  * A response is read up to a bound, which applies after decompression (`read`); the bytes around it are
    bounded, too (`outbound.connections`).
  * A client's private key is never written to disk (`key_pair_file`).
  * Libraries' own messages contain addresses, user info and bytes of the other side, so none is passed on: a failure
    has this module's text (`failure`).
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import msgspec

if TYPE_CHECKING:
    import aiohttp

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LONGEST_ADDRESS = 2048
SCHEMES: Final = {"https": 443, "http": 80}
_HOST = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_-]{1,63})*\.?\Z"
)
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*\Z")
# Texts that end with a number in decimal, octal or hexadecimal: resolvers read some of them as an IPv4 address. No
# host name ends with a number.
_ENDS_IN_NUMBER = re.compile(r"(?:\A|.*\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?\Z")

# Addresses that only this machine or its cloud's machines may reach. Multicast, unspecified and reserved addresses are
# never a valid destination.
DENIED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "::1/128",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        # Metadata services that are not link-local: Alibaba, Oracle, Azure, AWS, Google, Scaleway, Akamai.
        "100.100.100.200/32",
        "fd00:100::100:200/128",
        "192.0.0.192/32",
        "fd00:c1::a9fe:a9fe/128",
        "168.63.129.16/32",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "fd00:42::42/128",
        "fd00:a9fe:a9fe::1/128",
    )
)
LOOPBACK: Final = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
# Networks whose last 32 bits are an IPv4 address: NAT64 (RFC 6052; RFC 8215 for locally chosen prefixes), SIIT.
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_TRANSLATED = (*map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0:0/96")), _LOCAL_NAT64)
_COMPATIBLE = ipaddress.ip_network("::/96")
# ISATAP: the 32 bits before the IPv4 address, for a local and for a global IPv4 address.
_ISATAP = (0x00005EFE, 0x02005EFE)
_LOCAL_NAME = re.compile(r"(.*\.)?localhost|localhost\.localdomain|ip6-(localhost|loopback)", re.IGNORECASE)


class AddressRefused(ValueError):
    """The server does not connect to this address.

    The text is the rule, without the address.
    """


class AddressDenied(OSError):
    """The address that a name resolved to is denied.

    Raised when connecting, and reported by `failure`.
    """


class TooLong(Exception):
    """A response is longer than its bound."""


class Redirected(Exception):
    """A response is a redirect, which is not followed."""


class Origin(msgspec.Struct, frozen=True):
    """The parts of an address.

    `port` is always set, `path` is '' or begins with a slash.
    """

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def place(self) -> str:
        """Host and port, as messages name them."""
        return f"{self._bracketed}:{self.port}"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        port = "" if self.port == SCHEMES[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self._bracketed}{port}{self.path}"


def origin(text: str, *, schemes: Sequence[str] = tuple(SCHEMES), path: bool = False) -> Origin:
    """Parses an address. `path` allows a path other than a single slash.

    Raises AddressRefused: user info, query, fragment, path, another scheme, or no host.
    """
    if len(text) > LONGEST_ADDRESS:
        raise AddressRefused(f"must have at most {LONGEST_ADDRESS} characters")
    if not text.isascii() or any(character <= " " or character in '"<>\\^`{|}\x7f' for character in text):
        raise AddressRefused('must be ASCII, without spaces, control characters and "<>\\^`{|}')
    named = " or ".join(f"{scheme}://" for scheme in schemes)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise AddressRefused("must have a host, and a port from 1 to 65535 if any") from None
    if parts.scheme not in schemes:
        raise AddressRefused(f"must begin with {named}")
    if "@" in parts.netloc:
        raise AddressRefused("must have no user or password")
    if "?" in text or "#" in text:
        raise AddressRefused("must have no query and no fragment")
    if parts.path not in ("", "/") and not (path and _PATH.match(parts.path)):
        raise AddressRefused(
            "has a path with characters that are not allowed" if path else "must have no path after the host"
        )
    if _ENDS_IN_NUMBER.match(host) and _literal(host) is None:
        # Programs interpret these texts differently, and some of them as an address of this machine.
        raise AddressRefused("must have an IPv4 address as four numbers from 0 to 255, or a name")
    if port == 0 or not is_host(host):
        raise AddressRefused("must have a host, and a port from 1 to 65535 if any")
    kept = parts.path if path and parts.path != "/" else ""
    return Origin(parts.scheme, host, port or SCHEMES[parts.scheme], kept)


def is_host(text: str) -> bool:
    """Returns whether a text is a host name or an IP address that can be connected to."""
    is_name = _HOST.match(text) is not None and _ENDS_IN_NUMBER.match(text) is None
    return is_name or _literal(text) is not None


def place_of(url: str) -> str:
    """Returns host and port of any URL, even an invalid one.

    Messages may show no more of a URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or SCHEMES.get(parts.scheme, 0)
        return (
            Origin(parts.scheme, parts.hostname or "", port).place
            if parts.hostname
            else "an address without a host"
        )
    except ValueError:
        return "an address that cannot be read"


def without_user_info(url: str) -> tuple[str, str]:
    """Returns a URL without its user and password, and these as a Basic header.

    The header is '' if the URL has none.
    """
    parts = urlsplit(url)
    user_info, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    user, _, password = user_info.partition(":")
    encoded = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return parts._replace(netloc=place).geturl(), f"Basic {encoded}"


class Reach:
    """The addresses that the server connects to.

    These are all except those in DENIED that are not in `allowed`.
    """

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def denies(self, address: str | Address) -> bool:
        """Returns whether an IP address is denied.

        An address that is mapped, translated or tunnelled to a denied one is denied too.
        """
        meant = ipaddress.ip_address(address.partition("%")[0]) if isinstance(address, str) else address
        return any(
            any(each in network for network in DENIED)
            and not any(each in network for network in self._allowed)
            for each in _meant_by(meant)
        )

    def check(self, host: str) -> None:
        """Raises AddressRefused if the host is a denied IP address or names this machine.

        The addresses of other names are checked when connecting.
        """
        literal = _literal(host)
        if literal is None and _LOCAL_NAME.fullmatch(host.rstrip(".")):
            literal = ipaddress.ip_address("127.0.0.1")
        if literal is not None and self.denies(literal):
            raise AddressRefused(
                "is a local or reserved address, which PILOTHOUSE_OUTBOUND_NETWORKS does not permit"
            )

    def socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Makes the socket for a resolved address, as aiohttp's `socket_factory`.

        Raises AddressDenied.
        """
        family, kind, protocol, _, target = address
        if family not in (socket.AF_INET, socket.AF_INET6) or self.denies(str(target[0])):
            raise AddressDenied("denied")
        return socket.socket(family=family, type=kind, proto=protocol)

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        """Returns a connector that connects to no denied address.

        `options` are those of aiohttp's connector.
        """
        from pilothouse_server.outbound.connections import Connector

        return Connector(socket_factory=self.socket, **options)


class Anywhere(Reach):
    """Allows every address, for those that the server's own configuration names."""

    def denies(self, _address: str | Address) -> bool:
        return False

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        from pilothouse_server.outbound.connections import Connector

        return Connector(**options)


ANYWHERE: Final = Anywhere()


@contextmanager
def cutting(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Aborts the connection of a response at the end of the block.

    It does so even if the other side continues to send. Closing it is not enough for TLS: uvloop then continues to read
    for half a minute, as fast as the other side sends, waiting for the other side's close notification.
    """
    connection = response.connection
    transport = None if connection is None else connection.transport
    try:
        yield
    finally:
        if transport is not None:
            transport.abort()


def cut(response: aiohttp.ClientResponse) -> None:
    """Closes a response and aborts its connection."""
    with cutting(response):
        response.close()


@contextmanager
def key_pair_file(certificate: bytes, key: bytes) -> Iterator[str]:
    """Yields the path of a file with a client's certificate and key (PEM).

    The file exists until the end of the block. The TLS library reads only files; this file is in memory and belongs to
    this process alone. A key that needs a password is refused: otherwise the library asks for the password at the
    server's terminal, and waits.

    Raises OSError or ValueError: certificate and key cannot be read, or do not belong together.
    """
    descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(certificate + b"\n" + key + b"\n")
        path = f"/proc/self/fd/{descriptor}"
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, password=lambda: "")
        yield path
    finally:
        os.close(descriptor)


async def refuse_redirects(
    request: aiohttp.ClientRequest,
    send: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
) -> aiohttp.ClientResponse:
    """Raises Redirected instead of following a redirect.

    It is middleware of an aiohttp session.
    """
    response = await send(request)
    if 300 <= response.status < 400:
        cut(response)
        raise Redirected
    return response


async def _let_others_run(_size: int) -> None:
    await asyncio.sleep(0)


async def read(
    response: aiohttp.ClientResponse, most: int, more: Callable[[int], Awaitable[None]] = _let_others_run
) -> bytes:
    """Returns the body, after decompression.

    Raises TooLong above `most` bytes, having read little more. `more` is awaited between its parts, with the number of
    bytes so far. If the body is not read to its end, the connection is aborted.
    """
    try:
        return await _read(response, most, more)
    except BaseException:
        cut(response)
        raise


async def _read(response: aiohttp.ClientResponse, most: int, more: Callable[[int], Awaitable[None]]) -> bytes:
    if (response.content_length or 0) > most:
        raise TooLong
    body = bytearray()
    # Received bytes are decompressed piece by piece, as they are read. The next piece is available immediately,
    # and so are all other pieces of a response that was small on the wire. Without a pause all of it would be read in
    # one iteration of the event loop.
    async for part in response.content.iter_any():
        if body:
            await more(len(body))
        body += part
        if len(body) > most:
            # The error's traceback refers to this frame until the garbage collector runs, so the data is dropped here.
            part = b""
            body.clear()
            raise TooLong
    return bytes(body)


def failure(error: BaseException, url: str = "") -> str:
    """Returns why a connection gave no usable response, in this module's own text.

    An example is `the connection is refused`. `url` is the requested address: a connection to another host is one to
    the proxy in front of it.
    """
    import aiohttp

    if isinstance(error, TooLong):
        return "its response is longer than permitted"
    if isinstance(error, Redirected):
        return "its response is a redirect, which is not followed"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy in front of it responds with {int(error.status)}"
    refused = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else error
    if isinstance(refused, ssl.SSLCertVerificationError):
        fault = _CERTIFICATE_FAULTS.get(refused.verify_code, "it cannot be verified")
        return f"its certificate is not trusted: {fault}"
    if isinstance(error, aiohttp.ClientConnectorError):
        by_proxy = isinstance(error, aiohttp.ClientProxyConnectionError) or not _leads_to(url, error.host)
        behind = "the proxy in front of it: " if by_proxy else ""
        return behind + _connecting(error, error.os_error)
    for kinds, words in _failures(aiohttp):
        if isinstance(error, kinds):
            return words
    return _connecting(error, error) if isinstance(error, OSError) else f"it failed ({type(error).__name__})"


def is_reached(error: BaseException) -> bool:
    """Returns whether the failure shows that the other side was reached.

    Its response is wrong then.
    """
    import aiohttp

    if isinstance(error, aiohttp.ClientHttpProxyError):
        return False
    if isinstance(error, aiohttp.ClientConnectorError):
        return isinstance(error, aiohttp.ClientConnectorCertificateError) or isinstance(
            error.os_error, ssl.SSLError
        )
    return isinstance(
        error,
        TooLong
        | Redirected
        | aiohttp.ClientPayloadError
        | aiohttp.ServerDisconnectedError
        | aiohttp.ClientResponseError
        | aiohttp.TooManyRedirects
        | asyncio.IncompleteReadError
        | ssl.SSLError,
    )


def _leads_to(url: str, host: str) -> bool:
    asked = urlsplit(url).hostname
    if asked is None or asked == host:
        return True
    address = _literal(host)
    return address is not None and address == _literal(asked)


def _failures(http: Any) -> tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]:
    return (
        (TimeoutError, "there was no response in time"),
        (http.TooManyRedirects, "its response is a redirect, which is not followed"),
        (http.InvalidURL, "its address cannot be used"),
        (http.ClientPayloadError, "its response broke off, or cannot be decompressed"),
        (http.ServerDisconnectedError, "it closed the connection without a response"),
        (asyncio.IncompleteReadError, "its response broke off"),
        (http.WSServerHandshakeError, "it refuses to open a stream"),
        (http.ClientResponseError, "its response is not HTTP, or too long"),
        (ssl.SSLError, "the TLS handshake failed"),
    )


def _connecting(error: BaseException, reason: BaseException) -> str:
    import aiohttp

    if isinstance(reason, AddressDenied):
        return "its name resolves to a local or reserved address, which PILOTHOUSE_OUTBOUND_NETWORKS does not permit"
    if isinstance(error, aiohttp.ClientConnectorDNSError) or isinstance(reason, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(reason, ssl.SSLError):
        return "the TLS handshake failed"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(reason, TimeoutError):
        return "there was no response in time"
    if isinstance(reason, ConnectionError):
        return "the connection broke"
    return "it cannot be reached"


# The faults of a certificate by OpenSSL's verification codes.
_CERTIFICATE_FAULTS: Final = {
    9: "it, or an authority above it, is not valid yet",
    10: "it, or an authority above it, has expired",
    18: "it is self-signed",
    19: "its self-signed authority is not trusted",
    20: "its authority is not trusted, or an intermediate certificate is missing",
    21: "its authority is not trusted, or an intermediate certificate is missing",
    62: "it is for another name",
    64: "it is for another address",
}


def _literal(host: str) -> Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    # Without the zone id (the interface) of an IPv6 address.
    return ipaddress.IPv6Address(int(found)) if isinstance(found, ipaddress.IPv6Address) else found


def _meant_by(address: Address) -> list[Address]:
    """Returns an address, and the IPv4 addresses that it contains.

    They are mapped, translated or tunnelled.
    """
    if not isinstance(address, ipaddress.IPv6Address):
        return [address]
    carried = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if (
        any(address in network for network in _TRANSLATED)
        or (address in _COMPATIBLE and int(address) > 1)
        or (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    ):
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if address in _LOCAL_NAT64 and not int(address) & 0xFFFFFF:
        # With a prefix of 64 bits, 24 zero bits follow the IPv4 address. With shorter prefixes the last 32 bits are 0,
        # which the check above has added as 0.0.0.0, a denied address.
        carried.append(ipaddress.IPv4Address((int(address) >> 24) & 0xFFFFFFFF))
    return [address, *(each for each in carried if each is not None)]
