"""Where to connect and how: by TLS, unless the address is a loopback one or the caller chooses plain text.

One channel may lead to several servers: to all addresses of a name in the DNS, or to those of a list. Calls then go to
each server in turn, and to the others while one is down. The client itself retries calls (`calls`), never the channel:
retries by the channel would bypass the deadline, the notices and the audit log. The channel repeats only a call that
gRPC knows no server has processed, for example when a connection reaches its maximum age.
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
    """Certificates as PEM bytes.

    `root_certificates` None means gRPC's own list. A client certificate needs its key, and identifies the caller if the
    client has no token. `server_name` is verified instead of the host name in the address. `pinned`:
    `root_certificates` is the server's own certificate, so that a different one is reported as changed.

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
    """One server, or several of the same installation.

    `address` is as users write it; `tls` None means plain text."""

    address: str
    tls: Tls | None

    @property
    def uri(self) -> str:
        """The server's address in gRPC's syntax."""
        addresses = self.address.split(",")
        if len(addresses) == 1:
            return self.address
        return f"{_family(addresses)}:{self.address}"

    def options(self) -> list[tuple[str, str | int]]:
        """Returns the channel options.

        Responses of a thousand resources fit, and a silent connection is detected within 40 s. A server that is back
        is found within a second or two: while the channel waits to reconnect, every call fails without an attempt."""
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
            # Each client has its own connection, so closing a client does not depend on others with the same address.
            "grpc.use_local_subchannel_pool": 1,
        }
        server_name = self.tls.server_name if self.tls else ""
        return [
            *options.items(),
            # A proxy that the environment names does not lead back to this machine.
            *([("grpc.enable_http_proxy", 0)] if is_loopback(self.address) else []),
            *([("grpc.ssl_target_name_override", server_name)] if server_name else []),
            *([("grpc.service_config", _EACH_IN_TURN)] if self._may_be_several else []),
            # By default, gRPC would use the whole list as the authority.
            *([("grpc.default_authority", self.address.split(",")[0])] if "," in self.address else []),
        ]

    @property
    def _may_be_several(self) -> bool:
        """Whether there may be several servers: in a list, or behind a name other than this machine's."""
        return "," in self.address or not (is_loopback(self.address) or _literal(self.address))


def target_of(address: str, *, insecure: bool | None = None, tls: Tls | None = None) -> Target:
    """Returns the target of `HOST`, `HOST:PORT`, `[IPV6]:PORT`, several of them separated by commas, or `unix:PATH`.

    The default port is 50051. Several addresses must be IP addresses of one family, and over TLS they need the
    `server_name` that all their certificates contain. If `insecure` is None, the address decides: plain text only to
    loopback addresses or Unix sockets, and only if no `tls` is given. Raises ValueError for an empty address, a wrong
    port, an address that a list may not contain, or `insecure` together with `tls`.
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
        raise ValueError("several addresses over TLS need the server_name that their certificates contain")
    return target


def _family(addresses: Sequence[str]) -> str:
    """Returns `ipv4` or `ipv6`.

    Raises ValueError unless all addresses are literals of one family."""
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
    Unix socket. Other names are not resolved, because they may lead to any machine.
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
