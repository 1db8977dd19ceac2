"""No caller locks other users out.

Devices and addresses of earlier logins bypass a lock that guesses cause.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import grpc.aio
import pytest
import pytest_asyncio

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import identity_pb2_grpc
from pilothouse_server.identity import tokens
from pilothouse_server.identity.credentials.login_turns import LoginTurns, Whose
from pilothouse_server.identity.credentials.operations.login_throttle import FREE_FAILURES
from pilothouse_server.identity.credentials.trusted_devices import DeviceTokens
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import Database, number_changes
from tests.identity.server import (
    ADMIN_PASSWORD,
    PASSWORD,
    Caller,
    IdentityServer,
    Refused,
    heard_until_limited,
    refused,
    running,
)
from tests.waiting import poll_until

HOME, AWAY, ATTACKER = "192.0.2.1", "192.0.2.77", "198.51.100.6"
PROXY = {"trusted_proxies": "127.0.0.1"}


@pytest_asyncio.fixture(loop_scope="session")
async def server(database: Database) -> AsyncIterator[IdentityServer]:
    """Yields a server behind a proxy that reports the addresses of callers."""
    async with running(database, **PROXY) as started:
        yield started


async def log_in(
    caller: Caller, device_token: str = "", password: str = ADMIN_PASSWORD, user: str = "admin"
) -> str:
    """Logs in, and returns the new device token or the reason of the refusal."""
    try:
        answer = await caller.Login(
            pb.LoginRequest(username=user, password=password, device_token=device_token)
        )
    except Refused as refusal:
        return refusal.reason or str(refusal)
    assert answer.device_token.startswith("phd_")
    return str(answer.device_token)


async def lock(server: IdentityServer, user: str = "admin") -> None:
    """Guesses from another address until the account is locked."""
    for _ in range(FREE_FAILURES):
        assert await log_in(server.at(ATTACKER), password="wrong", user=user) == "INVALID_CREDENTIALS"
    assert await log_in(server.at(ATTACKER), password="wrong", user=user) == "LOGIN_THROTTLED"


async def test_a_known_device_bypasses_the_lock_from_any_address(server: IdentityServer) -> None:
    device = await log_in(server.at(HOME))
    await lock(server)
    assert await log_in(server.at(AWAY)) == "LOGIN_THROTTLED"
    again = await log_in(server.at(AWAY), device)
    assert again.startswith("phd_")
    # The lock still applies to the attacker.
    assert await log_in(server.at(ATTACKER)) == "LOGIN_THROTTLED"


async def test_a_known_address_bypasses_the_lock(server: IdentityServer) -> None:
    await log_in(server.at("2001:db8::1"))
    await lock(server)
    assert (await log_in(server.at("2001:db8::2"))).startswith("phd_")
    assert await log_in(server.at("2001:db8:0:1::1")) == "LOGIN_THROTTLED"


async def test_five_wrong_guesses_end_the_exemption_of_a_device(server: IdentityServer) -> None:
    device = await log_in(server.at(HOME))
    await lock(server)
    for _ in range(FREE_FAILURES):
        assert await log_in(server.at(AWAY), device, "wrong") == "INVALID_CREDENTIALS"
    assert await log_in(server.at(AWAY), device) == "LOGIN_THROTTLED"
    # The address has its own counter.
    assert (await log_in(server.at(HOME))).startswith("phd_")
    async with server.database.system() as connection:
        await connection.execute("UPDATE login_throttles SET locked_until = NULL")
    fresh = await log_in(server.at("203.0.113.9"), device)
    await lock(server)
    # The token used for the guesses stays worthless; the new token counts as another device.
    assert await log_in(server.at("203.0.113.10"), device) == "LOGIN_THROTTLED"
    assert (await log_in(server.at("203.0.113.10"), fresh)).startswith("phd_")


async def test_concurrent_guesses_of_one_device_are_counted_individually(server: IdentityServer) -> None:
    device = await log_in(server.at(HOME))
    await lock(server)
    outcomes = await asyncio.gather(*(log_in(server.at(AWAY), device, "wrong") for _ in range(12)))
    assert sorted(outcomes) == ["INVALID_CREDENTIALS"] * FREE_FAILURES + ["LOGIN_THROTTLED"] * 7


@pytest.mark.parametrize("how", ["change", "reset"])
async def test_a_new_password_ends_the_exemptions_of_devices_and_addresses(
    server: IdentityServer, how: str
) -> None:
    admin = await server.admin()
    await server.user(admin, "anna", log_in=False)
    device = await log_in(server.at(HOME), password=PASSWORD, user="anna")
    new = "another long password"
    if how == "change":
        anna = await server.log_in("anna")
        await anna.ChangePassword(pb.ChangePasswordRequest(current_password=PASSWORD, new_password=new))
    else:
        await admin.ResetPassword(pb.ResetPasswordRequest(username="anna", new_password=new))
    await lock(server, "anna")
    for caller in (server.at(HOME), server.at(AWAY)):
        assert await log_in(caller, device, new, "anna") == "LOGIN_THROTTLED"


async def test_a_device_token_is_valid_for_one_account(server: IdentityServer) -> None:
    admin = await server.admin()
    await server.user(admin, "eve", log_in=False)
    device = await log_in(server.at(HOME), password=PASSWORD, user="eve")
    await lock(server)
    assert await log_in(server.at(AWAY), device) == "LOGIN_THROTTLED"
    # The token alone does not log in, and is not valid as a token of another kind.
    assert await log_in(server.at(AWAY), device, "wrong", "eve") == "INVALID_CREDENTIALS"
    assert (
        await refused(Caller(server.stub, device), "WhoAmI", pb.WhoAmIRequest())
    ).reason == "INVALID_TOKEN"
    assert (
        await refused(server.stranger, "RefreshSession", pb.RefreshSessionRequest(refresh_token=device))
    ).reason == "INVALID_REFRESH_TOKEN"


async def test_guesses_with_a_stolen_device_token_do_not_limit_its_owner(database: Database) -> None:
    async with running(database, **PROXY, login_failures_per_address=8) as server:
        taken = await log_in(server.at(HOME))
        device = await log_in(server.at(HOME))
        heard = await heard_until_limited(lambda: log_in(server.at(ATTACKER), taken, "wrong"))
        # After five guesses the token is worthless, and its holder is limited like any address.
        assert heard == {"INVALID_CREDENTIALS", "LOGIN_THROTTLED", "LOGIN_LIMITED"}
        assert (await log_in(server.at(AWAY), device)).startswith("phd_")


async def test_devices_are_known_to_every_replica_and_after_restarts(database: Database) -> None:
    async with running(database, **PROXY) as one:
        device = await log_in(one.at(HOME))
        await lock(one)
    async with running(database, **PROXY) as other:
        for _ in range(FREE_FAILURES - 1):
            assert await log_in(other.at(AWAY), device, "wrong") == "INVALID_CREDENTIALS"
        async with running(database, **PROXY) as third:
            assert await log_in(third.at(AWAY), device, "wrong") == "INVALID_CREDENTIALS"
            assert await log_in(third.at(AWAY), device) == "LOGIN_THROTTLED"
        assert await log_in(other.at(AWAY), device) == "LOGIN_THROTTLED"


@pytest.mark.full
async def test_remembered_devices_are_limited_in_time_and_number(server: IdentityServer) -> None:
    device = await log_in(server.at(HOME))
    assert await log_in(server.at(HOME), device)
    for number in range(30):
        await log_in(server.at(f"203.0.113.{number}"))
    async with server.database.system() as connection:
        assert await connection.fetchval("SELECT count(*) FROM login_origins") == 50
    await lock(server)
    # The device was used twice, so it is remembered longer than devices that were used once.
    assert (await log_in(server.at(AWAY), device)).startswith("phd_")
    async with server.database.system() as connection:
        await connection.execute("UPDATE login_origins SET updated_at = now() - interval '91 days'")
    assert await log_in(server.at(AWAY), device) == "LOGIN_THROTTLED"


@pytest.mark.full
async def test_an_ignored_device_token_is_detected(
    server: IdentityServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without the exemption the correct password is locked out."""

    async def nothing(*_arguments: object, **_more: object) -> list[object]:
        return []

    device = await log_in(server.at(HOME))
    monkeypatch.setattr("pilothouse_server.identity.credentials.repository.login_origins.find", nothing)
    await lock(server)
    assert await log_in(server.at(HOME), device) == "LOGIN_THROTTLED"


def test_device_tokens_cannot_be_forged() -> None:
    account, other = b"a" * 32, b"b" * 32
    made = DeviceTokens(b"k" * 32)
    token, device = made.issue(account)
    assert made.read(token, account) == device
    assert made.issue(account, device)[1] == device
    assert made.read(token, other) is None
    assert DeviceTokens(b"x" * 32).read(token, account) is None
    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert made.read(changed, account) is None
        body = changed[: -tokens.CHECKSUM_LENGTH]
        assert (
            made.read(body + tokens.checksum(body), account) is None
            or body == token[: -tokens.CHECKSUM_LENGTH]
        )
    for rubbish in ("", "phd_", "phd_" + "ü" * 80, "x" * 512, token[:-1], token + "A"):
        assert made.read(rubbish, account) is None


class Flood:
    """Logins with invented names from one address over its own connection.

    No password is verified before `go_on`.
    """

    def __init__(self, server: IdentityServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tasks: list[asyncio.Task[str]] = []
        self._server = server
        self._held = asyncio.Event()
        verify = server.passwords.verify

        async def verify_held(password_hash: str | None, password: str) -> bool:
            await self._held.wait()
            return await verify(password_hash, password)

        monkeypatch.setattr(server.passwords, "verify", verify_held)

    @asynccontextmanager
    async def of(self, number: int) -> AsyncIterator[None]:
        """Runs this many logins; the block begins when the queue is full."""
        own = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(self._server.address, options=own) as channel:
            attacker = Caller(identity_pb2_grpc.IdentityServiceStub(channel), forwarded_for=ATTACKER)
            self.tasks = [
                asyncio.create_task(log_in(attacker, password="wrong", user=f"invented{each}"))
                for each in range(number)
            ]
            try:
                await poll_until(self._some_are_answered)
                yield
            finally:
                self.go_on()
                await asyncio.gather(*self.tasks)

    async def _some_are_answered(self) -> bool:
        return bool(self.outcomes)

    def go_on(self) -> None:
        """Lets the server verify passwords from now on."""
        self._held.set()

    @property
    def outcomes(self) -> list[str]:
        """Returns the outcomes of the logins that have ended."""
        return [task.result() for task in self.tasks if task.done()]


@pytest.mark.full
async def test_a_flood_from_one_address_does_not_block_logins_of_others(
    server: IdentityServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = Flood(server, monkeypatch)
    async with flood.of(360):
        honest = [asyncio.create_task(log_in(server.at(f"203.0.113.{number}"))) for number in range(6)]
        await asyncio.sleep(0)
        flood.go_on()
        told = await asyncio.gather(*honest)
    assert all(each.startswith("phd_") for each in told), told
    assert {"INVALID_CREDENTIALS", "LOGIN_BUSY"} <= set(flood.outcomes)
    assert flood.outcomes.count("INVALID_CREDENTIALS") <= 130


@asynccontextmanager
async def going_on(server: IdentityServer, address: str, at_once: int) -> AsyncIterator[Counter[str]]:
    """Runs logins with invented names from an address; yields the outcomes so far."""
    outcomes: Counter[str] = Counter()
    numbers = count()
    own = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(server.address, options=own) as channel:
        attacker = Caller(identity_pb2_grpc.IdentityServiceStub(channel), forwarded_for=address)

        async def guess() -> None:
            while True:
                outcomes[await log_in(attacker, password="x", user=f"invented{next(numbers)}")] += 1

        tasks = [asyncio.create_task(guess()) for _ in range(at_once)]
        try:
            yield outcomes
        finally:
            await cancel_and_wait(*tasks)


@pytest.mark.full
async def test_a_flood_from_the_same_address_does_not_block_known_names(database: Database) -> None:
    async with running(database, **PROXY, login_failures_per_address=8) as server:
        admin = await server.admin()
        for name in ("anna", "ben"):
            await server.user(admin, name, log_in=False)
            # The test does not keep the device token of this login.
            assert (await log_in(server.at(HOME), password=PASSWORD, user=name)).startswith("phd_")
        async with going_on(server, HOME, 90) as outcomes:
            await poll_until(lambda: _has(outcomes, "LOGIN_LIMITED"), what="the end of the budget")
            for name in ("anna", "ben"):
                assert (await log_in(server.at(HOME), password=PASSWORD, user=name)).startswith("phd_")


async def test_a_name_is_known_at_an_address_for_a_month_after_its_login(
    server: IdentityServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[bool] = []
    turn = LoginTurns.turn

    def noted(self: LoginTurns, whose: Whose) -> object:
        known.append(whose.known)
        return turn(self, whose)

    monkeypatch.setattr(LoginTurns, "turn", noted)
    await log_in(server.at(HOME))
    await log_in(server.at(HOME), user="invented")
    await log_in(server.at(AWAY), password="wrong")
    # A wrong password changes nothing, and neither does another spelling of the name.
    await log_in(server.at(HOME), password="wrong", user="ADMIN")
    for days in (29, 31):
        async with server.database.system() as connection:
            await connection.execute(
                "UPDATE login_origins SET updated_at = now() - make_interval(days => $1)", days
            )
        await log_in(server.at(HOME), password="wrong")
    assert known == [False, False, False, True, True, False]


async def _has(outcomes: Counter[str], reason: str) -> bool:
    return outcomes[reason] > 0


async def test_guesses_at_one_name_do_not_block_new_names_of_the_address(database: Database) -> None:
    async with running(database, **PROXY, login_failures_per_address=4) as server:
        await server.user(await server.admin(), "anna", log_in=False)
        guesses = [
            asyncio.create_task(log_in(server.at(HOME), password="wrong", user="victim")) for _ in range(50)
        ]
        await poll_until(lambda: _some(guesses), what="the first answers")
        assert (await log_in(server.at(HOME), password=PASSWORD, user="anna")).startswith("phd_")
        outcomes = set(await asyncio.gather(*guesses))
    assert outcomes <= {"INVALID_CREDENTIALS", "LOGIN_THROTTLED", "LOGIN_LIMITED", "LOGIN_BUSY"}


async def _some(tasks: list[asyncio.Task[str]]) -> bool:
    return any(task.done() for task in tasks)


async def test_an_address_with_many_failures_is_limited_for_all_accounts(database: Database) -> None:
    changes = PROXY | {"login_failures_per_address": 8, "wait_seconds": 1.0}
    async with running(database, **changes) as server:
        for _ in range(10):
            # Correct passwords use up no budget.
            assert (await log_in(server.at(HOME))).startswith("phd_")
        guesses = await asyncio.gather(
            *(log_in(server.at(ATTACKER), password="x", user=f"user{number}") for number in range(40))
        )
        # On a slow machine some logins wait too long for their turn.
        assert set(guesses) - {"LOGIN_BUSY"} == {"INVALID_CREDENTIALS", "LOGIN_LIMITED"}
        refusals = await asyncio.gather(
            *(
                refused(server.at(ATTACKER), "Login", pb.LoginRequest(username="new", password="x"))
                for _ in range(20)
            )
        )
        limited = [each for each in refusals if each.reason == "LOGIN_LIMITED"]
        assert {each.code for each in limited} == {"RESOURCE_EXHAUSTED"}
        assert all(each.retry_seconds for each in limited)
        assert (await log_in(server.at(AWAY))).startswith("phd_")


@pytest.mark.full
async def test_an_unfair_queue_is_detected(server: IdentityServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with a single queue the flood keeps the honest user out."""
    turn = LoginTurns.turn

    def all_alike(self: LoginTurns, _whose: Whose) -> object:
        return turn(self, Whose("everybody", "everybody", known=False))

    monkeypatch.setattr(LoginTurns, "turn", all_alike)
    async with Flood(server, monkeypatch).of(100):
        assert await log_in(server.at(HOME)) == "LOGIN_BUSY"


async def test_a_password_typed_as_user_name_is_not_stored(server: IdentityServer, admin: Caller) -> None:
    canary = "Tr0ub4dor-canary"
    for attempt in (
        {"username": canary, "password": "x"},
        # Refused before the user is looked up.
        {"username": canary},
        {"username": canary * 20, "password": "x"},
        {"username": "ADMIN", "password": "wrong"},
    ):
        await refused(server.stranger, "Login", pb.LoginRequest(**attempt))
    async with server.database.system() as connection:
        await number_changes(connection)
        rows = await connection.fetch(
            "SELECT resource_name, log::text AS everything FROM operation_logs AS log "
            "WHERE action = 'login' AND error_code IS NOT NULL ORDER BY sequence"
        )
    assert len(rows) == 4
    assert not [row["everything"] for row in rows if canary in row["everything"]]
    names = [row["resource_name"] for row in rows]
    assert names[0].startswith("[unknown name ")
    assert names[1:] == [None, None, "admin"]
