"""Sinks: the records that each kind receives, their order, and the treatment of an unreachable sink."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY

from pilothouse.audit.v1 import audit_pb2 as pb
from pilothouse_client import PilothouseError
from pilothouse_server.audit.sinks import runner
from pilothouse_server.audit.sinks.operations import signing_bytes
from pilothouse_server.audit.sinks.senders import SinkFailed
from pilothouse_server.audit.sinks.senders.syslog import SyslogSender
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.outbound import destinations
from tests.audit.receivers import blunt_receiver, http_receiver, self_signed, server_context, syslog_receiver
from tests.audit.rsyslog import needs_rsyslog, rsyslog
from tests.conftest import Database, connection, new_database
from tests.harness import Server, running_server
from tests.waiting import poll_until, runs_out

LOOPBACK = "127.0.0.0/8,::1/128"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(
    postgres: EmbeddedPostgres, template_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """Runs a server that may connect to this machine, and writes files into its own folder."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "sinks").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "_GAUGE_SECONDS", 0.2)
        patch.setattr(runner, "_LOOK_SECONDS", 0.1)
        async with (
            new_database(postgres, template_database.name) as database,
            running_server(
                database,
                folder,
                with_cluster=False,
                outbound_networks=LOOPBACK,
                audit_sink_dir=folder / "sinks",
            ) as made,
        ):
            yield made


@pytest_asyncio.fixture(loop_scope="session")
async def server(running: Server) -> AsyncIterator[Server]:
    """Yields that server, without sinks before and after the test."""
    yield running
    for name in await sinks(running):
        await running.admin.audit.delete_audit_sink(name=name)


async def add(server: Server, name: str, kind: str, address: str, **more: Any) -> pb.AuditSink:
    """Adds a sink; `more` contains fields of the sink, `credentials` and `start_after_sequence`."""
    request = {key: more.pop(key) for key in ("credentials", "start_after_sequence") if key in more}
    sink = pb.AuditSink(
        name=name, kind=pb.AuditSinkKind.Value(f"AUDIT_SINK_KIND_{kind}"), address=address, **more
    )
    return await server.admin.audit.create_audit_sink(audit_sink=sink, **request)


async def sinks(server: Server) -> dict[str, pb.AuditSink]:
    """Returns all sinks by name."""
    return {each.name: each async for each in server.admin.audit.list_audit_sinks()}


async def caught_up(server: Server, name: str) -> pb.AuditSink:
    """Returns the sink, once it has all records that existed at the call."""
    newest = await anext(aiter(server.admin.audit.list_operations(page_size=1, order_by="sequence desc")))

    async def sink() -> pb.AuditSink:
        return (await sinks(server))[name]

    return await poll_until(sink, lambda found: found.position >= newest.sequence, seconds=20)


async def at_rest(server: Server, name: str) -> None:
    """Waits until the sink has every record. It looks with SQL, because each call makes another record."""
    await caught_up(server, name)
    async with server.database.system() as sql:

        async def is_complete() -> bool:
            return bool(
                await sql.fetchval(
                    "SELECT s.position = h.audit_sequence AND NOT EXISTS (SELECT FROM pending_changes) "
                    "FROM audit_sinks AS s, stream_head AS h WHERE s.name = $1",
                    name,
                )
            )

        await poll_until(is_complete)


def numbers(lines: list[bytes]) -> list[int]:
    """Returns the sequences of OCSF events."""
    return [json.loads(line)["metadata"]["sequence"] for line in lines]


def is_whole(found: list[int]) -> bool:
    """Returns whether these sequences are the log from its beginning, without gaps."""
    return found == list(range(1, len(found) + 1)) and bool(found)


async def test_a_file_has_every_record_and_is_rotated(server: Server) -> None:
    folder = server.application.settings.audit_sink_dir
    assert folder is not None

    def files() -> list[Path]:
        """Returns the full files, oldest first, and the one being written."""
        return sorted(folder.iterdir(), key=lambda path: (path.name == "audit.jsonl", path.name))

    await add(server, "archive", "FILE", "audit.jsonl", rotate_bytes=20_000, keep_files=100)
    # A batch is never split: the batch with the first round's records may be in any file, but the second round begins a
    # new one.
    for _ in range(2):
        for _ in range(20):
            await server.admin.identity.who_am_i()
        await at_rest(server, "archive")
    assert len(files()) > 1
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files())
    assert is_whole(numbers([line for path in files() for line in path.read_bytes().splitlines()]))
    # A line that a kill cut off is not acknowledged, so it is removed.
    with (folder / "audit.jsonl").open("ab") as torn:
        torn.write(b'{"metadata": {"sequ')
    with pytest.raises(PilothouseError):
        await server.admin.namespaces.get(name="missing")

    # The refusal's record may be numbered only after the newest record was listed, so this waits for the file.
    async def is_mended() -> bool:
        try:
            return not any(path.read_bytes().endswith(b'"sequ') for path in files())
        except FileNotFoundError:
            return False  # a rotation has just renamed the file

    await poll_until(is_mended)
    await at_rest(server, "archive")
    assert is_whole(numbers([line for path in files() for line in path.read_bytes().splitlines()]))


async def test_a_receiver_gets_signed_batches_and_its_secrets_stay_secret(server: Server) -> None:
    async with http_receiver() as receiver:
        made = await add(
            server,
            "siem",
            "HTTP",
            f"{receiver.url}/intake",
            credentials=pb.AuditSinkCredentials(
                headers={"authorization": "Bearer canary"}, signing_key="canary-key"
            ),
        )
        assert "canary" not in str(made)
        await caught_up(server, "siem")
    lines = [line for posted in receiver.posted for line in posted.body.splitlines()]
    assert is_whole(numbers(lines))
    assert b"canary" not in b"".join(lines)
    for posted in receiver.posted:
        assert posted.path == "/intake"
        assert posted.headers["authorization"] == "Bearer canary"
        signed = (
            f"{posted.headers['webhook-id']}.{posted.headers['webhook-timestamp']}.".encode() + posted.body
        )
        digest = base64.b64encode(hmac.digest(b"canary-key", signed, "sha256")).decode()
        assert posted.headers["webhook-signature"] == f"v1,{digest}"
    async with server.database.system() as sql:
        row = await sql.fetchrow("SELECT * FROM audit_sinks")
        assert row is not None
        assert row["secrets"] is not None
        assert b"canary" not in str(dict(row)).encode()


SIGNING_KEYS = {
    "canary-key": b"canary-key",
    "whsec_" + base64.b64encode(b"canary: bytes of a key").decode(): b"canary: bytes of a key",
}


@pytest.mark.parametrize("key", SIGNING_KEYS)
def test_a_signing_key_is_decoded_as_standard_webhooks_specify(key: str) -> None:
    """Libraries of receivers remove `whsec_`, and decode the rest as base64."""
    assert signing_bytes(key) == SIGNING_KEYS[key]


async def test_a_signing_key_that_no_receiver_could_use_is_refused(server: Server) -> None:
    for key in ("whsec_not base64", "whsec_"):
        with pytest.raises(PilothouseError) as caught:
            await add(
                server,
                "siem",
                "HTTP",
                "https://siem.example.com",
                credentials=pb.AuditSinkCredentials(signing_key=key),
            )
        assert "credentials.signing_key" in str(caught.value.violations)


async def test_a_sink_cannot_begin_beyond_the_log(server: Server) -> None:
    """Otherwise the records until then would silently never be sent."""
    newest = await anext(aiter(server.admin.audit.list_operations(page_size=1, order_by="sequence desc")))
    with pytest.raises(PilothouseError) as caught:
        await add(
            server, "siem", "FILE", "late.jsonl", start_after_sequence=newest.sequence + 1000, required=True
        )
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert "start_after_sequence" in str(caught.value.violations)
    await add(server, "siem", "FILE", "late.jsonl", start_after_sequence=newest.sequence)


async def test_a_forged_record_beyond_the_end_moves_no_cursor(server: Server) -> None:
    """If it did, all records before it would never be sent.

    A forged duplicate does not stop a sink either.
    """
    folder = server.application.settings.audit_sink_dir
    assert folder is not None
    copy = (
        "INSERT INTO operation_logs SELECT (jsonb_populate_record(l, jsonb_build_object('id', $1::bigint, "
        "'sequence', l.sequence + $2::bigint, 'started_at', l.started_at + interval '1 second'))).* "
        "FROM operation_logs AS l WHERE l.sequence = 3"
    )

    async def sink() -> pb.AuditSink:
        return (await sinks(server))["siem"]

    async with connection(server.database.admin_dsn) as sql:
        await sql.execute(copy, 10**9, 10**6)
        await sql.execute(copy, 10**9 + 1, 0)
        try:
            await add(server, "siem", "FILE", "beyond.jsonl")
            newest = await sql.fetchval("SELECT audit_sequence FROM stream_head")
            found = await poll_until(sink, lambda found: found.position >= newest, seconds=20)
            assert found.position < 10**6
        finally:
            await sql.execute("DELETE FROM operation_logs WHERE id >= 1000000000")
        await server.admin.identity.who_am_i()
        found = await caught_up(server, "siem")
        assert found.skipped_records == 0
        assert is_whole(sorted(set(numbers((folder / "beyond.jsonl").read_bytes().splitlines()))))
        # A sink whose cursor is beyond the log anyway is reported.
        await sql.execute(
            "UPDATE audit_sinks SET position = position + 1000, lease_owner = NULL, leased_until = NULL, "
            "lease_epoch = lease_epoch + 1"
        )

        failing = await poll_until(
            sink, lambda found: found.status == pb.AUDIT_SINK_STATUS_FAILING, seconds=40
        )
        assert failing.reason == "BEYOND_THE_LOG"


async def test_cloudevents_are_sent_in_batches(server: Server) -> None:
    async with http_receiver() as receiver:
        await add(server, "siem", "HTTP", receiver.url, format=pb.AUDIT_SINK_FORMAT_CLOUDEVENTS)
        await caught_up(server, "siem")
    assert all(
        posted.headers["content-type"] == "application/cloudevents-batch+json" for posted in receiver.posted
    )
    assert is_whole(
        [event["data"]["sequence"] for posted in receiver.posted for event in json.loads(posted.body)]
    )


@pytest.mark.usefixtures("no_finalizers")
async def test_a_collector_gets_log_records_and_its_rejections_are_reported(server: Server) -> None:
    async with http_receiver() as receiver:
        receiver.answer = b'{"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "canary"}}'
        await add(server, "otel", "OTLP", receiver.url)

        async def sink() -> pb.AuditSink:
            return (await sinks(server))["otel"]

        failing = await poll_until(sink, lambda found: found.status == pb.AUDIT_SINK_STATUS_FAILING)
        assert (failing.reason, failing.position) == ("REJECTED", 0)
        assert "canary" not in failing.message
        # A response that cannot be parsed rejects nothing.
        receiver.answer = b'{"partialSuccess": {}, "deep": ' + b"[" * 16_000
        receiver.posted.clear()
        await caught_up(server, "otel")
    assert {posted.path for posted in receiver.posted} == {"/v1/logs"}
    found = [
        int(value["value"]["intValue"])
        for posted in receiver.posted
        for each in json.loads(posted.body)["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
        for value in each["attributes"]
        if value["key"] == "pilothouse.sequence"
    ]
    assert is_whole(found)


async def test_syslog_records_count_once_the_receiver_has_read_to_the_end(server: Server) -> None:
    async with syslog_receiver() as receiver:
        receiver.careless = True
        await add(server, "syslog", "SYSLOG", receiver.address)

        async def sink() -> pb.AuditSink:
            return (await sinks(server))["syslog"]

        failing = await poll_until(sink, lambda found: found.status == pb.AUDIT_SINK_STATUS_FAILING)
        assert (failing.reason, failing.position) == ("UNREACHABLE", 0)
        receiver.careless = False
        await caught_up(server, "syslog")
    assert is_whole(numbers([frame.partition(b"\xef\xbb\xbf")[2] for frame in receiver.frames]))


async def test_records_read_before_a_close_without_close_notify_count(server: Server) -> None:
    certificate, key = self_signed("127.0.0.1")
    async with blunt_receiver(server_context(certificate, key)) as receiver:
        receiver.careless = True
        await add(server, "blunt", "SYSLOG", receiver.address, certificate_authority=certificate)

        async def sink() -> pb.AuditSink:
            return (await sinks(server))["blunt"]

        failing = await poll_until(sink, lambda found: found.status == pb.AUDIT_SINK_STATUS_FAILING)
        assert (failing.reason, failing.position) == ("UNREACHABLE", 0)
        receiver.careless = False
        await caught_up(server, "blunt")
    sent = numbers([frame.partition(b"\xef\xbb\xbf")[2] for frame in receiver.frames])
    assert is_whole(sent)
    assert len(sent) == len(set(sent)), "what was taken is sent again"


@pytest.mark.full
@needs_rsyslog
async def test_rsyslog_has_each_record_once(server: Server, tmp_path: Path) -> None:
    certificate, key = self_signed("127.0.0.1")
    async with rsyslog(tmp_path, certificate, key) as receiver:
        await add(server, "rsyslog", "SYSLOG", receiver.address, certificate_authority=certificate)
        sent = (await caught_up(server, "rsyslog")).position
        found = await poll_until(receiver.lines, lambda lines: len(lines) >= sent, what="all lines")
    # Each batch has its own connection, and rsyslog has several workers.
    assert is_whole(sorted(numbers([line.partition(b"\xef\xbb\xbf")[2] for line in found])))


async def test_a_receiver_that_shuts_down_early_has_received_nothing() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        # Some of the lines stay with the sender, because the receiver's kernel accepts no more.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reach = destinations.Reach(destinations.LOOPBACK)
        sender = SyslogSender("127.0.0.1", listening.getsockname()[1], reach)
        sending = asyncio.create_task(sender.send([b"x" * 400_000]))
        connection, _ = await loop.sock_accept(listening)
        with connection:
            connection.shutdown(socket.SHUT_WR)
            await asyncio.wait({sending}, timeout=runs_out(0.3))
            assert not sending.done()
        # The receiver closes with unread data, so the kernel resets the connection.
        with pytest.raises(SinkFailed):
            await sending


async def test_tls_is_verified_by_the_given_authority(server: Server) -> None:
    certificate, key = self_signed("127.0.0.1")
    other, _ = self_signed("127.0.0.1")
    async with (
        syslog_receiver(server_context(certificate, key)) as receiver,
        http_receiver(server_context(certificate, key)) as web,
    ):
        for name, authority in (("good", certificate), ("bad", other)):
            await add(server, f"syslog-{name}", "SYSLOG", receiver.address, certificate_authority=authority)
            await add(server, f"web-{name}", "HTTP", web.url, certificate_authority=authority)
        await caught_up(server, "syslog-good")
        await caught_up(server, "web-good")

        async def failing() -> list[pb.AuditSink]:
            found = await sinks(server)
            return [each for each in found.values() if each.status == pb.AUDIT_SINK_STATUS_FAILING]

        bad = await poll_until(
            failing, lambda found: {each.name for each in found} == {"syslog-bad", "web-bad"}
        )
        assert all(each.position == 0 and "127.0.0.1" not in each.message for each in bad)
        assert all("its certificate is not trusted" in each.message for each in bad), bad


async def test_an_unreachable_sink_loses_nothing_and_delays_no_other(server: Server) -> None:
    async with http_receiver() as receiver, http_receiver() as healthy:
        receiver.status = 503
        await add(server, "away", "HTTP", receiver.url, required=True)
        await add(server, "healthy", "HTTP", healthy.url)
        await caught_up(server, "healthy")

        async def shown() -> tuple[float, float]:
            values = [
                REGISTRY.get_sample_value(f"pilothouse_audit_sink_{name}", {"sink": "away"})
                for name in ("lag_records", "oldest_seconds")
            ]
            return values[0] or 0.0, values[1] or 0.0

        lag, _ = await poll_until(shown, lambda found: found[0] > 0 and found[1] > 0)
        away = (await sinks(server))["away"]
        assert (away.status, away.reason) == (pb.AUDIT_SINK_STATUS_FAILING, "HTTP_503")
        assert away.lag_records >= lag
        assert away.HasField("oldest_pending_time")
        assert away.HasField("failing_since")

        async def held() -> set[str]:
            return {each.leased.sink.name for each in server.application.sinks._held.values()}

        await poll_until(held, lambda names: "away" not in names)
        receiver.status = 200
        receiver.posted.clear()
        await caught_up(server, "away")
        assert not (await sinks(server))["away"].HasField("failing_since")
    assert is_whole(numbers([line for posted in receiver.posted for line in posted.body.splitlines()]))


async def test_a_receiver_of_small_bodies_gets_small_batches(server: Server) -> None:
    for _ in range(30):
        await server.admin.identity.who_am_i()
    async with http_receiver() as receiver:
        receiver.longest = 10_000
        await add(server, "small", "HTTP", receiver.url)
        await caught_up(server, "small")
    assert is_whole(numbers([line for posted in receiver.posted for line in posted.body.splitlines()]))


async def test_a_lost_lease_moves_no_cursor(server: Server) -> None:
    async with http_receiver() as receiver:
        receiver.open.clear()
        await add(server, "siem", "HTTP", receiver.url)

        async def posted() -> int:
            return len(receiver.posted)

        await poll_until(posted, lambda count: count == 1)
        async with server.database.system() as sql:
            await sql.execute(
                "UPDATE audit_sinks SET lease_owner = 'another', lease_epoch = lease_epoch + 1, "
                "leased_until = now() + interval '1 minute'"
            )
            receiver.open.set()

            async def held() -> int:
                return len(server.application.sinks._held)

            await poll_until(held, lambda count: count == 0)
            assert await sql.fetchval("SELECT position FROM audit_sinks") == 0
            await sql.execute("UPDATE audit_sinks SET leased_until = now()")
        await caught_up(server, "siem")
        assert len(receiver.posted) > 1


BAD: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a path of a file": ("FILE", "../audit.jsonl", {}, "INVALID_ARGUMENT"),
    "a rotated file": ("FILE", "a.20260101T000000.000000Z", {}, "INVALID_ARGUMENT"),
    "user info": ("HTTP", "https://user:canary@siem.example.com", {}, "INVALID_ARGUMENT"),
    "a query": ("HTTP", "https://siem.example.com/?token=canary", {}, "INVALID_ARGUMENT"),
    "another scheme": ("HTTP", "tcp://siem.example.com:514", {}, "INVALID_ARGUMENT"),
    "a metadata service": ("HTTP", "http://169.254.169.254/", {}, "INVALID_ARGUMENT"),
    "the same for syslog": ("SYSLOG", "tcp://169.254.169.254:514", {}, "INVALID_ARGUMENT"),
    "the same as one number": ("HTTP", "http://2852039166/", {}, "INVALID_ARGUMENT"),
    "the same in octal, for syslog": ("SYSLOG", "tcp://0251.0376.0251.0376:514", {}, "INVALID_ARGUMENT"),
    "no port": ("SYSLOG", "tls://siem.example.com", {}, "INVALID_ARGUMENT"),
    "no TLS": ("SYSLOG", "tcp://siem.example.com:514", {"certificate_authority": "x"}, "INVALID_ARGUMENT"),
    "no known authority": (
        "HTTP",
        "https://siem.example.com",
        {"certificate_authority": "x"},
        "INVALID_ARGUMENT",
    ),
    "no key": ("HTTP", "https://siem.example.com", {"client_certificate": "x"}, "INVALID_ARGUMENT"),
    "sizes of no file": ("HTTP", "https://siem.example.com", {"rotate_bytes": 5}, "INVALID_ARGUMENT"),
    "a format of OTLP": (
        "OTLP",
        "https://siem.example.com",
        {"format": pb.AUDIT_SINK_FORMAT_CLOUDEVENTS},
        "INVALID_ARGUMENT",
    ),
    "a header of ours": (
        "HTTP",
        "https://siem.example.com",
        {"credentials": pb.AuditSinkCredentials(headers={"Webhook-Signature": "x"})},
        "INVALID_ARGUMENT",
    ),
    "a header of two lines": (
        "HTTP",
        "https://siem.example.com",
        {"credentials": pb.AuditSinkCredentials(headers={"a": "b\r\nc: d"})},
        "INVALID_ARGUMENT",
    ),
}


async def test_invalid_sinks_are_refused(server: Server) -> None:
    for what, (kind, address, more, code) in BAD.items():
        with pytest.raises(PilothouseError) as raised:
            await add(server, "bad", kind, address, **more)
        assert raised.value.code.name == code, what
        assert "canary" not in str(raised.value)
    async for each in server.admin.audit.list_operations(filter="resource_type = audit_sink"):
        assert "canary" not in str(each)
    await add(server, "one", "FILE", "one.jsonl")
    for name, address in (("one", "two.jsonl"), ("two", "one.jsonl")):
        with pytest.raises(PilothouseError) as raised:
            await add(server, name, "FILE", address)
        assert raised.value.code.name == "ALREADY_EXISTS"
    await server.admin.audit.delete_audit_sink(name="one")
    assert "one" not in await sinks(server)
    with pytest.raises(PilothouseError) as raised:
        await server.admin.audit.delete_audit_sink(name="one")
    assert raised.value.code.name == "NOT_FOUND"


async def test_this_machine_is_not_connected_to_unless_a_setting_allows_it(
    database: Database, tmp_path: Path
) -> None:
    async with (
        http_receiver() as receiver,
        running_server(database, tmp_path, with_cluster=False, outbound_networks="") as server,
    ):
        with pytest.raises(PilothouseError) as raised:
            await add(server, "siem", "HTTP", receiver.url)
        assert raised.value.code.name == "INVALID_ARGUMENT"
        with pytest.raises(PilothouseError) as raised:
            await add(server, "file", "FILE", "audit.jsonl")
        assert raised.value.reason == "NO_SINK_FOLDER"
        # A sink that was allowed when it was created is not connected to either.
        async with database.system() as sql:
            await sql.execute(
                "INSERT INTO audit_sinks (name, kind, address) VALUES ('siem', 'http', $1)", receiver.url
            )

        async def sink() -> pb.AuditSink:
            return (await sinks(server))["siem"]

        failing = await poll_until(sink, lambda found: found.status == pb.AUDIT_SINK_STATUS_FAILING)
        assert failing.reason == "INVALID_FIELD"
        assert receiver.posted == []


async def test_records_that_retention_dropped_are_counted_as_skipped(server: Server) -> None:
    await server.admin.identity.who_am_i()
    async with http_receiver() as receiver:
        receiver.status = 503
        await add(server, "late", "HTTP", receiver.url)

        async def attempts() -> int:
            return len(receiver.posted)

        await poll_until(attempts, lambda count: count > 0)
        async with connection(server.database.admin_dsn) as sql:
            await sql.execute("DELETE FROM operation_logs WHERE sequence <= 2")
        receiver.status = 200
        assert (await caught_up(server, "late")).skipped_records == 2
