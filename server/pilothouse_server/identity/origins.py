"""Where a call comes from, as log-ins count it."""

from __future__ import annotations

from pilothouse_server.identity.model import LoginOrigin
from pilothouse_server.rpc.addresses import address_group
from pilothouse_server.rpc.call import Call


def origin_of(call: Call) -> LoginOrigin:
    """The address of a call, whom it stands for, and the program that calls."""
    return LoginOrigin(call.client_ip, address_group(call.client_ip), call.headers.user_agent)
