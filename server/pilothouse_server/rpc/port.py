"""An address that several listeners share, reserved for them from before the first to after the last.

Each binds it with SO_REUSEPORT, and the kernel gives each new connection to one of them: servers of one process
(`rpc.listener_shards`), or processes. That option alone would let any process of the same user join, such as a second
server. So the holder first takes the address without that option, which fails if any process listens there, and
admits others only then. Its sockets never listen: no connection reaches them, and while a process is down the others
get all connections.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

from pilothouse_server.settings.model import PREFIX, SettingsError, address_refused

_Family = tuple[socket.AddressFamily, str]
# Errors for an address that this machine lacks, such as ::1 without IPv6. Other addresses of its host name are used.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not bound
# A free port that was chosen on one address may be taken on the next.
_ATTEMPTS = 10


class ReservedPort:
    """`listen` is HOST:PORT, with the chosen port if 0 was requested."""

    def __init__(self, host: str, port: int, sockets: Sequence[socket.socket]) -> None:
        self.listen = f"{host}:{port}"
        self.port = port
        self._sockets = sockets

    def close(self) -> None:
        """Releases the address."""
        for each in self._sockets:
            each.close()


def reserve(listen: str, name: str = "LISTEN") -> ReservedPort:
    """Reserves HOST:PORT of the setting `name`; port 0 stands for any free port.

    Raises:
        SettingsError: something else listens there, this machine lacks the address, or it is not HOST:PORT.
    """
    host, _, port = listen.rpartition(":")
    if listen.startswith(("unix:", "unix-abstract:")):
        raise SettingsError(
            f"{PREFIX}{name}: {listen} cannot be shared by {PREFIX}PROCESSES: a Unix socket has one listener"
        )
    try:
        families = _addresses(host.removeprefix("[").removesuffix("]"))
        for attempt in range(_ATTEMPTS):
            try:
                return _reserved(host, int(port), families)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or int(port) or attempt == _ATTEMPTS - 1:
                    raise
    except (OSError, ValueError, OverflowError):
        pass
    raise address_refused(listen, name)


def _addresses(host: str) -> list[_Family]:
    if host in _ANYWHERE:
        # As gRPC does: one socket for both families if the machine has both.
        dual = socket.has_dualstack_ipv6()
        return [(socket.AF_INET6, "::") if dual else (socket.AF_INET, "0.0.0.0")]  # noqa: S104 - as requested
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _reserved(host: str, port: int, families: Sequence[_Family]) -> ReservedPort:
    with contextlib.ExitStack() as taken:
        sockets: list[socket.socket] = []
        for family, address in families:
            each = taken.enter_context(socket.socket(family, socket.SOCK_STREAM))
            try:
                _take(each, family, address, port)
            except OSError as error:
                if error.errno in _ABSENT and len(families) > 1:
                    continue
                raise
            port = port or int(each.getsockname()[1])
            sockets.append(each)
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "no address of this machine")
        taken.pop_all()
        return ReservedPort(host, port, sockets)


def _take(each: socket.socket, family: socket.AddressFamily, address: str, port: int) -> None:
    if family is socket.AF_INET6:
        each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
    # Connections that have ended are no reason to refuse the address.
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    each.bind((address, port))
    # From here on the listeners may bind the address, too, but nobody else, not even with SO_REUSEADDR.
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
