"""Addresses that a caller names: those that are permitted, those that are refused, and the names of failures."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from pilothouse_server.outbound import destinations
from pilothouse_server.outbound.destinations import AddressRefused, Reach

PASSWORD = "a-password-in-an-address"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"https://user:{PASSWORD}@host", "no user or password"),
        (f"https://{PASSWORD}@host:6443", "no user or password"),
        ("https://@host", "no user or password"),
        (f"https://host/{PASSWORD}", "no path"),
        (f"https://host?token={PASSWORD}", "no query"),
        (f"https://host#{PASSWORD}", "no query and no fragment"),
        (f"ftp://{PASSWORD}", "begin with https:// or http://"),
        (PASSWORD, "begin with https:// or http://"),
        ("https://", "must have a host"),
        ("https://host:0", "a port from 1 to 65535"),
        ("https://host:65536", "a port from 1 to 65535"),
        (f"https://host:{PASSWORD}", "a port from 1 to 65535"),
        ("https://[::1", "must have a host"),
        ("https://-host", "must have a host"),
        ("https://127.0.0.1%25x", "must have a host"),
        # The metadata service and this machine, in the forms that `inet_aton` accepts.
        ("https://2852039166", "four numbers from 0 to 255"),
        ("https://0xa9fea9fe", "four numbers from 0 to 255"),
        ("https://0177.0.0.1", "four numbers from 0 to 255"),
        ("https://127.1", "four numbers from 0 to 255"),
        ("https://127.0.0.1.", "four numbers from 0 to 255"),
        ("https://host.0x7f", "four numbers from 0 to 255"),
        ("https://0x", "four numbers from 0 to 255"),
        ("https://256.0.0.1", "four numbers from 0 to 255"),
        ("https://host name", "without spaces"),
        ("https://host\n.example", "without spaces"),
        ("https://hößt", "must be ASCII"),
        ("https://" + "h" * destinations.LONGEST_ADDRESS, "at most 2048"),
    ],
)
def test_a_refusal_names_the_rule_and_does_not_repeat_the_address(text: str, rule: str) -> None:
    with pytest.raises(AddressRefused) as refused:
        destinations.origin(text)
    assert rule in str(refused.value)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("https://host:443", "https://host"),
        ("HTTPS://Host.Example:6443/", "https://host.example:6443"),
        ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("https://[2001:db8::1]:6443", "https://[2001:db8::1]:6443"),
        ("https://1host.7up.example.", "https://1host.7up.example."),
        ("https://0xhost", "https://0xhost"),
    ],
)
def test_an_address_is_normalized(text: str, read: str) -> None:
    assert str(destinations.origin(text)) == read


def test_a_path_is_accepted_only_if_the_purpose_allows_one() -> None:
    assert str(destinations.origin("https://host/a/b%20c", path=True)) == "https://host/a/b%20c"
    with pytest.raises(AddressRefused, match="path"):
        destinations.origin("https://host/a[b]", path=True)


def test_user_info_before_a_host_becomes_a_header() -> None:
    assert destinations.without_user_info("http://u%40x:p%3Aw@proxy:3128") == (
        "http://proxy:3128",
        aiohttp.encode_basic_auth("u@x", "p:w"),
    )
    assert destinations.without_user_info("http://proxy:3128") == ("http://proxy:3128", "")
    assert destinations.place_of(f"https://u:{PASSWORD}@host/{PASSWORD}") == "host:443"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
        "fd00:42::42",
        "fd00:a9fe:a9fe::1",
        "fd00:100::100:200",
        "ff02::1",
        # Other forms of the addresses above.
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:7f00:0:100::",
        "64:ff9b:1:7f:0:1::",
        "64:ff9b:1:5:7f:0:100:0",
        "::ffff:0:169.254.169.254",
        "2001:db8::5efe:169.254.169.254",
        "2001:db8::200:5efe:127.0.0.1",
        "2002:7f00:1::",
    ],
)
def test_addresses_of_a_machine_or_its_cloud_are_denied(address: str) -> None:
    assert Reach().denies(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(destinations.AddressDenied):
        Reach().socket((family, socket.SOCK_STREAM, 0, "", (address, 443)))


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.5",
        "192.168.1.1",
        "172.16.0.1",
        "8.8.8.8",
        "fd12::1",
        "2600::1",
        "64:ff9b::808:808",
        "64:ff9b:1:5::808:808",
    ],
)
def test_other_addresses_are_not_denied(address: str) -> None:
    assert not Reach().denies(address)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "::1"])
def test_a_host_that_names_this_machine_is_denied(host: str) -> None:
    with pytest.raises(AddressRefused, match="local or reserved"):
        Reach().check(host)
    allowing = Reach([ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])
    allowing.check(host)
    allowing.check("notlocalhost.example")


class _ToThisMachine(AbstractResolver):
    """Resolves every name to this machine."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = ResolveResult(
            hostname=host,
            host="127.0.0.1",
            port=self.port,
            family=socket.AF_INET,
            proto=0,
            flags=socket.AI_NUMERICHOST,
        )
        return [found]

    async def close(self) -> None:
        """Has nothing to close."""


@asynccontextmanager
async def _listening() -> AsyncIterator[tuple[int, list[str]]]:
    """Yields the port of a server on this machine, and the list of clients that it accepted."""
    let_in: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        let_in.append(str(writer.get_extra_info("peername")))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], let_in


async def test_a_name_that_resolves_to_this_machine_is_not_connected_to() -> None:
    async with _listening() as (port, let_in):
        connector = Reach().connector(resolver=_ToThisMachine(port))
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientError) as refused:
                await session.get("http://cluster.example")
        assert "resolves to a local or reserved address" in destinations.failure(refused.value)
        assert let_in == []
        # The control: the same address, if it is allowed.
        allowing = Reach([ipaddress.ip_network("127.0.0.0/8")]).connector(resolver=_ToThisMachine(port))
        async with (
            aiohttp.ClientSession(connector=allowing) as session,
            session.get("http://a.example") as found,
        ):
            assert found.status == 200
        assert len(let_in) == 1


async def test_a_literal_address_of_this_machine_is_not_connected_to() -> None:
    async with _listening() as (port, let_in):
        async with aiohttp.ClientSession(connector=Reach().connector()) as session:
            with pytest.raises(aiohttp.ClientError) as refused:
                await session.get(f"http://127.0.0.1:{port}")
        assert "resolves to a local or reserved address" in destinations.failure(refused.value)
        assert let_in == []
