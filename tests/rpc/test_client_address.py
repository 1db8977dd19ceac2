"""The address in the audit record: the connection's, or the one that a trusted proxy reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse.audit.v1 import audit_pb2, audit_pb2_grpc
from pilothouse.identity.v1 import identity_pb2, identity_pb2_grpc
from pilothouse_server.rpc.call import client_address
from pilothouse_server.settings.model import SettingsError, load, trusted_peers
from tests.conftest import Database
from tests.harness import Server, running_server

_OURS = "127.0.0.1"


async def _recorded(server: Server, role_name: str, forwarded_for: str | None) -> str:
    """Returns the address in the record of a call that created this role and was sent with this header."""
    metadata = [("authorization", f"Bearer {await server.token()}")]
    if forwarded_for is not None:
        metadata.append(("x-forwarded-for", forwarded_for))
    channel = server.channel()
    # The asynchronous stubs are types only; at run time there is one class for both.
    identity: Any = identity_pb2_grpc.IdentityServiceStub(channel)
    audit: Any = audit_pb2_grpc.AuditServiceStub(channel)
    # A mutation, because its record is written before the response; roles need no cluster.
    role = identity_pb2.Role(name=role_name, permissions=["container.get"])
    call = identity.CreateRole(identity_pb2.CreateRoleRequest(role=role), metadata=metadata)
    await call
    operation_id = dict(await call.trailing_metadata())["pilothouse-operation-id"]
    request = audit_pb2.GetOperationRequest(operation_id=operation_id)
    answer = await audit.GetOperation(request, metadata=metadata[:1])
    return str(answer.operation.client_ip)


@pytest.mark.parametrize(
    ("trusted", "addresses"),
    [
        # A direct caller may write any header.
        ("", {None: _OURS, "203.0.113.7": _OURS}),
        ("10.0.0.1", {"203.0.113.7": _OURS}),
        (
            "127.0.0.1, 10.0.0.1",
            {
                None: _OURS,
                "203.0.113.7": "203.0.113.7",
                "2001:db8::7": "2001:db8::7",
                # Some proxies also write the port.
                "203.0.113.7:4711, 10.0.0.1:80": "203.0.113.7",
                "[2001:db8::7]:4711": "2001:db8::7",
                # Through two proxies, and with a first part that the caller made up.
                "198.51.100.1, 203.0.113.7, 10.0.0.1": "203.0.113.7",
                # A trusted proxy reports something that is no address.
                "203.0.113.7, unknown": _OURS,
            },
        ),
    ],
)
async def test_the_record_names_the_caller(
    database: Database, tmp_path: Path, trusted: str, addresses: dict[str | None, str]
) -> None:
    async with running_server(database, tmp_path, with_cluster=False, trusted_proxies=trusted) as server:
        found = {
            header: await _recorded(server, f"role-{number}", header)
            for number, header in enumerate(addresses)
        }
        assert found == addresses


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.1:5000", "192.0.2.1"),
        ("ipv6:[::1]:5000", "::1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("unix:", "unix"),
    ],
)
def test_a_peer_is_read_in_each_of_its_forms(peer: str, address: str) -> None:
    assert client_address(peer, "203.0.113.7", ()) == address
    trusted = trusted_peers(address)
    assert client_address(peer, "203.0.113.7", trusted) == "203.0.113.7"


@pytest.mark.parametrize(
    "hop", ["[2001:db8::7", "203.0.113.7:80:90", "::ffff:203.0.113.7:80", ":80", "[]", "[]:80"]
)
def test_malformed_addresses_with_ports_are_ignored(hop: str) -> None:
    assert client_address("ipv4:10.0.0.1:1", hop, trusted_peers("10.0.0.1")) == "10.0.0.1"


def test_networks_are_trusted_and_invalid_ones_are_refused() -> None:
    trusted = trusted_peers("10.0.0.0/8, fd00::/8")
    assert client_address("ipv4:10.1.2.3:1", "203.0.113.7, 10.9.9.9", trusted) == "203.0.113.7"
    assert client_address("ipv6:[fd00::1]:1", "203.0.113.7", trusted) == "203.0.113.7"
    assert client_address("ipv4:11.0.0.1:1", "203.0.113.7", trusted) == "11.0.0.1"
    with pytest.raises(SettingsError, match="TRUSTED_PROXIES"):
        load({"PILOTHOUSE_TRUSTED_PROXIES": "10.0.0.0/8, proxy.example.org"})
