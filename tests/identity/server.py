"""The identity service alone, behind the complete pipeline.

It runs on a real port with its own database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import identity_pb2_grpc
from pilothouse_server.app import SEALED
from pilothouse_server.authorization.access import OVER_ALL_NAMESPACES
from pilothouse_server.config.operations import rotation
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.encryption.keys import KeyRing
from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.identity.access.refusal_reasons import RefusalReasons
from pilothouse_server.identity.accounts.bootstrap import bootstrap
from pilothouse_server.identity.authenticator.token_authenticator import TokenAuthenticator
from pilothouse_server.identity.credentials.password_policy import NewPasswords
from pilothouse_server.identity.credentials.passwords import Passwords
from pilothouse_server.identity.federation.oidc.trusted import TrustedIssuers
from pilothouse_server.identity.noun import IdentityDependencies, identity_services
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.outbound.destinations import LOOPBACK, Reach
from pilothouse_server.rpc import method_rules
from pilothouse_server.rpc.idempotency import IdempotencyKeeper
from pilothouse_server.rpc.interceptors import standard_layers
from pilothouse_server.rpc.interceptors.audit import AuditLayer
from pilothouse_server.rpc.interceptors.authorization import AuthorizationLayer
from pilothouse_server.rpc.pipeline import Pipeline
from pilothouse_server.rpc.server import build, rules_and_handlers
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import Settings, trusted_peers
from pilothouse_server.store.audit_writer import AuditWriter
from pilothouse_server.store.engine import Database as Engines
from pilothouse_server.store.feed import Feed
from pilothouse_server.store.unit_of_work import Store
from pilothouse_server.watch.hub import Hub
from tests.conftest import Database
from tests.harness import limits_of
from tests.services import SERVICES
from tests.waiting import patient, within

ADMIN_PASSWORD = "correct horse battery staple"
PASSWORD = "a long enough password"
SERVICE = pb.DESCRIPTOR.services_by_name["IdentityService"]
# The declarations of the whole product, so that permissions have the same meaning as there.
RULES = method_rules.load(SERVICES)
KNOWN = frozenset(
    {rule.permission for rule in RULES.values() if rule.permission} | OVER_ALL_NAMESPACES | {"config.use"}
)


class Refused(Exception):
    """A call that failed: its code, the reason in ErrorInfo and the other details."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        super().__init__(f"{error.code().name}: {error.details()}")
        self.code = error.code().name
        self.message = error.details() or ""
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.retry_seconds: float | None = None
        self.fields: list[str] = []
        status = rpc_status.from_call(cast("grpc.Call", error))
        for detail in () if status is None else status.details:
            for kind in (
                error_details_pb2.ErrorInfo,
                error_details_pb2.RetryInfo,
                error_details_pb2.BadRequest,
            ):
                if detail.Is(kind.DESCRIPTOR):
                    self._take(detail, kind())

    def _take(self, packed: Any, detail: Any) -> None:
        packed.Unpack(detail)
        if isinstance(detail, error_details_pb2.ErrorInfo):
            self.reason, self.metadata = detail.reason, dict(detail.metadata)
        elif isinstance(detail, error_details_pb2.RetryInfo):
            self.retry_seconds = detail.retry_delay.ToNanoseconds() / 1e9
        else:
            self.fields = [violation.field for violation in detail.field_violations]


@dataclass
class Caller:
    """A client of the identity service.

    `await caller.GetUser(pb.GetUserRequest(...))` returns the response, or raises `Refused`.
    """

    stub: Any
    access_token: str = ""
    refresh_token: str = ""
    device_token: str = ""
    forwarded_for: str = ""

    def __getattr__(self, name: str) -> Callable[[Any], Awaitable[Any]]:
        method = getattr(self.stub, name)
        metadata = [("authorization", f"Bearer {self.access_token}")] if self.access_token else []
        metadata += [("x-forwarded-for", self.forwarded_for)] if self.forwarded_for else []

        async def call(request: Any) -> Any:
            try:
                return await method(request, metadata=tuple(metadata), timeout=patient(30.0))
            except grpc.aio.AioRpcError as error:
                raise Refused(error) from None

        return call


class IdentityServer:
    """A running server, its store, and the callers that log in to it."""

    def __init__(
        self,
        database: Database,
        store: Store,
        passwords: Passwords,
        stub: Any,
        audit: AuditLayer,
        address: str,
        admission: CallAdmission,
        **changes: Any,
    ) -> None:
        self.admission = admission
        self.database = database
        self.store = store
        self.passwords = passwords
        self.new_passwords = NewPasswords(passwords, settings_of(database, **changes))
        self.stub = stub
        self.audit = audit
        self.address = address

    @property
    def stranger(self) -> Caller:
        """Returns a caller without a token."""
        return Caller(self.stub)

    def at(self, address: str) -> Caller:
        """Returns a caller without a token at an address.

        This works only where this machine is a trusted proxy.
        """
        return Caller(self.stub, forwarded_for=address)

    async def log_in(self, username: str, password: str = PASSWORD) -> Caller:
        """Returns a caller with a new session."""
        answer = await self.stranger.Login(pb.LoginRequest(username=username, password=password))
        return Caller(self.stub, answer.access_token, answer.refresh_token, answer.device_token)

    async def admin(self) -> Caller:
        """Returns the bootstrap administrator, logged in."""
        return await self.log_in("admin", ADMIN_PASSWORD)

    async def user(
        self, admin: Caller, username: str, *grants: tuple[str, str], log_in: bool = True
    ) -> Caller:
        """Creates a user with grants of (role, namespace), and returns it logged in."""
        await admin.CreateUser(
            pb.CreateUserRequest(
                user=pb.User(username=username, email=f"{username}@example.org"), password=PASSWORD
            )
        )
        for role, namespace in grants:
            await admin.GrantRole(pb.GrantRoleRequest(username=username, role=role, namespace=namespace))
        return await self.log_in(username) if log_in else self.stranger

    async def role(self, admin: Caller, name: str, *permissions: str) -> pb.Role:
        """Creates a role."""
        answer = await admin.CreateRole(
            pb.CreateRoleRequest(role=pb.Role(name=name, permissions=permissions))
        )
        role: pb.Role = answer.role
        return role

    async def namespace(self, name: str) -> int:
        """Inserts the row of a namespace, and of its cluster; returns the former's id."""
        async with self.database.system() as connection:
            await connection.execute(
                "INSERT INTO clusters (name, api_server) VALUES ('local', 'https://127.0.0.1') "
                "ON CONFLICT DO NOTHING"
            )
            found: int = await connection.fetchval(
                "INSERT INTO namespaces (name, kubernetes_name, cluster_name) VALUES ($1, $1, 'local') "
                "RETURNING id",
                name,
            )
            return found


def settings_of(database: Database, **changes: Any) -> Settings:
    """Returns settings of a server on this database, with small pools."""
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "reflection": False,
        "database_url": database.app_dsn,
        "system_database_url": database.system_dsn,
        "maintenance_database_url": database.maintenance_dsn,
        "direct_database_url": database.system_dsn,
        "pool_idle_connections": 4,
        "pool_open_connections": 12,
        # The value of `tests.harness`.
        "pool_working_connections": 2,
    }
    return Settings(**(values | changes))


@asynccontextmanager
async def running(database: Database, **changes: Any) -> AsyncIterator[IdentityServer]:
    """Runs a server on this database; `issuers` replaces those of the settings' file."""
    issuers: TrustedIssuers | None = changes.pop("issuers", None)
    limits, changes = limits_of(changes)
    settings = settings_of(database, **changes)
    engines = Engines.connect(settings)
    store = Store(engines)
    passwords = Passwords()
    await bootstrap(store, NewPasswords(passwords, settings), ADMIN_PASSWORD)
    authenticator = TokenAuthenticator.of(store, settings)
    hub = Hub(16)
    feed = Feed(store, hub)
    feed.on_grants_changed = authenticator.invalidate
    writer = AuditWriter(store)
    key = bytes(32)
    trusted = trusted_peers(settings.trusted_proxies)
    ring = KeyRing([key])
    watches = WatchServer(feed, hub, ring.derive("resume-token"), named_namespace)
    issuers = issuers or TrustedIssuers.load(settings, Reach(LOOPBACK))
    envelopes = Envelopes(ring)
    await rotation.begin(store, envelopes, SEALED)
    services = identity_services(
        IdentityDependencies(
            store,
            settings,
            passwords,
            ring,
            envelopes,
            KNOWN,
            RULES.values(),
            watches,
            issuers,
            limits.wait_seconds,
        )
    )
    rules, handlers = rules_and_handlers({SERVICE: services})
    audit = AuditLayer(writer, IdempotencyKeeper(key), authenticator.namespace_id)
    layers = standard_layers(audit, AuthorizationLayer(authenticator, RefusalReasons(store)))
    pipeline = Pipeline(
        rules,
        handlers,
        layers,
        store,
        authenticator,
        admission=CallAdmission(limits),
        trusted_proxies=trusted,
    )
    server = build(settings, pipeline, rules, [SERVICE])
    port = server.bind()
    tasks = [asyncio.create_task(feed.run()), asyncio.create_task(writer.run())]
    try:
        await feed.started()
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = identity_pb2_grpc.IdentityServiceStub(channel)
            address = f"127.0.0.1:{port}"
            yield IdentityServer(
                database, store, passwords, stub, audit, address, pipeline.admission, **changes
            )
    finally:
        await server.stop(1.0)
        await cancel_and_wait(*tasks)
        await writer.close()
        await authenticator.close()
        passwords.close()
        await issuers.close()
        await engines.close()


async def refused(caller: Caller, rpc: str, request: object) -> Refused:
    """Returns how a call is refused, and fails if it is not."""
    with pytest.raises(Refused) as caught:
        await getattr(caller, rpc)(request)
    return caught.value


async def heard_until_limited(attempt: Callable[[], Awaitable[str]]) -> set[str]:
    """Returns the outcomes of an attempt, repeated until its budget is used up.

    A budget regains two attempts a second. One attempt takes longer on a slow machine, so many run at the
    same time.
    """
    heard: set[str] = set()
    async with within(20.0):
        while "LOGIN_LIMITED" not in heard:
            heard |= set(await asyncio.gather(*(attempt() for _ in range(16))))
    return heard


async def valid(caller: Caller) -> bool:
    """Returns whether the caller's token is accepted."""
    try:
        await caller.WhoAmI(pb.WhoAmIRequest())
    except Refused as refusal:
        if refusal.code != "UNAUTHENTICATED":
            raise
        return False
    return True


async def ended(caller: Caller) -> bool:
    """Returns whether the caller's token is refused."""
    return not await valid(caller)
