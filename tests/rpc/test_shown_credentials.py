"""Calls that a credential does not permit, even if its user may make them, derived from the descriptors."""

from __future__ import annotations

import ipaddress

import pytest

from pilothouse_server.authorization.access import Credential, KeyLimits
from pilothouse_server.errors import PermissionDenied
from pilothouse_server.rpc.interceptors.authorization import check_credential
from pilothouse_server.rpc.method_rules import Rule, load
from tests.services import SERVICES

_RULES = {rule.name: rule for rule in load(SERVICES).values()}
_SESSION = Credential(method="password")
_KEY = Credential("api_key", "7", "ci", limits=KeyLimits())
_READER = Credential("api_key", "8", "reader", limits=KeyLimits(read_only=True))
_CERTIFICATE = Credential("certificate", "sha256:00")
_EXCHANGED = Credential(method="token_exchange")


def _refusal(rule: Rule, credential: Credential) -> str:
    try:
        check_credential(rule, credential)
    except PermissionDenied as error:
        return error.reason
    return ""


@pytest.mark.parametrize("name", sorted(name for name, rule in _RULES.items() if not rule.public))
def test_a_method_requires_the_credential_that_its_name_implies(name: str) -> None:
    """A new method is judged by its name.

    If its name does not begin with Get, List, Watch or the like, it needs more than a reader's permission.
    """
    rule = _RULES[name]
    reading = ("Get", "List", "Watch", "Query", "Check", "Explain", "Simulate", "Prove", "Verify", "WhoAmI")
    others = ("Search", "StreamLogs", "ExportAuditLog", "ExportApplication", "DiffRevisions")
    # Anyone who finds a key may revoke it, so RevokeApiKey counts as reading.
    only_reads = name.startswith(reading) or name in (*others, "RevokeApiKey")
    assert _refusal(rule, _SESSION) == ""
    assert _refusal(rule, _KEY) == ("SESSION_NEEDED" if rule.session_only else "")
    assert _refusal(rule, _READER) == (
        "SESSION_NEEDED" if rule.session_only else "" if only_reads else "KEY_READ_ONLY"
    )
    for other in (_CERTIFICATE, _EXCHANGED):
        assert _refusal(rule, other) == _refusal(rule, _KEY)


def test_credentials_are_managed_only_in_a_session() -> None:
    needing = {name for name, rule in _RULES.items() if rule.session_only}
    assert needing >= {"ChangePassword", "ResetPassword", "ListSessions", "RevokeSession"}
    # A method that gives out a session must not need one.
    assert not any(_RULES[name].public for name in needing)


@pytest.mark.parametrize(
    ("networks", "address", "admitted"),
    [
        ((), "", True),
        (("10.0.0.0/8",), "10.1.2.3", True),
        (("10.0.0.0/8",), "::ffff:10.1.2.3", True),
        (("10.0.0.0/8",), "11.1.2.3", False),
        (("10.0.0.0/8", "2001:db8::/32"), "2001:db8::1", True),
        (("10.0.0.0/8",), "2001:db8::1", False),
        (("0.0.0.0/0",), "unix", False),
        (("0.0.0.0/0",), "", False),
    ],
)
def test_a_credential_is_accepted_only_from_its_networks(
    networks: tuple[str, ...], address: str, admitted: bool
) -> None:
    credential = Credential("api_key", networks=tuple(ipaddress.ip_network(each) for each in networks))
    assert credential.admits(address) is admitted
