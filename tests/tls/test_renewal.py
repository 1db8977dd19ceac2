"""A certificate is renewed while the server runs.

New connections get the new certificate, and open ones continue.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import structlog.testing
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from pilothouse.identity.v1 import identity_pb2, identity_pb2_grpc
from pilothouse.namespace.v1.namespace_pb2 import Namespace
from pilothouse_client import ChangeKind, RetryPolicy
from pilothouse_server.rpc.tls import pair
from pilothouse_server.rpc.tls.expiry import Expiry
from pilothouse_server.rpc.tls.files import Reloaded
from pilothouse_server.rpc.tls.serving import Serving
from pilothouse_server.settings.model import SettingsError
from tests.client.certificates import made
from tests.conftest import Database
from tests.tls.serving import Files, fingerprint, metric, replace, serving_tls, shown, token_of_admin
from tests.waiting import patient, poll_until, within

_RELOADS, _REFUSED = "pilothouse_tls_reloads_total", "pilothouse_tls_files_refused"
_EXPIRY = "pilothouse_tls_expiry_timestamp_seconds"
_ONCE = RetryPolicy(attempts=1)
# The client's own channel gives a handshake a tenth of a second, and tries again.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]


@pytest.mark.full
async def test_renewals_under_load_fail_no_calls(database: Database, tmp_path: Path) -> None:
    async with serving_tls(database, tmp_path) as (server, files):
        before = metric(_RELOADS)
        ended = asyncio.Event()
        names: asyncio.Queue[str] = asyncio.Queue()
        connections = 0

        async def watch() -> None:
            # Attempts are not retried: a stream that is cut fails the test.
            async for change in server.admin.with_options(retry=_ONCE).namespaces.watch():
                if change.kind is ChangeKind.ADDED:
                    names.put_nowait(change.resource.name)

        async def call_again_and_again() -> None:
            """Sends each call on its own connection with a handshake, without retries."""
            nonlocal connections
            token = await token_of_admin(server, files)
            credentials = files.tls.credentials()
            while not ended.is_set():
                async with grpc.aio.secure_channel(server.address, credentials, _OWN_CONNECTION) as channel:
                    stub: Any = identity_pb2_grpc.IdentityServiceStub(channel)
                    metadata = [("authorization", f"Bearer {token}")]
                    answer = await stub.WhoAmI(identity_pb2.WhoAmIRequest(), metadata=metadata)
                    assert answer.user.username == "admin"
                connections += 1

        async with within(60.0), asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            callers = [group.create_task(call_again_and_again()) for _ in range(4)]
            renewed = None
            for number in range(5):
                renewed, so_far = files.renew(), connections
                await poll_until(lambda: shown(server.address), renewed.certificate.serial_number.__eq__)
                await poll_until(_later(lambda: connections), (so_far + 4).__le__)
                await server.admin.namespaces.create(namespace=Namespace(name=f"after-{number}"))
                while await names.get() != f"after-{number}":
                    pass
            ended.set()
            await asyncio.wait(callers)
            watching.cancel()
        assert metric(_RELOADS) == before + 5
        assert renewed is not None
        assert metric(_EXPIRY) == renewed.certificate.not_valid_after_utc.timestamp()


def _later(look: Callable[[], float]) -> Callable[[], Awaitable[int]]:
    async def looked() -> int:
        return int(look())

    return looked


async def test_a_mismatched_pair_is_reported_and_not_loaded(database: Database, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        async with serving_tls(database, tmp_path) as (server, files):
            served = await shown(server.address)
            other = made("127.0.0.1", by=files.authority)
            for path, content in (
                # The certificate of another key, half a certificate, an empty file.
                (files.certificate, other.pem),
                (files.certificate, other.pem[: len(other.pem) // 2]),
                (files.certificate, b""),
            ):
                told = len(_refusals(lines))
                replace(path, content)
                await poll_until(_later(lambda: len(_refusals(lines))), (told + 1).__le__)
                assert await shown(server.address) == served
                assert metric(_REFUSED) == 1
            files.certificate.unlink()
            told = len(_refusals(lines))
            await poll_until(_later(lambda: len(_refusals(lines))), told.__le__)
            assert await shown(server.address) == served
            # The matching key is written.
            replace(files.certificate, other.pem)
            replace(files.key, other.key_pem)
            await poll_until(lambda: shown(server.address), other.certificate.serial_number.__eq__)
            await poll_until(_later(lambda: int(metric(_REFUSED))), (0).__eq__)
            assert (await server.admin.identity.who_am_i()).user.username == "admin"
    assert [line["fingerprint"] for line in lines if line["event"] == "the certificate was renewed"] == [
        fingerprint(other)
    ]
    assert all("PILOTHOUSE_TLS_CERTIFICATE_FILE" in line["why"] for line in _refusals(lines))
    # The content of a file appears in no log line.
    assert not any("BEGIN" in str(line) for line in lines)


def _refusals(lines: Sequence[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    return [line for line in lines if "cannot be used" in line["event"]]


def test_a_key_that_grpc_cannot_use_is_refused(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    good = made("localhost")
    certificate.write_bytes(good.pem)
    key.write_bytes(good.key_pem)
    assert pair.load(certificate, key).fingerprint == fingerprint(good)
    encrypted = good.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"a password"),
    )
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content in (encrypted, other, b"", good.pem, made("localhost").key_pem):
        key.write_bytes(content)
        with pytest.raises(SettingsError, match="are not a certificate and its private key"):
            pair.load(certificate, key)
    key.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(SettingsError, match=r"TLS_KEY_FILE: .* is longer than 1048576 bytes"):
        pair.load(certificate, key)


def test_expiry_is_reported_in_advance_and_once_a_day(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_bytes((issued := made("localhost", days=(-60, 30))).pem)
    (tmp_path / "k.pem").write_bytes(issued.key_pem)
    files = (tmp_path / "c.pem", tmp_path / "k.pem")
    held = Reloaded("certificate", files, lambda: pair.load(*files)).value
    now, expiry = datetime.now(UTC), Expiry("certificate")

    def told(days: float) -> list[tuple[str, str]]:
        with structlog.testing.capture_logs() as lines:
            expiry.look(held, now + timedelta(days=days))
        return [(line["log_level"], line["event"]) for line in lines]

    soon = [("warning", "a TLS certificate or revocation list expires soon")]
    over = [("error", "a TLS certificate or revocation list has expired")]
    assert told(0) == told(15) == []
    assert told(16.1) == soon
    assert told(16.9) == []
    assert told(17.2) == soon
    assert told(30.1) == over
    assert told(30.5) == []
    assert told(31.2) == over
    assert metric(_EXPIRY) == held.not_after.timestamp()


@pytest.mark.full
async def test_a_stop_during_handshakes_and_renewals_finishes(tmp_path: Path) -> None:
    """gRPC requests the certificate from its own threads, under the interpreter's lock.

    So nothing may wait for these threads while it has the lock.
    """
    files = Files(tmp_path, made("servers", authority=True))
    files.renew()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    ended, port, handshakes, stops = threading.Event(), [0], [0], 0

    def connect_again_and_again() -> None:
        while not ended.is_set():
            with (
                suppress(OSError),
                # `wrap_socket` leaks a connected socket that its peer has already reset.
                context.wrap_socket(socket.socket()) as connecting,
            ):
                connecting.settimeout(patient(2.0))
                connecting.connect(("127.0.0.1", port[0]))
                handshakes[0] += 1

    threads = [threading.Thread(target=connect_again_and_again) for _ in range(8)]
    try:
        async with within(60.0):
            for number in range(8):
                serving, server = Serving(files.certificate, files.key), grpc.aio.server()
                port[0] = server.add_secure_port("127.0.0.1:0", serving.credentials())
                await server.start()
                if number == 0:
                    for thread in threads:
                        thread.start()
                so_far = handshakes[0]
                while handshakes[0] < so_far + 50:
                    files.renew()
                    await asyncio.to_thread(serving.look)
                await server.stop(0.1)
                stops += 1
    finally:
        ended.set()
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert stops == 8
