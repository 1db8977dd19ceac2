"""Promise 7: values that are declared secret appear nowhere.

A server in its own process, logging at DEBUG, uses its own PostgreSQL, which logs every statement with its parameters.
Marked values go through every secret field of every method that reflection shows, in valid, malformed, denied and
replayed requests. Then everything that was written is searched: both logs, statement statistics, every row of every
table, and every error. Secrets that the server itself issues (tokens, keys) are searched for as well. The positive
control sends a mark through a public field: the same search must find it in each of these places.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc.aio
import pytest
import yaml
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.identity.v1 import identity_pb2, second_factor_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import AsyncClient, PilothouseError
from pilothouse_migrations import runner
from pilothouse_migrations.databases import ensure_database
from pilothouse_migrations.roles import STATISTICS_SCHEMA, ensure_roles
from pilothouse_server.encryption.hsm.token import PkcsToken, TokenLocation
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.rpc.field_checks import descriptor_of
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_simulator import SimulatedCluster
from tests.config.canaries import MARK, forms, found_in, put, secret_paths, secrets_of
from tests.config.hsm import LIBRARY, PIN, make_token, needs_softhsm
from tests.conftest import Database, addresses, connection
from tests.identity.factors import authenticator_code
from tests.promises.calling import Caller, Outcome, served
from tests.promises.requests import REQUESTS, request_for
from tests.waiting import patient, poll_until

NAME = "canaries"
CONTROL = "Public9ControlV2k"
TALKATIVE = {
    "fsync": "off",
    "log_statement": "all",
    "log_min_duration_statement": "0",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_error_verbosity": "verbose",
    "pg_stat_statements.track": "all",
}


class Sent:
    """The secrets that were sent and issued, and the errors that came back."""

    def __init__(self) -> None:
        self.marks: list[str] = []
        self.handed_out: set[str] = set()
        self.errors: list[str] = []

    def mark(self) -> str:
        """Returns a new marked value that is a valid password."""
        self.marks.append(f"{MARK}{len(self.marks):05d}Ab-9!")
        return self.marks[-1]

    def came_back(self, rule: Rule, outcome: Outcome) -> None:
        self.errors.append(f"{rule.name}: {outcome.shown} {outcome.details}")
        for answer in outcome.answers:
            texts = set(secrets_of(answer))
            # Only RevealSecret returns our secrets; other secret values were made by the server.
            if rule.name != "RevealSecret":
                self.handed_out |= texts
                assert not found_in(answer.SerializeToString(), [MARK]), rule.name


@asynccontextmanager
async def server_process(
    database: Database, cluster: SimulatedCluster, directory: Path, password: str, keys: Mapping[str, str]
) -> AsyncIterator[tuple[str, Path]]:
    """Runs `pilothouse serve` at DEBUG; yields its address and the file of its output.

    `keys` are environment variables.
    """
    kubeconfig, log = directory / "kubeconfig.yaml", directory / "server.log"
    kubeconfig.write_text(yaml.safe_dump(cluster.kubeconfig()))
    settings = {
        "LISTEN": "127.0.0.1:0",
        "DATA_DIR": str(directory / "data"),
        "DATABASE_URL": database.app_dsn,
        "SYSTEM_DATABASE_URL": database.system_dsn,
        "MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
        "KUBECONFIG": str(kubeconfig),
        "LOG_LEVEL": "DEBUG",
        "BOOTSTRAP_PASSWORD": password,
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PILOTHOUSE_")}
    environment |= {f"PILOTHOUSE_{name}": value for name, value in settings.items()} | dict(keys)
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pilothouse_client", "serve", env=environment, stdout=file, stderr=file
        )
    try:

        async def address() -> str:
            assert process.returncode is None, log.read_text()
            _, found, rest = log.read_text().partition("serves gRPC on ")
            return rest.split()[0] if found and "\n" in rest else ""

        yield await poll_until(address, seconds=30, what="the server serves"), log
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), patient(30))


async def everything(database: Database, postgres: EmbeddedPostgres, log: Path) -> dict[str, bytes]:
    """Returns everything that was written, by place: logs, statistics, and every row of every table as text."""
    places = {"server log": log.read_bytes(), "postgresql log": postgres.log_path.read_bytes()}
    async with connection(database.admin_dsn) as admin:
        statements = await admin.fetch(f"SELECT query FROM {STATISTICS_SCHEMA}.pg_stat_statements")
        places["pg_stat_statements"] = "\n".join(row["query"] for row in statements).encode()
        tables = await admin.fetch(
            "SELECT c.oid::regclass::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'm') AND n.nspname = 'public'"
        )
        for table in tables:
            rows = await admin.fetch(f"SELECT t::text AS row FROM {table['name']} AS t")
            places[f"table {table['name']}"] = "\n".join(row["row"] for row in rows).encode()
    return places


async def valid_uses(client: AsyncClient, sent: Sent) -> None:
    """Makes the usual calls with secrets."""
    identity, config = client.identity, client.config
    password, newer, newest = sent.mark(), sent.mark(), sent.mark()
    user = identity_pb2.User(username="carol", email="carol@example.org")
    await identity.create_user(user=user, password=password, request_id=str(uuid4()))
    async with AsyncClient(client.address, username="carol", password=password) as carol:
        await carol.identity.change_password(current_password=password, new_password=newer)
    await identity.reset_password(username="carol", new_password=newest)
    await second_factors(client, newest, sent)
    await client.namespaces.create(namespace=namespace_pb2.Namespace(name="own"))
    secret = config_pb2.Secret(
        name="app", data={"bytes": sent.mark().encode()}, string_data={"text": sent.mark()}
    )
    identifier = str(uuid4())
    for _ in range(2):
        await config.create_secret(namespace="own", secret=secret, request_id=identifier)
    await config.update_secret(
        namespace="own",
        name="app",
        secret=config_pb2.Secret(string_data={"text": sent.mark()}),
        update_mask=FieldMask(paths=["string_data"]),
        request_id=str(uuid4()),
    )
    revealed = await config.reveal_secret(namespace="own", name="app")
    assert found_in(revealed.data["text"], [MARK])
    await config.rotate_keys()

    async def applied() -> bool:
        return not (await config.get_secret(namespace="own", name="app")).reconciling

    await poll_until(applied, what="the secret on the cluster")
    # The control: a public field in a call of the same kind.
    shown = config_pb2.ConfigMap(name=CONTROL.lower(), data={"text": CONTROL})
    await config.create_config_map(namespace="own", config_map=shown)


async def second_factors(client: AsyncClient, password: str, sent: Sent) -> None:
    """Uses an authenticator, its codes and a one-time code: secrets that the server makes and shows once."""
    made, own = AsyncClient(client.address, username="carol", password=password), sent.mark()
    async with made as carol:
        enrolled = await carol.identity.enrol_totp.send(second_factor_pb2.EnrolTotpRequest())
        seed = base64.b32decode(enrolled.secret)
        codes = await carol.identity.confirm_totp.send(
            second_factor_pb2.ConfirmTotpRequest(code=authenticator_code(seed, time.time()))
        )
    reset = await client.identity.reset_password(username="carol", one_time_code=True)
    async with AsyncClient(client.address) as carol:
        challenge = await carol.login("carol", reset.one_time_code)
        shown = {"recovery_code": codes.recovery_codes[0], "new_password": own}
        done = await carol.complete_login("carol", challenge.challenge, **shown)
    for answer in (enrolled, codes, reset, challenge, done):
        found = set(secrets_of(answer))
        assert found
        sent.handed_out |= found
    sent.handed_out.add(seed.hex())
    # A code is also valid without its hyphens.
    sent.handed_out |= {code.replace("-", "") for code in codes.recovery_codes}


async def through_every_field(rules: dict[str, Rule], callers: list[Caller], sent: Sent) -> int:
    """Sends a mark in every secret field of every method, in valid and in invalid requests.

    Returns the number of secret fields.
    """
    paths = 0
    for rule in rules.values():
        for path in secret_paths(descriptor_of(rule.request_class)):
            paths += 1
            for number, caller in enumerate(callers):
                for request in (*_requests(rule, path, sent), *_broken_bodies(rule, path, sent)):
                    if number and not isinstance(request, bytes):
                        # A user without the permission is refused whatever the request contains: one request is enough.
                        sent.came_back(rule, await caller.invoke(rule, request, timeout=patient(10)))
                        break
                    sent.came_back(rule, await caller.invoke(rule, request, timeout=patient(10)))
    return paths


def _requests(rule: Rule, path: Any, sent: Sent) -> list[Any]:
    made = []
    for value, key in (
        (sent.mark(), "key"),
        (sent.mark() * 100_000, "key"),
        (f"{sent.mark()}\0", "key"),
        ("short", sent.mark()),
        ("short", f"{sent.mark()}/../x"),
    ):
        request = request_for(rule, REQUESTS.get(rule.name, {}))
        put(request, path, value, key=key)
        made.append(request)
    for field in ("name", "namespace", "username", "request_id"):
        if field not in rule.request_class.DESCRIPTOR.fields_by_name:
            continue
        request = request_for(rule, REQUESTS.get(rule.name, {}))
        put(request, path, sent.mark())
        if isinstance(getattr(request, field), str):
            setattr(request, field, "not/a../name")
            made.append(request)
    if "request_id" in rule.request_class.DESCRIPTOR.fields_by_name:
        identifier = str(uuid4())
        for _ in range(2):
            request = request_for(rule, REQUESTS.get(rule.name, {}))
            put(request, path, sent.mark())
            request.request_id = identifier
            made.append(request)
    return made


def _broken_bodies(rule: Rule, path: Any, sent: Sent) -> list[bytes]:
    request = rule.request_class()
    put(request, path, sent.mark())
    body = request.SerializeToString()
    return [body[:-1], body + b"\xff", b"\x08" + body]


@pytest.mark.full(minutes=3)
async def test_values_declared_secret_appear_nowhere(tmp_path: Path) -> None:
    assert await leaks(tmp_path, {}) == {}


@pytest.mark.full(minutes=3)
@needs_softhsm
async def test_secrets_appear_nowhere_with_keys_in_a_token_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await make_token(tmp_path / "hsm")
    for name, value in token.environment.items():
        monkeypatch.setenv(name, value)
    opened = PkcsToken(
        TokenLocation(LIBRARY or Path(), token.label, PIN, "pilothouse", patient(5.0), writes=True)
    )
    try:
        await opened.add()
    finally:
        await opened.close()
    # The PIN contains the mark; the master key is searched for in its hexadecimal form.
    master = os.urandom(32)
    variables = token.variables("pkcs11,environment") | {"PILOTHOUSE_SECRET_KEYS": master.hex()}
    # Malformed and denied calls use no key, so the usual calls are enough here.
    assert await leaks(tmp_path, variables, {master.hex()}, every_field=False) == {}


async def leaks(
    tmp_path: Path,
    keys: Mapping[str, str],
    secrets: Collection[str] = frozenset(),
    *,
    every_field: bool = True,
) -> dict[str, list[str]]:
    """Returns the places where secrets appear: those that were sent to a server, and further `secrets`.

    `keys` are environment variables of the server.
    """
    postgres = EmbeddedPostgres(tmp_path / "postgres", settings=TALKATIVE)
    await postgres.start()
    try:
        await ensure_database(postgres.dsn(), NAME)
        database = addresses(postgres, NAME)
        await ensure_roles(database.admin_dsn)
        await runner.upgrade(database.maintenance_dsn)
        async with SimulatedCluster(speed=10) as cluster:
            sent, places, address = await _everything_sent(
                postgres, database, cluster, tmp_path, keys, every_field=every_field
            )
    finally:
        await postgres.stop()

    sent.handed_out |= set(secrets)
    # The control: the same search finds the public mark in every place where it may be.
    control = {where for where, content in places.items() if found_in(content, [CONTROL, CONTROL.lower()])}
    partitions = {"table operation_logs" if "operation_logs" in where else where for where in control}
    expected = {"postgresql log", "pg_stat_statements", "errors", "table config_maps", "table operation_logs"}
    assert expected <= partitions
    assert any(where.startswith("table events") for where in control)
    assert address.encode() in places["server log"]
    # Tokens were issued and searched for; idempotency rows were stored and searched.
    assert len(sent.handed_out) >= 4
    assert places["table idempotency_keys"]
    found = {where: found_in(content, [MARK, *sent.handed_out]) for where, content in places.items()}
    return {where: texts for where, texts in found.items() if texts}


async def _everything_sent(
    postgres: EmbeddedPostgres,
    database: Database,
    cluster: SimulatedCluster,
    directory: Path,
    keys: Mapping[str, str],
    *,
    every_field: bool,
) -> tuple[Sent, dict[str, bytes], str]:
    """Sends everything; returns the sent values, all written bytes, and the server's address."""
    sent = Sent()
    password = sent.mark()
    async with server_process(database, cluster, directory, password, keys) as (address, log):
        async with (
            AsyncClient(address, username="admin", password=password) as client,
            grpc.aio.insecure_channel(address) as channel,
        ):
            await valid_uses(client, sent)
            rules = await served(channel)
            stranger = Caller(channel)
            login = rules["/pilothouse.identity.v1.IdentityService/Login"]
            tokens = []
            for _ in range(2):
                answer = await stranger.invoke(
                    login, identity_pb2.LoginRequest(username="admin", password=password)
                )
                sent.came_back(login, answer)
                tokens.append(answer.answer.access_token)
            callers = [Caller(channel, tokens[0]), stranger, Caller(channel, sent.mark())]
            if every_field:
                assert await through_every_field(rules, callers, sent) > 10
            try:
                await client.config.get_secret(namespace="own", name=CONTROL.lower())
            except PilothouseError as error:
                sent.errors.append(str(error))
        async with connection(database.admin_dsn) as admin:
            await admin.execute(f"SELECT 1 /* {CONTROL} */")
    places = await everything(database, postgres, log)
    places["errors"] = "\n".join(sent.errors).encode()

    return sent, places, address


def test_the_search_finds_every_form() -> None:
    secret = f"{MARK}00000Ab-9!"
    for number, form in enumerate(forms(secret)):
        assert found_in(b'{"x": "' + form + b'"}', [secret]), number
    for beside in ("", "a", "ab", "abc"):
        encoded = base64.b64encode(f"{beside}{secret}{beside}".encode())
        assert found_in(encoded, [secret])
        assert found_in(encoded, [MARK])
    assert found_in(b"before " + MARK.encode() + b" after", [MARK])
    assert found_in((b"\x0a\x10" + secret.encode()).hex().encode(), [MARK])
    assert not found_in(b"nothing of the kind", [MARK, secret])
