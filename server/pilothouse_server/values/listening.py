"""Addresses that a server listens on: HOST:PORT, [IPV6]:PORT, or the path of a Unix socket.

Libraries accept more than that, each in its own way: a port out of range is truncated to its last 16 bits, and a name
before a colon is taken as a scheme. So addresses are checked here once, before any library gets them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import stat

from pilothouse_server.values import InvalidValueError

_UNIX = (_PATH, _ABSTRACT) = ("unix:", "unix-abstract:")
# Maximum length of a socket's path, without its terminator.
_MOST_PATH_BYTES = 107
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
_LAST_PORT = 65535
# Other spellings of an address, which some libraries accept and others do not.
_NUMBERS = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+))*\.?")


def is_unix(address: str) -> bool:
    """Returns whether it is a socket in the file system or an abstract one; only this machine can reach either."""
    return address.startswith(_UNIX)


def why_refused(address: str) -> str:
    """Returns why the server cannot listen on an address, if the reason is known."""
    return unix_problem(address) or (
        "another program listens there, this machine does not have the address, or the port needs a privilege"
    )


def unix_problem(address: str) -> str:
    """Returns why no server can listen on a Unix socket now; '' if one can, or if it is another kind of address.

    The socket of a server that has ended is replaced. gRPC would also replace the socket of a running server, without
    an error.
    """
    if not is_unix(address):
        return ""
    path = _path(address)
    if not path or len(os.fsencode(path)) > _MOST_PATH_BYTES:
        return f"its path must have 1 to {_MOST_PATH_BYTES} bytes, and be absolute after unix://"
    if address.startswith(_PATH):
        try:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                return "a file of that name exists and is not a socket"
        except FileNotFoundError:
            folder = os.path.dirname(path) or "."
            return (
                ""
                if os.access(folder, os.W_OK | os.X_OK)
                else "its folder does not exist, or is not writable"
            )
        except OSError:
            return "its folder does not exist, or cannot be read"
    return _listener_problem(path)


def _path(address: str) -> str:
    """Returns the path of a Unix socket as the system call takes it: an abstract one begins with NUL."""
    if address.startswith(_ABSTRACT):
        name = address.removeprefix(_ABSTRACT)
        return name and f"\0{name}"
    path = address.removeprefix(_PATH)
    # After exactly two slashes the next part would name a machine.
    return path.removeprefix("//") if path.startswith("///") or not path.startswith("//") else ""


def _listener_problem(path: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return ""
        except BlockingIOError:
            # The socket's backlog is full, so a program is listening.
            pass
        except OSError:
            return "the socket belongs to another program or user"
    return "another program listens there"


def split(address: str) -> tuple[str, int]:
    """Returns host (without brackets; empty for all addresses) and port; for a Unix socket, its address and 0.

    Raises:
        InvalidValueError: it is neither; the message states the broken rule.
    """
    if is_unix(address):
        return address, 0
    host, colon, port = address.rpartition(":")
    if not colon:
        raise InvalidValueError(f"{address!r} is not HOST:PORT")
    if not (port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        raise InvalidValueError(f"{port!r} is not a port, which is a number from 0 to {_LAST_PORT}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise InvalidValueError(f"{address!r} is not HOST:PORT; an IPv6 address needs brackets")
    if _NUMBERS.fullmatch(host) and not _is_ipv4(host):
        raise InvalidValueError(
            f"{host!r} is not an IPv4 address: it must be four numbers from 0 to 255, with dots"
        )
    return host, int(port)


def check(address: str, *, may_be_unix: bool, shared: bool) -> None:
    """Raises InvalidValueError for an invalid address, and for a Unix socket where that is not possible."""
    split(address)
    if not is_unix(address):
        return
    if not may_be_unix:
        raise InvalidValueError(f"{address} must be HOST:PORT; a Unix socket is not possible here")
    if shared:
        raise InvalidValueError(f"{address} cannot be shared by processes: a Unix socket has one listener")


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def is_reached_by_others(address: str) -> bool:
    """Returns whether other machines may reach it: it is no Unix socket, and no loopback name or address.

    An address that cannot be resolved counts as unreachable; binding it fails later.
    """
    if is_unix(address):
        return False
    host, _ = split(address)
    if not host:
        return True
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return not all(ipaddress.ip_address(str(sockaddr[0])).is_loopback for *_, sockaddr in found)


def called_by(address: str, port: int) -> str:
    """Returns the address by which a client on this machine calls a server that listens there on `port`."""
    if is_unix(address):
        return address
    host, _ = split(address)
    if host in ("", _ANYWHERE[0]):
        return f"127.0.0.1:{port}"
    if host == _ANYWHERE[1]:
        return f"localhost:{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_called_in_plain_text(address: str) -> bool:
    """Returns whether a client on this machine takes the address for local, and so uses no TLS by default."""
    if is_unix(address):
        return True
    host, _ = split(called_by(address, 0))
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
