"""Several gRPC servers behind one address, so that the calls of each caller's address stand in a line of their own.

gRPC keeps calls that nobody has taken yet in one line for each server, in the order of their coming, and
`grpc.aio` takes one at a time. With one server, a call behind two thousand others waits until each of those
was taken in: 0.15 to 0.3 ms of this process for each, before the server can read whose it is. So a process
listens by `LINES` servers, which all do the same. Each has a call taken in its turn, and the kernel gives all
connections of an address to the same one, or to the same one of each process where several share the address:
a call waits for those of its own line, and for one of each other line.

Addresses that share a line are like callers behind one proxy: they wait for each other until their calls are taken in,
and have a share of their own from there on (`flowcontrol`).
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import socket
import stat
import struct
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import grpc.aio
import structlog

from pilothouse_server.rpc.port import reserve
from pilothouse_server.settings.model import Settings
from pilothouse_server.values import listening

log = structlog.get_logger(__name__)

# A power of two. A server that has nothing to do costs 33 KB, and 0.25 ms at the start.
LINES = 32
# include/uapi/asm-generic/socket.h; `socket` does not name it.
_SO_ATTACH_REUSEPORT_CBPF = 51
# include/uapi/linux/filter.h: offsets from the first are those of the network header; the second is a random number.
_NETWORK_HEADER, _RANDOM = 0x1_0000_0000 - 0x10_0000, 0x1_0000_0000 - 0x1000 + 56
# include/uapi/linux/bpf_common.h: what the program uses of classic BPF.
_LOAD_BYTE, _LOAD_WORD, _KEEP, _KEPT, _TO_X, _XOR_X, _ADD_X = 0x30, 0x20, 0x02, 0x60, 0x07, 0xAC, 0x0C
_MULTIPLY, _SHIFT_RIGHT, _MODULO, _JUMP, _JUMP_IF_EQUAL, _RETURN = 0x24, 0x74, 0x94, 0x05, 0x15, 0x16
# Knuth, The Art of Computer Programming 6.4: neighbours among numbers are far apart in the upper bits of the product.
_GOLDEN = 2_654_435_769
_IPV4_SOURCE, _IPV6_SOURCE = 12, 8
_OWN_FILES = "/proc/self/fd"

BY_CHANCE = "the kernel spreads connections by chance: calls of one address may stand in the lines of others"

Adding = Callable[[grpc.aio.Server, str], int]


def lines_of(settings: Settings) -> int:
    """How many servers a process has: one where the address cannot be shared (a Unix socket), and where the kernel does
    not spread connections over those who share.
    """
    return 1 if listening.is_unix(settings.listen) or sys.platform != "linux" else LINES


class Lines:
    """Servers that serve the same, each with its line of calls. Of several `processes` that share an address each has
    its own.
    """

    def __init__(self, servers: Sequence[grpc.aio.Server], processes: int = 1) -> None:
        self._servers = servers
        self._processes = processes
        self._held = ExitStack()
        # A server that never began is stopped by nobody.
        weakref.finalize(self, self._held.close)

    def bind(self, address: str, name: str, add: Adding) -> int:
        """Takes the address of the setting `name`, by each server, and returns its port; `add` adds it to one.

        Raises:
            SettingsError: something else listens there, or it is no address of this machine.
            RuntimeError: `add` raised it.
        """
        first, *others = self._servers
        if not others or listening.is_unix(address):
            return add(first, address)
        with ExitStack() as taken:
            if self._processes == 1:
                held = reserve(address, name)
                taken.callback(held.close)
                address = held.listen
            port = add(first, address)
            for server in others:
                add(server, address)
            steer(port, self._processes)
            self._held.push(taken.pop_all())
        return port

    async def start(self) -> None:
        """Listens."""
        for server in self._servers:
            await server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Stops the listeners, waits for calls at most so long, then ends them."""
        await asyncio.gather(*(server.stop(grace_seconds) for server in self._servers))
        self._held.close()


def steer(port: int, processes: int = 1) -> None:
    """Lets the kernel choose by a connection's source address among the listeners on a port of so many processes."""
    program = ctypes.create_string_buffer(_program(processes))
    # struct sock_fprog: the number of instructions, and where they are.
    told = struct.pack("HP", len(program) // struct.calcsize("HBBI"), ctypes.addressof(program))
    try:
        with ExitStack() as opened:
            # One of each address that the port is listened on at: the program is that of all who share it.
            listeners = {each.getsockname(): each for each in _listeners(port, opened)}
            for each in listeners.values():
                each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, told)
            if not listeners:
                raise OSError(errno.ENOENT, "no listener is found")
    except OSError as error:
        # It chooses by both ends of a connection then.
        log.warning(BY_CHANCE, errno=error.errno)


def _listeners(port: int, opened: ExitStack) -> Iterator[socket.socket]:
    """Yields copies of this process's sockets that listen on a shared port, open as long as `opened` is; gRPC does
    not report them.
    """
    for number in os.listdir(_OWN_FILES):
        try:
            if not stat.S_ISSOCK(os.fstat(int(number)).st_mode):
                continue
            each = opened.enter_context(socket.socket(fileno=os.dup(int(number))))
        except OSError:
            # It has already been closed, as the directory itself is.
            continue
        if _listens(each, port):
            yield each


def _listens(each: socket.socket, port: int) -> bool:
    return (
        each.family in (socket.AF_INET, socket.AF_INET6)
        and each.type == socket.SOCK_STREAM
        and each.getsockname()[1] == port
        and bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        and bool(each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
    )


def _program(processes: int) -> bytes:
    """A classic BPF program that returns the number of a listener for a packet's source.

    That is its IPv4 address, or the /64 of its IPv6 address, as `rpc.addresses` groups them. Of several
    processes one is drawn by lot: the kernel numbers listeners in the order in which they began to listen,
    and processes begin one after the other (`launch.processes`). If two began together, both listeners of
    an address could belong to the same process, and the other would get none of its connections. Where one is
    missing, since its process is away, the kernel chooses by both ends of the connection.
    """

    def step(code: int, value: int = 0, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("HBBI", code, then, otherwise, value)

    return b"".join(
        (
            step(_LOAD_BYTE, _NETWORK_HEADER),
            step(_SHIFT_RIGHT, 4),
            step(_JUMP_IF_EQUAL, 4, otherwise=2),
            step(_LOAD_WORD, _NETWORK_HEADER + _IPV4_SOURCE),
            step(_JUMP, 4),
            step(_LOAD_WORD, _NETWORK_HEADER + _IPV6_SOURCE),
            step(_TO_X),
            step(_LOAD_WORD, _NETWORK_HEADER + _IPV6_SOURCE + 4),
            step(_XOR_X),
            step(_MULTIPLY, _GOLDEN),
            step(_SHIFT_RIGHT, 32 - (LINES.bit_length() - 1)),
            step(_KEEP),
            step(_LOAD_WORD, _RANDOM),
            step(_MODULO, processes),
            step(_MULTIPLY, LINES),
            step(_TO_X),
            step(_KEPT),
            step(_ADD_X),
            step(_RETURN),
        )
    )
