"""Device logins: begun, approved elsewhere, refused, too late, too frequent."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1.device_login_pb2 import BeginDeviceLoginRequest, CompleteDeviceLoginRequest
from pilothouse_client import AsyncClient
from pilothouse_server.identity.credentials.operations.device_login import LOGIN_PREFIX, MOST_OF_AN_ADDRESS
from pilothouse_server.identity.federation.oidc import fetching
from pilothouse_server.identity.tokens import new_token
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.settings.model import Settings
from tests.conftest import Database, new_database
from tests.identity.faults import Fault
from tests.identity.issuer import DEVICE, TOKEN, Issuer, issuer
from tests.identity.server import Caller, IdentityServer, Refused, heard_until_limited, refused
from tests.identity.trusting_server import CLIENT, SECRET, entry, trusting
from tests.waiting import patient, poll_until

RULES = [{"when": [{"claim": "groups", "contains": "shop"}], "role": "viewer", "namespaces": ["shop"]}]


@dataclass
class Environment:
    """A server that trusts two issuers; only `company` allows device logins."""

    server: IdentityServer
    company: Issuer
    plain: Issuer

    async def begin(self, who: Caller | None = None) -> Any:
        request = BeginDeviceLoginRequest(issuer="company")
        return await (who or self.server.stranger).BeginDeviceLogin(request)

    async def complete(self, begun: Any) -> Any:
        return await self.server.stranger.CompleteDeviceLogin(
            CompleteDeviceLoginRequest(login_token=begun.login_token)
        )

    async def refused(self, begun: Any) -> tuple[str, str]:
        refusal = await refused(
            self.server.stranger,
            "CompleteDeviceLogin",
            CompleteDeviceLoginRequest(login_token=begun.login_token),
        )
        return refusal.code, refusal.reason

    async def let_pass(self) -> None:
        """Ends the polling intervals of all pending logins."""
        async with self.server.database.system() as connection:
            await connection.execute("UPDATE device_logins SET next_poll_at = now() - interval '1 s'")

    async def rows(self) -> list[Any]:
        async with self.server.database.system() as connection:
            rows: list[Any] = await connection.fetch("SELECT * FROM device_logins")
        return rows


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared_environment(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Environment]:
    folder = tmp_path_factory.mktemp("issuers")
    (folder / "secret").write_text(SECRET)
    people = {"client_id": CLIENT, "client_secret_file": "secret", "rules": RULES}
    with pytest.MonkeyPatch.context() as patch:
        # Calls can be seen to wait for the issuer, however slow the machine is.
        patch.setattr(fetching, "SECONDS", patient(5.0))
        async with (
            issuer() as company,
            issuer() as plain,
            new_database(postgres, template_database.name) as database,
            trusting(
                database,
                folder,
                entry("company", company, **people),
                entry("plain", plain, **people),
                trusted_proxies="127.0.0.1",
            ) as server,
        ):
            company.register(CLIENT, SECRET)
            plain.register(CLIENT, SECRET)
            plain.announced["device_authorization_endpoint"] = None
            await server.namespace("shop")
            yield Environment(server, company, plain)


@pytest_asyncio.fixture(loop_scope="session")
async def environment(shared_environment: Environment) -> AsyncIterator[Environment]:
    """Yields the shared environment without pending logins and faults."""
    async with shared_environment.server.database.system() as connection:
        await connection.execute("DELETE FROM device_logins")
    yield shared_environment
    shared_environment.company.faults.clear()
    shared_environment.company.forged = None
    shared_environment.company.device_interval, shared_environment.company.slow_downs = 5, 0
    shared_environment.company.announced.clear()


PENDING = ("FAILED_PRECONDITION", "AUTHORIZATION_PENDING")
OVER = ("UNAUTHENTICATED", "INVALID_LOGIN")


async def test_a_login_completes_after_approval_on_another_device(environment: Environment) -> None:
    begun = await environment.begin()
    assert begun.verification_uri == f"{environment.company.url}/device"
    assert begun.user_code in begun.verification_uri_complete
    assert begun.interval.seconds == 5
    await environment.let_pass()
    assert await environment.refused(begun) == PENDING
    environment.company.approve(begun.user_code, "dora", groups=["shop"], preferred_username="dora")
    await environment.let_pass()
    answer = await environment.complete(begun)
    assert answer.user.username == "dora"
    caller = Caller(environment.server.stub, answer.access_token)
    me = await caller.WhoAmI(pb.WhoAmIRequest())
    assert [(grant.role, grant.namespace) for grant in me.grants] == [("viewer", "shop")]
    (session,) = (await caller.ListSessions(pb.ListSessionsRequest())).sessions
    assert session.method == pb.SESSION_METHOD_OIDC
    await environment.let_pass()
    assert await environment.refused(begun) == OVER


async def test_concurrent_calls_complete_a_login_once(environment: Environment) -> None:
    begun = await environment.begin()
    environment.company.approve(begun.user_code, "ed", groups=["shop"])
    await environment.let_pass()
    outcomes = await asyncio.gather(*(environment.complete(begun) for _ in range(5)), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert environment.company.asked(TOKEN) >= 1


async def test_an_early_poll_is_refused_without_a_request_to_the_issuer(environment: Environment) -> None:
    begun = await environment.begin()
    before = environment.company.asked(TOKEN)
    refusal = await refused(
        environment.server.stranger,
        "CompleteDeviceLogin",
        CompleteDeviceLoginRequest(login_token=begun.login_token),
    )
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "SLOW_DOWN")
    assert refusal.retry_seconds is not None
    assert 1 <= refusal.retry_seconds <= 5
    assert environment.company.asked(TOKEN) == before


async def test_the_issuer_may_request_longer_intervals(environment: Environment) -> None:
    environment.company.slow_downs = 1
    begun = await environment.begin()
    await environment.let_pass()
    assert await environment.refused(begun) == PENDING
    (row,) = await environment.rows()
    assert row["interval_seconds"] == 10


async def test_a_denied_or_expired_login_is_refused(environment: Environment) -> None:
    begun = await environment.begin()
    environment.company.deny(begun.user_code)
    await environment.let_pass()
    assert await environment.refused(begun) == ("UNAUTHENTICATED", "LOGIN_DENIED")
    assert await environment.rows() == []
    begun = await environment.begin()
    async with environment.server.database.system() as connection:
        await connection.execute("UPDATE device_logins SET expires_at = now() - interval '1 s'")
    environment.company.approve(begun.user_code, "fred", groups=["shop"])
    assert await environment.refused(begun) == OVER
    # The issuer's own expiry applies as well.
    environment.company.device_seconds = 1.0
    begun = await environment.begin()
    environment.company.device_seconds = 600.0
    environment.company._devices[next(reversed(environment.company._devices))].expires = 0.0
    await environment.let_pass()
    assert await environment.refused(begun) == OVER


async def test_the_stored_data_cannot_complete_a_login(environment: Environment) -> None:
    begun = await environment.begin()
    (row,) = await environment.rows()
    assert row["token_hash"] == hashlib.sha256(begun.login_token.encode()).digest()
    (device_code,) = [
        code for code, device in environment.company._devices.items() if device.user_code == begun.user_code
    ]
    assert device_code.encode() not in row["sealed_code"]
    for invented in ("phc_" + "x" * 49, begun.login_token[:-1] + "!", row["token_hash"].hex()):
        refusal = await refused(
            environment.server.stranger,
            "CompleteDeviceLogin",
            CompleteDeviceLoginRequest(login_token=invented),
        )
        assert (refusal.code, refusal.reason) == OVER


async def test_the_pending_logins_of_an_address_are_limited(environment: Environment) -> None:
    for _ in range(MOST_OF_AN_ADDRESS):
        await environment.begin()
    request = BeginDeviceLoginRequest(issuer="company")
    refusal = await refused(environment.server.stranger, "BeginDeviceLogin", request)
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "LOGIN_LIMITED")
    assert (await environment.begin(environment.server.at("198.51.100.7"))).user_code


async def test_an_address_that_guesses_is_limited(environment: Environment) -> None:
    invented = CompleteDeviceLoginRequest(login_token=new_token(LOGIN_PREFIX))

    async def reason(address: str) -> str:
        return (await refused(environment.server.at(address), "CompleteDeviceLogin", invented)).reason

    await heard_until_limited(lambda: reason("198.51.100.8"))
    assert await reason("198.51.100.12") == "INVALID_LOGIN"
    # Logins with a known token still begin and complete there.
    begun = await environment.begin(environment.server.at("198.51.100.8"))
    environment.company.approve(begun.user_code, "ida", groups=["shop"], preferred_username="ida")
    await environment.let_pass()
    answer = await environment.server.at("198.51.100.8").CompleteDeviceLogin(
        CompleteDeviceLoginRequest(login_token=begun.login_token)
    )
    assert answer.user.username == "ida"


async def test_early_polls_do_not_block_other_logins_of_their_address(environment: Environment) -> None:
    there = environment.server.at("198.51.100.13")
    # The server paces refusals, so this many take seconds; all of them are early.
    environment.company.device_interval = 300
    hasty, begun = await environment.begin(there), await environment.begin(there)
    early = CompleteDeviceLoginRequest(login_token=hasty.login_token)
    for _ in range(Settings().login_failures_per_address + 20):
        assert (await refused(there, "CompleteDeviceLogin", early)).reason == "SLOW_DOWN"
    environment.company.approve(begun.user_code, "jo", groups=["shop"], preferred_username="jo")
    await environment.let_pass()
    answer = await there.CompleteDeviceLogin(CompleteDeviceLoginRequest(login_token=begun.login_token))
    assert answer.user.username == "jo"
    assert (await environment.begin(there)).user_code


@pytest.mark.parametrize(
    "changes",
    [
        {"device_code": None},
        {"user_code": "\x1b[31mred"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://x.example/ with blanks"},
        {"expires_in": "600"},
        {"expires_in": True},
        {"interval": -5},
    ],
)
def test_the_response_of_an_issuer_to_a_device_is_checked(changes: dict[str, Any]) -> None:
    from pilothouse_server.identity.credentials.operations.device_login import _read_offer

    honest = {
        "device_code": "d",
        "user_code": "BCDF-GHJK",
        "verification_uri": "https://sso.example.com/device",
        "expires_in": 600,
    }
    offer = _read_offer(honest, "https")
    assert offer is not None
    assert (offer.interval_seconds, offer.verification_uri_complete) == (5, "")
    assert _read_offer(honest | changes, "https") is None
    assert _read_offer(honest | {"verification_uri": "http://sso.example.com/device"}, "https") is None


async def test_issuers_without_device_logins_and_unavailable_ones_are_reported(
    environment: Environment,
) -> None:
    stranger = environment.server.stranger
    refusal = await refused(stranger, "BeginDeviceLogin", BeginDeviceLoginRequest(issuer="plain"))
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "NO_DEVICE_LOGIN")
    refusal = await refused(stranger, "BeginDeviceLogin", BeginDeviceLoginRequest(issuer="nobody"))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "ISSUER_NOT_FOUND")
    refusal = await refused(stranger, "BeginDeviceLogin", BeginDeviceLoginRequest())
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["issuer"])
    for fault in (Fault.CUT, Fault.NOT_JSON, Fault.BOMB, Fault.REDIRECT, Fault.FAILED):
        environment.company.faults[DEVICE] = fault
        refusal = await refused(stranger, "BeginDeviceLogin", BeginDeviceLoginRequest(issuer="company"))
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "ISSUER_UNAVAILABLE"), fault
        assert "secret words" not in refusal.message
    environment.company.faults.clear()
    # A pending login stays pending while the issuer is away, and can be completed once it is back.
    begun = await environment.begin()
    await environment.company.go_away()
    await environment.let_pass()
    assert await environment.refused(begun) == ("UNAVAILABLE", "ISSUER_UNAVAILABLE")
    await environment.company.come_back()
    environment.company.approve(begun.user_code, "greta", groups=["shop"], preferred_username="greta")
    await environment.let_pass()
    assert (await environment.complete(begun)).user.username == "greta"


async def test_no_call_holds_a_connection_while_it_waits_for_the_issuer(environment: Environment) -> None:
    admin = await environment.server.admin()

    async def held() -> int:
        """Returns the number of connections that are idle in a transaction."""
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = $1"
        )
        async with environment.server.database.system() as connection:
            found: int = await connection.fetchval(query, environment.server.database.name)
            return found

    async with environment.server.database.system() as connection, connection.transaction():
        await connection.execute("SELECT 1")
        assert await held() >= 1, "one that is held is seen"
    environment.company.faults[DEVICE] = Fault.SLOW
    before = environment.company.asked(DEVICE)
    waiting = [
        asyncio.create_task(environment.begin(environment.server.at(f"198.51.100.{100 + number}")))
        for number in range(20)
    ]

    async def asked() -> int:
        return environment.company.asked(DEVICE) - before

    await poll_until(asked, lambda count: count >= 4, what="calls that wait for the issuer")
    # Other tasks use connections for short times; a waiting call would hold one until the request to the
    # issuer fails.
    await poll_until(held, lambda count: count == 0, seconds=2.0, what="no connection that is held")
    assert not any(task.done() for task in waiting)
    assert (await admin.WhoAmI(pb.WhoAmIRequest())).user.username == "admin"
    environment.company.faults.clear()
    environment.company.released.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert {outcome.reason if isinstance(outcome, Refused) else "begun" for outcome in outcomes} <= {
        "begun",
        "ISSUER_UNAVAILABLE",
    }


async def test_a_user_without_an_account_is_refused(environment: Environment) -> None:
    begun = await environment.begin()
    environment.company.approve(begun.user_code, "mallory", groups=["other"])
    await environment.let_pass()
    assert await environment.refused(begun) == ("UNAUTHENTICATED", "NO_ACCOUNT")
    await environment.let_pass()
    assert await environment.refused(begun) == OVER


async def test_the_client_polls_until_the_login_is_approved(environment: Environment) -> None:
    environment.company.device_interval = 1
    shown = []

    def show(begun: Any) -> None:
        shown.append(begun.user_code)
        environment.company.approve(begun.user_code, "hugo", groups=["shop"], preferred_username="hugo")

    async with AsyncClient(environment.server.address) as client:
        answer = await client.login_by_device("company", show)
        assert answer.user.username == "hugo"
        assert (await client.identity.who_am_i()).user.username == "hugo"
    assert len(shown) == 1
