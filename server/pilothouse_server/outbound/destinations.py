"""Connections to addresses that callers name: which addresses are allowed or denied, how much of an answer is
read, and the names of failures.

Clusters that callers register are reached this way, and so is every other address that a caller names. A
caller who names one must not learn about this machine or its network by it, nor read data that only this
machine may read:

  * An address is scheme, host and port, without user info (`origin`); a path only where the purpose has one.
  * Loopback, link-local and the metadata services of clouds are denied by the resolved address: the socket
    that connects is the one that was checked, so a name that changes its address changes nothing
    (`Reach.connector`). Other private networks are not denied: clusters stand in them.
  * Redirects are not followed (`refuse_redirects`).
  * An answer is read up to a bound, which holds after decompression (`read`); the bytes around it are
    bounded, too (`outbound.connections`).
  * A private key that is shown to somebody touches no disk (`key_pair_file`).
  * Libraries' own messages hold addresses, user info and bytes of the other side, so none is passed on: a failure has
    our own text (`failure`).
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
# Texts that resolvers read as an IPv4 address, whole or in parts, in decimal, octal or hexadecimal; no name
# ends so.
_ENDS_IN_NUMBER = re.compile(r"(?:\A|.*\.)(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?\Z")

# Addresses that a machine or its cloud serves to itself alone. Multicast, unspecified and reserved ones lead
# nowhere by right.
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
# Networks whose last 32 bits are an IPv4 address: NAT64 (RFC 6052; RFC 8215, whose networks are anybody's
# own), SIIT.
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_TRANSLATED = (*map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0:0/96")), _LOCAL_NAT64)
_COMPATIBLE = ipaddress.ip_network("::/96")
# ISATAP: what stands before the IPv4 address, of a local one and of a global one.
_ISATAP = (0x00005EFE, 0x02005EFE)
_LOCAL_NAME = re.compile(r"(.*\.)?localhost|localhost\.localdomain|ip6-(localhost|loopback)", re.IGNORECASE)


class AddressRefused(ValueError):
    """An address that is not connected to; the text is the rule, without the address."""


class AddressDenied(OSError):
    """The address that a name led to is denied. Raised at the connection, and reported by `failure`."""


class TooLong(Exception):
    """An answer is longer than its bound."""


class Redirected(Exception):
    """A redirect, which is not followed."""


class Origin(msgspec.Struct, frozen=True):
    """An address in its parts; `port` is always there, `path` is '' or begins with a slash."""

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
    """Returns an address in its parts. `path`: whether one is allowed, beyond a single slash.

    Raises AddressRefused: user info, query, fragment, path, another scheme, or no host.
    """
    if len(text) > LONGEST_ADDRESS:
        raise AddressRefused(f"must have at most {LONGEST_ADDRESS} characters")
    if not text.isascii() or any(character <= " " or character in '"<>\\^`{|}\x7f' for character in text):
        raise AddressRefused("must hold neither spaces nor characters outside ASCII")
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
        # Each program reads these in its own way, and some as an address of this machine.
        raise AddressRefused("must have an IPv4 address as four numbers from 0 to 255, or a name")
    if port == 0 or not is_host(host):
        raise AddressRefused("must have a host, and a port from 1 to 65535 if any")
    kept = parts.path if path and parts.path != "/" else ""
    return Origin(parts.scheme, host, port or SCHEMES[parts.scheme], kept)


def is_host(text: str) -> bool:
    """Returns whether a text is a name of a host, or an IP address, as they can be connected to."""
    is_name = _HOST.match(text) is not None and _ENDS_IN_NUMBER.match(text) is None
    return is_name or _literal(text) is not None


def place_of(url: str) -> str:
    """Returns host and port of any URL, however it came: all of it that a message may show."""
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
    """Returns a URL without the user and password before its host, and those as a Basic header; '' where none are."""
    parts = urlsplit(url)
    user_info, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, ""
    user, _, password = user_info.partition(":")
    encoded = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return parts._replace(netloc=place).geturl(), f"Basic {encoded}"


class Reach:
    """Which addresses are connected to: all but DENIED, and of these the ones in `allowed`."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def denies(self, address: str | Address) -> bool:
        """Returns whether an IP address is denied, or is mapped, translated or tunnelled to a denied one."""
        meant = ipaddress.ip_address(address.partition("%")[0]) if isinstance(address, str) else address
        return any(
            any(each in network for network in DENIED)
            and not any(each in network for network in self._allowed)
            for each in _meant_by(meant)
        )

    def check(self, host: str) -> None:
        """Refuses a host whose own text is denied; the addresses of a name are checked when it is connected
        to.

        Raises AddressRefused.
        """
        literal = _literal(host)
        if literal is None and _LOCAL_NAME.fullmatch(host.rstrip(".")):
            literal = ipaddress.ip_address("127.0.0.1")
        if literal is not None and self.denies(literal):
            raise AddressRefused(
                "is an address of this machine or its network alone, which is not connected to"
            )

    def socket(self, address: tuple[Any, ...]) -> socket.socket:
        """Makes the socket for an address as it was resolved, or raises AddressDenied: `socket_factory` of aiohttp."""
        family, kind, protocol, _, target = address
        if family not in (socket.AF_INET, socket.AF_INET6) or self.denies(str(target[0])):
            raise AddressDenied("denied")
        return socket.socket(family=family, type=kind, proto=protocol)

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        """A connector that connects to nothing that is denied; `options` are those of aiohttp's."""
        from pilothouse_server.outbound.connections import Connector

        return Connector(socket_factory=self.socket, **options)


class Anywhere(Reach):
    """The reach for addresses that the server's own configuration names."""

    def denies(self, _address: str | Address) -> bool:
        return False

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        from pilothouse_server.outbound.connections import Connector

        return Connector(**options)


ANYWHERE: Final = Anywhere()


@contextmanager
def cutting(response: aiohttp.ClientResponse) -> Iterator[None]:
    """Cuts the connection of an answer at the end of the block, even if its sender continues to send.

    Closing it is not enough for TLS: uvloop then reads on for half a minute, as fast as the other side sends,
    waiting for the other side's close notification.
    """
    connection = response.connection
    transport = None if connection is None else connection.transport
    try:
        yield
    finally:
        if transport is not None:
            transport.abort()


def cut(response: aiohttp.ClientResponse) -> None:
    """Ends an answer with its connection."""
    with cutting(response):
        response.close()


@contextmanager
def key_pair_file(certificate: bytes, key: bytes) -> Iterator[str]:
    """The path of a file that holds a client's certificate and its key (PEM) until the end of the block.

    The TLS library reads files only; this one is in memory, and only this process has it. A key that needs a password
    is refused: otherwise the library asks for it at the server's terminal, and waits.

    Raises OSError or ValueError: they cannot be read, or do not belong together.
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
    """Middleware of an aiohttp session that raises Redirected instead of following a redirect."""
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
    """Returns the body, after decompression. Raises TooLong above `most` bytes, having read little more.

    `more` is awaited between its parts, with the bytes that are there so far. If the body is not read to its
    end, the connection is cut.
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
    # Received bytes are decompressed piece by piece, as they are read: the next piece is there immediately,
    # and so are all others of an answer that was small on the wire. Without a pause all of it would be one
    # turn of the event loop.
    async for part in response.content.iter_any():
        if body:
            await more(len(body))
        body += part
        if len(body) > most:
            # The error's traceback holds this frame, for as long as it pleases the collector.
            part = b""
            body.clear()
            raise TooLong
    return bytes(body)


def failure(error: BaseException, url: str = "") -> str:
    """Returns why a connection gave nothing usable, in our own words: `the connection is refused`.

    `url` is the requested address: a connection to another host is one to the proxy in front of it.
    """
    import aiohttp

    if isinstance(error, TooLong):
        return "its response is longer than permitted"
    if isinstance(error, Redirected):
        return "its response is a redirect, which is not followed"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy in front of it responds with {int(error.status)}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {_certificate_fault(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        by_proxy = isinstance(error, aiohttp.ClientProxyConnectionError) or not _leads_to(url, error.host)
        behind = "the proxy before it: " if by_proxy else ""
        return behind + _connecting(error, error.os_error)
    for kinds, words in _failures(aiohttp):
        if isinstance(error, kinds):
            return words
    return _connecting(error, error) if isinstance(error, OSError) else f"it failed ({type(error).__name__})"


def is_reached(error: BaseException) -> bool:
    """Returns whether the failure shows that the other side was reached: then its answer is wrong."""
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
        (ssl.SSLError, "TLS cannot be agreed on"),
    )


def _connecting(error: BaseException, reason: BaseException) -> str:
    import aiohttp

    if isinstance(reason, AddressDenied):
        return "its name leads to an address of this machine or its network alone, which is not connected to"
    if isinstance(error, aiohttp.ClientConnectorDNSError) or isinstance(reason, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(reason, ssl.SSLError):
        return "TLS cannot be agreed on"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection is refused"
    if isinstance(reason, TimeoutError):
        return "there was no response in time"
    if isinstance(reason, ConnectionError):
        return "the connection broke"
    return "there is no connection to it"


# By OpenSSL's numbers of what is wrong with a certificate.
_CERTIFICATE_FAULTS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it vouches for itself",
    19: "an authority that is not trusted vouches for it",
    20: "its authority is not trusted",
    21: "its authority is not trusted",
    62: "it is for another name",
    64: "it is for another address",
}


def _certificate_fault(error: BaseException) -> str:
    code = getattr(error, "verify_code", None)
    return (
        _CERTIFICATE_FAULTS.get(code, "it is not vouched for")
        if isinstance(code, int)
        else "it is not vouched for"
    )


def _literal(host: str) -> Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    # Without the interface that is named behind it.
    return ipaddress.IPv6Address(int(found)) if isinstance(found, ipaddress.IPv6Address) else found


def _meant_by(address: Address) -> list[Address]:
    """An address, and those that it carries in itself: an IPv4 one mapped, translated or tunnelled."""
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
        # Behind a prefix of 64 bits it stands before the last 24; behind shorter ones the last 32 are 0, and denied.
        carried.append(ipaddress.IPv4Address((int(address) >> 24) & 0xFFFFFFFF))
    return [address, *(each for each in carried if each is not None)]
