"""No RPC escapes the checkers: each served RPC has a valid request."""

from __future__ import annotations

from tests.promises.environment import Environment
from tests.promises.requests import REQUESTS


async def test_every_rpc_that_is_served_has_a_request(environment: Environment) -> None:
    missing = sorted(rule.name for rule in environment.rules.values() if rule.name not in REQUESTS)
    assert not missing, f"tests/promises/requests.py has no entry for {', '.join(missing)}"
    assert len({rule.name for rule in environment.rules.values()}) == len(environment.rules)
