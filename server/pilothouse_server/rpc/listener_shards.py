"""Listener shards: several gRPC servers behind one address.

Calls from different source addresses wait in different queues. gRPC queues calls that the application has not
accepted yet, one queue per server, in the order of arrival, and `grpc.aio` accepts one at a time. With one server, a
call behind two thousand others waits until each of those is accepted. Each takes 0.15 to 0.3 ms of this process
before the server can read who the caller is. So a process listens with `SHARDS` servers, which all serve the same
methods and accept calls in turn. The kernel gives all connections of a source address to the same server or, if
several processes share the address, to the same server of each process. So a call waits for the calls of its own
shard, and for one call of each other shard.

Source addresses that share a shard are like callers behind one proxy: they wait for each other until their calls are
accepted. After that, each has its own share (`flowcontrol`).
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

# A power of two. An idle server costs 33 KB, and 0.25 ms at the start.
SHARDS = 32
# include/uapi/asm-generic/socket.h; `socket` does not name it.
_SO_ATTACH_REUSEPORT_CBPF = 51
# include/uapi/linux/filter.h: the base of offsets into the network header (SKF_NET_OFF), and a random number.
_NETWORK_HEADER, _RANDOM = 0x1_0000_0000 - 0x10_0000, 0x1_0000_0000 - 0x1000 + 56
# include/uapi/linux/bpf_common.h: the opcodes of classic BPF that the program uses.
_LOAD_BYTE, _LOAD_WORD, _KEEP, _KEPT, _TO_X, _XOR_X, _ADD_X = 0x30, 0x20, 0x02, 0x60, 0x07, 0xAC, 0x0C
_MULTIPLY, _SHIFT_RIGHT, _MODULO, _JUMP, _JUMP_IF_EQUAL, _RETURN = 0x24, 0x74, 0x94, 0x05, 0x15, 0x16
# Knuth, The Art of Computer Programming 6.4: this factor spreads neighbouring numbers in the product's upper bits.
_GOLDEN = 2_654_435_769
_IPV4_SOURCE, _IPV6_SOURCE = 12, 8
_OWN_FILES = "/proc/self/fd"

BY_CHANCE = "the kernel spreads connections at random: calls of one address may wait behind those of others"

Adding = Callable[[grpc.aio.Server, str], int]


def shard_count(settings: Settings) -> int:
    """Returns the number of servers of a process.

    It is 1 if the address cannot be shared (a Unix socket), or if the kernel does not spread connections over the
    listeners of a shared port.
    """
    return 1 if listening.is_unix(settings.listen) or sys.platform != "linux" else SHARDS


class ListenerShards:
    """The servers of a process, which serve the same methods, each with its own queue of calls.

    `processes` is the number of processes that share the address.
    """

    def __init__(self, servers: Sequence[grpc.aio.Server], processes: int = 1) -> None:
        self._servers = servers
        self._processes = processes
        self._held = ExitStack()
        # Nobody calls `stop` for a server that was never started.
        weakref.finalize(self, self._held.close)

    def bind(self, address: str, name: str, add: Adding) -> int:
        """Binds all servers to the address of the setting `name`, and returns its port; `add` binds one server.

        Raises:
            SettingsError: something else listens there, or this machine does not have the address.
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
        """Starts all servers."""
        for server in self._servers:
            await server.start()

    async def stop(self, grace_seconds: float) -> None:
        """Stops the listeners, waits for calls for at most `grace_seconds`, then ends them."""
        await asyncio.gather(*(server.stop(grace_seconds) for server in self._servers))
        self._held.close()


def steer(port: int, processes: int = 1) -> None:
    """Makes the kernel choose by source address among the listeners on a port.

    `processes` processes share the port.
    """
    program = ctypes.create_string_buffer(_program(processes))
    # struct sock_fprog: the number of instructions, and their address.
    told = struct.pack("HP", len(program) // struct.calcsize("HBBI"), ctypes.addressof(program))
    try:
        with ExitStack() as opened:
            # One listener of each address that is bound: all listeners that share an address share its program.
            listeners = {each.getsockname(): each for each in _listeners(port, opened)}
            for each in listeners.values():
                each.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, told)
            if not listeners:
                raise OSError(errno.ENOENT, "no listener is found")
    except OSError as error:
        # Without the program the kernel chooses by both ends of a connection.
        log.warning(BY_CHANCE, errno=error.errno)


def _listeners(port: int, opened: ExitStack) -> Iterator[socket.socket]:
    """Yields copies of this process's sockets that listen on a shared port.

    `opened` closes them. gRPC does not report its sockets.
    """
    for number in os.listdir(_OWN_FILES):
        try:
            if not stat.S_ISSOCK(os.fstat(int(number)).st_mode):
                continue
            each = opened.enter_context(socket.socket(fileno=os.dup(int(number))))
        except OSError:
            # The descriptor has already been closed, as that of the directory itself has.
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
    """Returns a classic BPF program that maps a packet's source to the number of a listener.

    The source is the IPv4 address, or the /64 of the IPv6 address, as `rpc.addresses` groups them. If there are
    several processes, the program chooses one at random. The kernel numbers listeners in the order in which they began
    to listen, and processes begin one after the other (`launch.processes`). If two began at the same time, both
    listeners of an address could belong to the same process, and the other would get none of its connections. If a
    listener is missing because its process is down, the kernel chooses by both ends of the connection.
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
            step(_SHIFT_RIGHT, 32 - (SHARDS.bit_length() - 1)),
            step(_KEEP),
            step(_LOAD_WORD, _RANDOM),
            step(_MODULO, processes),
            step(_MULTIPLY, SHARDS),
            step(_TO_X),
            step(_KEPT),
            step(_ADD_X),
            step(_RETURN),
        )
    )
