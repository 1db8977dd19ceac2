"""A client certificate authenticates a user.

It does so while it is valid and the user may log in.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict

from pilothouse.identity.v1 import api_keys_pb2 as keys_pb
from pilothouse.identity.v1 import identity_pb2, identity_pb2_grpc
from pilothouse.namespace.v1.namespace_pb2 import Namespace
from pilothouse_client import AsyncClient, PilothouseError, RetryPolicy, Tls, UnavailableError
from pilothouse_client.handshake import find_problem
from pilothouse_client.target import Target
from pilothouse_server.errors import Unauthenticated
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from tests.client.certificates import made, revoked_list
from tests.conftest import Database, new_database
from tests.tls.environment import CI, Environment, environment
from tests.tls.serving import fingerprint, replace, token_of_admin
from tests.waiting import poll_until, within

_ONCE = RetryPolicy(attempts=1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def here(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Environment]:
    """Yields a server that most tests share; they do not change `ci-bot`."""
    folder = tmp_path_factory.mktemp("certificates")
    async with (
        new_database(postgres, template_database.name) as database,
        environment(database, folder, trusted_proxies="127.0.0.1") as made_environment,
    ):
        yield made_environment


async def refused(call: Coroutine[Any, Any, object]) -> tuple[str, str]:
    """Returns the code and the reason with which a call is refused."""
    with pytest.raises(PilothouseError) as caught:
        await call
    return caught.value.code.name, caught.value.reason


async def comes_to(look: Callable[[], Coroutine[Any, Any, object]], reason: str) -> None:
    """Waits until calls are refused with this reason, at most the documented second."""

    async def looked() -> str:
        try:
            await look()
        except PilothouseError as error:
            return error.reason
        return ""

    await poll_until(looked, reason.__eq__, seconds=1.0, what=reason)


async def who(client: AsyncClient) -> str:
    return (await client.identity.who_am_i()).user.username


async def test_a_certificate_authenticates_its_user_and_a_token_has_precedence(here: Environment) -> None:
    own = here.signed(CI)
    answer = await here.client(own).identity.who_am_i()
    assert (answer.user.username, answer.certificate.name) == ("ci-bot", f"uri:{CI}")
    assert answer.certificate.fingerprint == fingerprint(own)
    assert not (await here.server.admin.identity.who_am_i()).HasField("certificate")
    assert await who(here.client(here.signed("x.example.com", "spiffe://example.org/ns/shop/x"))) == "shop"
    # The client sends a certificate chain with an intermediate authority, which the known authority has
    # signed.
    below = made("below", by=here.authority, authority=True)
    leaf = made(CI, by=below)
    chain = Tls(here.files.authority.pem, leaf.pem + below.pem, leaf.key_pem)
    async with AsyncClient(here.address, tls=chain, retry=_ONCE) as client:
        assert await who(client) == "ci-bot"
    token = await token_of_admin(here.server, here.files)
    assert await who(here.client(here.signed(CI), token=token)) == "admin"
    assert await refused(who(here.client(here.signed(CI), token=token + "x"))) == (
        "UNAUTHENTICATED",
        "INVALID_TOKEN",
    )
    # The other port does not request certificates, and accepts none instead of a token.
    plain = AsyncClient(here.server.address, tls=here.tls(here.signed(CI)), retry=_ONCE)
    here.clients.append(plain)
    assert await refused(who(plain)) == ("UNAUTHENTICATED", "NO_TOKEN")
    # The audit log names the user as the actor of the calls, with the certificate.
    await here.client(here.signed(CI)).namespaces.create(namespace=Namespace(name="made-by-ci"))
    # A service account of that namespace is authenticated in the same way until it is deleted.
    identity = here.server.admin.identity
    account = keys_pb.ServiceAccount(name="deployer")
    await identity.create_service_account(namespace="made-by-ci", service_account=account)
    deployer = here.client(here.signed("deployer.example.com"))
    assert await who(deployer) == "sa:made-by-ci:deployer"
    await identity.delete_service_account(namespace="made-by-ci", name="deployer")
    await comes_to(lambda: who(deployer), "CERTIFICATE_USER")
    records = [each async for each in here.server.admin.audit.list_operations(filter='username = "ci-bot"')]
    created = next(each for each in records if each.action == "create")
    shown = MessageToDict(created.metadata)["credential"]
    assert (shown["kind"], shown["name"]) == ("certificate", f"uri:{CI}")
    assert shown["id"].startswith("SHA256:")


async def test_each_refused_certificate_has_its_reason(here: Environment) -> None:
    for own, reason in (
        (here.signed("other.example.com"), "CERTIFICATE_UNMAPPED"),
        (here.signed(), "CERTIFICATE_UNMAPPED"),
        (here.signed("spiffe://example.org/ns/shop-of-others/x"), "CERTIFICATE_UNMAPPED"),
        (here.signed("spiffe://other.example/ns/shop/sa/ci"), "CERTIFICATE_UNMAPPED"),
        (here.signed("gone.example.com"), "CERTIFICATE_USER"),
        (here.signed("anna@example.net"), "CERTIFICATE_USER"),
    ):
        assert await refused(who(here.client(own))) == ("UNAUTHENTICATED", reason)
    # A deactivated user is refused like a user that does not exist.
    client, opened = here.client(here.signed("leaver.example.com")), asyncio.Event()

    async def watch() -> None:
        async for _ in client.namespaces.watch():
            opened.set()

    stream = asyncio.create_task(refused(watch()))
    async with within(10.0):
        await opened.wait()
    await here.server.admin.identity.update_user(
        username="leaver",
        user=identity_pb2.User(status=identity_pb2.USER_STATUS_INACTIVE),
        update_mask=FieldMask(paths=["status"]),
    )
    await comes_to(lambda: who(client), "CERTIFICATE_USER")
    async with within(5.0):
        assert await stream == ("UNAUTHENTICATED", "CERTIFICATE_USER")
    # Clients with these certificates fail during the TLS handshake.
    strange = made("strange", authority=True)
    for own in (
        made(CI, by=strange),
        made(CI),
        here.signed(CI, days=(-2, -1)),
        here.signed(CI, days=(1, 2)),
    ):
        with pytest.raises(UnavailableError) as error:
            await who(here.client(own))
        assert error.value.connection_problem == "CLIENT_CERTIFICATE_REFUSED"
    async with AsyncClient(here.address, tls=here.files.tls, retry=_ONCE) as nobody:
        with pytest.raises(UnavailableError) as error:
            await who(nobody)
        assert error.value.connection_problem == "CLIENT_CERTIFICATE_NEEDED"


async def test_a_momentary_connection_failure_is_not_reported_as_a_refusal(here: Environment) -> None:
    """The client probes the server after the failure.

    By then the server may already accept its certificate.
    """
    for own, problem in ((here.signed(CI), None), (made(CI), "CLIENT_CERTIFICATE_REFUSED")):
        found = await asyncio.to_thread(find_problem, Target(here.address, here.tls(own)))
        assert (found.problem if found else None) == problem


async def test_the_size_of_a_certificate_chain_is_limited(here: Environment) -> None:
    """The chain is stored while a stream is open.

    The holder of one valid certificate may send any chain with it.
    """
    own, others = here.signed(CI), [made("x", authority=True) for _ in range(60)]
    tls = Tls(here.files.authority.pem, own.pem + others[0].pem + others[1].pem, own.key_pem)
    async with AsyncClient(here.address, tls=tls, retry=_ONCE) as client:
        assert await who(client) == "ci-bot"
    # A chain that is within gRPC's limit but above the server's.
    serving = here.server.application.tls
    assert serving is not None
    assert serving.clients is not None
    above = b"".join(each.pem for each in others)
    shown = serving.clients.shown("", lambda: {"x509_pem_cert": [own.pem], "x509_pem_cert_chain": [above]})
    assert isinstance(shown, bytes)
    assert len(shown) < len(above)
    with pytest.raises(Unauthenticated) as error:
        serving.clients.vouch(shown)
    assert error.value.reason == "CERTIFICATE_UNTRUSTED"
    assert serving.clients.vouch(own.pem).username == "ci-bot"
    # An unreadable certificate is not a server error: a name that is not UTF-8, bytes that are not a
    # certificate.
    lying = made("spoilt", by=made("spoilt", authority=True)).certificate.public_bytes(Encoding.DER)
    for spoilt in (lying.replace(b"pilothouse", b"\xff\xfe\xfd\xfcthouse"), b"rubbish"):
        for pem in (
            ssl.DER_cert_to_PEM_cert(spoilt).encode(),
            own.pem + ssl.DER_cert_to_PEM_cert(spoilt).encode(),
        ):
            with contextlib.suppress(Unauthenticated):
                assert serving.clients.vouch(pem).username == "ci-bot"


async def test_no_header_replaces_a_certificate(here: Environment) -> None:
    own = here.signed(CI)
    text = own.pem.decode().replace("\n", "%0A")
    credentials = here.files.tls.credentials()
    async with grpc.aio.secure_channel(here.server.address, credentials) as channel:
        stub: Any = identity_pb2_grpc.IdentityServiceStub(channel)
        for header in (
            ("x-forwarded-client-cert", f'Hash=1;URI={CI};Cert="{text}"'),
            ("ssl-client-cert", text),
            ("x-ssl-client-cert", text),
            ("x-client-cert", text),
            ("x509_pem_cert", text),
            ("authorization", f"Bearer {text}"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.WhoAmI(identity_pb2.WhoAmIRequest(), metadata=[header])
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.full
async def test_revocation_refuses_calls_and_ends_streams(database: Database, tmp_path: Path) -> None:
    authority = made("clients", authority=True)
    crl = tmp_path / "crl"
    crl.write_bytes(revoked_list(authority).public_bytes(Encoding.DER))
    (tmp_path / "own.pem").write_bytes(authority.pem)
    changes = {"tls_client_crl_file": crl, "tls_client_ca_file": tmp_path / "own.pem"}
    async with environment(database, tmp_path, **changes) as here:
        here.authority = authority
        own, other = here.signed(CI), here.signed(CI)
        client, token = here.client(own), await token_of_admin(here.server, here.files)
        by_token = here.client(own, token=token)
        assert (await who(client), await who(by_token)) == ("ci-bot", "admin")

        async def watch(watcher: AsyncClient) -> str:
            async for _ in watcher.namespaces.watch():
                opened.release()
            return ""

        opened = asyncio.Semaphore(0)
        streams = [asyncio.create_task(refused(watch(each))) for each in (client, by_token)]
        async with within(10.0):
            await opened.acquire()
            await opened.acquire()
        replace(crl, revoked_list(authority, own).public_bytes(Encoding.PEM))
        await comes_to(lambda: who(client), "CERTIFICATE_REVOKED")
        # The audit log names the refused certificate.
        refusals = here.server.admin.audit.list_operations(filter='error_code = "UNAUTHENTICATED"')
        assert fingerprint(own) in {
            MessageToDict(each.metadata).get("certificate") async for each in refusals
        }
        # A revoked certificate also blocks calls with a token on the same connection.
        await comes_to(lambda: who(by_token), "CERTIFICATE_REVOKED")
        async with within(5.0):
            assert await asyncio.gather(*streams) == [("UNAUTHENTICATED", "CERTIFICATE_REVOKED")] * 2
        assert await who(here.client(other)) == "ci-bot"
        # A truncated CRL changes nothing. An expired CRL is treated as missing.
        replace(crl, revoked_list(authority, own).public_bytes(Encoding.PEM)[:200])
        assert await refused(who(client)) == ("UNAUTHENTICATED", "CERTIFICATE_REVOKED")
        assert await who(here.client(other)) == "ci-bot"
        replace(crl, revoked_list(authority, days=(-2, -1)).public_bytes(Encoding.DER))
        await comes_to(lambda: who(here.client(other)), "REVOCATION_UNKNOWN")
        assert await who(here.server.admin) == "admin"
        replace(crl, revoked_list(authority).public_bytes(Encoding.DER))
        await poll_until(lambda: _is("ci-bot", client))
        # Removing an authority invalidates its certificates, also on open connections.
        another = made("another", authority=True)
        replace(crl, revoked_list(another).public_bytes(Encoding.DER))
        replace(tmp_path / "own.pem", another.pem)
        await comes_to(lambda: who(client), "CERTIFICATE_UNTRUSTED")


async def _is(name: str, client: AsyncClient) -> bool:
    try:
        return await who(client) == name
    except PilothouseError:
        return False


async def test_an_expired_certificate_ends_its_streams(here: Environment) -> None:
    client, opened = here.client(here.signed(CI, days=(-1, 1))), asyncio.Event()

    async def watch() -> None:
        async for _ in client.namespaces.watch():
            opened.set()

    stream = asyncio.create_task(refused(watch()))
    async with within(10.0):
        await opened.wait()
    serving = here.server.application.tls
    assert serving is not None
    assert serving.clients is not None
    clock = serving.clients.clock
    serving.clients.clock = lambda: datetime.now(UTC) + timedelta(days=1, seconds=1)
    try:
        assert await refused(who(client)) == ("UNAUTHENTICATED", "CERTIFICATE_EXPIRED")
        async with within(5.0):
            assert await stream == ("UNAUTHENTICATED", "CERTIFICATE_EXPIRED")
    finally:
        serving.clients.clock = clock
