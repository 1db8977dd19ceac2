"""Where to connect and how: TLS unless the address is this machine's own or the caller says otherwise.

One channel may lead to several servers: to all that a name stands for in the DNS, or to those of a list of addresses.
Calls then go to each in turn, and to the others while one is away. Sending a call again is the client's own business
(`calls`), never the channel's: that would hide attempts from deadline, notice and audit. All that the channel repeats
by itself is a call that the library knows no server has looked at, as when a connection ends by age.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grpc

DEFAULT_PORT = 50051
_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
_EACH_IN_TURN = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates as PEM bytes. `root_certificates` None means those that gRPC brings along; a client certificate
    needs its key, and identifies the caller if the client has no token; `server_name` is checked in place of the host
    name in the address. `pinned`: `root_certificates` is the server's own certificate, so that another one is
    reported as a changed one.

    >>> with Client("10.0.0.1,10.0.0.2", token=token, tls=Tls(server_name="pilothouse.example")) as client:
    ...     client.namespace
    ''
    """

    root_certificates: bytes | None = None
    client_certificate: bytes | None = None
    client_key: bytes | None = None
    server_name: str = ""
    pinned: bool = False

    def __post_init__(self) -> None:
        if (self.client_certificate is None) != (self.client_key is None):
            raise ValueError("a client certificate and its key belong together")

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.root_certificates, self.client_key, self.client_certificate)


@dataclass(frozen=True, slots=True)
class Target:
    """One server, or several of the same installation. `address` is as users write it; `tls` None means plain text."""

    address: str
    tls: Tls | None

    @property
    def uri(self) -> str:
        """The library's address of the server."""
        addresses = self.address.split(",")
        if len(addresses) == 1:
            return self.address
        return f"{_family(addresses)}:{self.address}"

    def options(self) -> list[tuple[str, str | int]]:
        """Returns channel options: answers of a thousand resources pass, a silent connection is noticed within 40 s,
        and a server that comes back is found within a second or two: while the connection waits to be tried again,
        every call fails without trying."""
        options: Mapping[str, str | int] = {
            "grpc.primary_user_agent": "pilothouse-client",
            "grpc.max_receive_message_length": _MAX_MESSAGE_BYTES,
            "grpc.keepalive_time_ms": 30_000,
            "grpc.keepalive_timeout_ms": 10_000,
            "grpc.initial_reconnect_backoff_ms": 100,
            # The time for one attempt, three round trips with TLS; gRPC's connection-backoff.md calls it
            # MIN_CONNECT_TIMEOUT.
            "grpc.min_reconnect_backoff_ms": 2_000,
            "grpc.max_reconnect_backoff_ms": 1_000,
            # Each client has its own connection: closing one must not depend on another that happens to share
            # it.
            "grpc.use_local_subchannel_pool": 1,
        }
        server_name = self.tls.server_name if self.tls else ""
        return [
            *options.items(),
            # A proxy named by the environment does not lead to this machine itself.
            *([("grpc.enable_http_proxy", 0)] if is_loopback(self.address) else []),
            *([("grpc.ssl_target_name_override", server_name)] if server_name else []),
            *([("grpc.service_config", _EACH_IN_TURN)] if self._may_be_several else []),
            # Of a list the library would make one long name.
            *([("grpc.default_authority", self.address.split(",")[0])] if "," in self.address else []),
        ]

    @property
    def _may_be_several(self) -> bool:
        """Whether there may be more servers than one: behind a name, unless it is this machine's, or in a list."""
        return "," in self.address or not (is_loopback(self.address) or _literal(self.address))


def target_of(address: str, *, insecure: bool | None = None, tls: Tls | None = None) -> Target:
    """Returns the target of `HOST`, `HOST:PORT`, `[IPV6]:PORT`, several of them with commas between, or `unix:PATH`.

    The port is 50051 unless given. Several must be IP addresses of one family, and over TLS need the `server_name`
    that the certificates of all show. `insecure` None decides by the address: plain text only to loopback addresses
    or a socket of this machine, and only if no `tls` is given. ValueError for an empty address, a wrong port, an
    address that cannot stand in a list, or `insecure` together with `tls`.
    """
    complete = ",".join(_with_port(each.strip()) for each in address.split(","))
    if "," in complete:
        _family(complete.split(","))
    if insecure and tls is not None:
        raise ValueError("insecure and tls exclude each other")
    if insecure is None:
        insecure = tls is None and is_loopback(complete)
    target = Target(complete, None if insecure else tls or Tls())
    if "," in complete and target.tls is not None and not target.tls.server_name:
        raise ValueError("several addresses over TLS need the server_name that their certificates show")
    return target


def _family(addresses: Sequence[str]) -> str:
    """Returns `ipv4` or `ipv6`. ValueError unless all are literal addresses of that family."""
    found = {_literal(each) for each in addresses}
    if found == {"ipv4"} or found == {"ipv6"}:
        return found.pop()
    raise ValueError(
        "several addresses must be IP addresses of one family; a name with several addresses must be the only one"
    )


def _literal(address: str) -> str:
    """Returns `ipv4` or `ipv6` of HOST:PORT with a literal address as the host, else an empty string."""
    if address.startswith("unix:"):
        return ""
    try:
        return f"ipv{ipaddress.ip_address(split(address)[0]).version}"
    except ValueError:
        return ""


def _with_port(address: str) -> str:
    if not address or "://" in address or any(character.isspace() for character in address):
        raise ValueError(f"not an address: {address!r}; give HOST:PORT")
    if address.startswith("unix:"):
        return address
    host, port = split(address)
    if not host:
        raise ValueError(f"not an address: {address!r}; give HOST:PORT")
    if not port:
        port = str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"not a port: {port!r}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split(address: str) -> tuple[str, str]:
    """Returns host, without brackets, and port, which may be empty."""
    if address.startswith("["):
        host, _, rest = address[1:].partition("]")
        return host, rest.removeprefix(":")
    if address.count(":") > 1:  # an IPv6 address without brackets has no port
        return address, ""
    host, _, port = address.partition(":")
    return host, port


def is_loopback(address: str) -> bool:
    """Returns whether the address, or each of a list, can only be this machine: `localhost`, 127.0.0.0/8, ::1 or a
    Unix socket. Other names are not looked up, because it is unknown which machine answers for them.
    """
    if "," in address:
        return all(is_loopback(each) for each in address.split(","))
    if address.startswith("unix:"):
        return True
    host, _ = split(address)
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
