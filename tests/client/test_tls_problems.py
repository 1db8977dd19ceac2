"""A failed TLS handshake is reported immediately in the project's own words; a changed certificate is refused."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import select
import shlex
import socket
import ssl
import struct
import warnings
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse_client import (
    AsyncClient,
    Client,
    RetryPolicy,
    Tls,
    UnauthenticatedError,
    UnavailableError,
    handshake,
)
from pilothouse_client.commands import hints
from pilothouse_client.handshake import fingerprint_of, same_fingerprint
from tests.client.certificates import Made, made
from tests.client.command import Command, Ended
from tests.client.conftest import PASSWORD
from tests.client.fake_server import FakeServer
from tests.promises.watches.proxy import proxy
from tests.waiting import patient, within

AUTHORITY = made("authority", authority=True)
STRANGE = made("another authority", authority=True)
OWN, OTHER = made("127.0.0.1", "localhost"), made("127.0.0.1", "localhost")
OF_AUTHORITY = made("127.0.0.1", by=AUTHORITY)
BY_AUTHORITY = Tls(root_certificates=AUTHORITY.pem)
PINNED = Tls(root_certificates=OWN.pem, server_name="localhost", pinned=True)
# Wording of the TLS library or of gRPC.
FOREIGN = re.compile(r"handshake|SSL|TSI|ipv4:|last error|OpenSSL|certificate verify", re.IGNORECASE)


@asynccontextmanager
async def serving(credentials: Made | None, address: str = "127.0.0.1:0") -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    await fake.start(address, None if credentials is None else credentials.served)
    try:
        yield fake
    finally:
        await fake.stop()


@pytest.mark.parametrize(
    ("served", "tls", "problem", "words"),
    [
        (OWN, None, "TLS_REQUIRED", "speaks TLS, and was called in plain text"),
        (None, BY_AUTHORITY, "TLS_NOT_SPOKEN", "speaks plain text, and was called by TLS"),
        (OWN, Tls(), "SELF_SIGNED", "self-signed certificate: SHA256:"),
        (
            made("127.0.0.1", by=STRANGE),
            BY_AUTHORITY,
            "AUTHORITY_UNKNOWN",
            "authority that is not trusted here",
        ),
        (
            made("a.example", "b.example", by=AUTHORITY),
            BY_AUTHORITY,
            "NAME_MISMATCH",
            "but for a.example, b.example",
        ),
        (made("127.0.0.1", by=AUTHORITY, days=(-2, -1)), BY_AUTHORITY, "NOT_VALID_NOW", "has expired"),
        (made("127.0.0.1", by=AUTHORITY, days=(1, 2)), BY_AUTHORITY, "NOT_VALID_NOW", "is not valid yet"),
        (OTHER, PINNED, "CERTIFICATE_CHANGED", f"instead of {fingerprint_of(OWN.pem.decode())}"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isupper() else None,
)
async def test_each_tls_problem_has_its_own_message(
    served: Made | None, tls: Tls | None, problem: str, words: str
) -> None:
    attempts: list[int] = []

    def count(_error: object, number: int) -> None:
        attempts.append(number)

    async with serving(served) as fake:
        async with AsyncClient(fake.address, token="key", tls=tls, on_retry=count) as client:
            with pytest.raises(UnavailableError) as unary:
                await client.identity.who_am_i()
            with pytest.raises(UnavailableError) as streamed:
                await anext(client.containers.watch(namespace="shop"))

        def blocking() -> UnavailableError:
            with (
                Client(fake.address, token="key", tls=tls) as client,
                pytest.raises(UnavailableError) as found,
            ):
                client.identity.who_am_i()
            return found.value

        for error in (unary.value, streamed.value, await asyncio.to_thread(blocking)):
            assert error.connection_problem == problem, error
            assert error.message.startswith((fake.address, f"the certificate of {fake.address}"))
            assert words in error.message
            assert not FOREIGN.search(error.message.replace("SHA256", "")), error.message
            assert error.never_sent
            assert not error.from_server
        assert fake.calls == []
    # A retry would not change the certificate.
    assert attempts == []


async def test_a_distant_server_is_reached_with_the_first_attempt() -> None:
    """A TLS connection takes three round trips; with a server on the other side of the world that is a second."""
    async with serving(OF_AUTHORITY) as fake, proxy(delay_seconds=0.15) as far:
        far.target = int(fake.address.rpartition(":")[2])
        once = RetryPolicy(attempts=1)
        async with AsyncClient(far.address, token="key", tls=BY_AUTHORITY, retry=once) as client:
            # The error comes from the server, so the connection works.
            with pytest.raises(UnauthenticatedError):
                await client.identity.who_am_i()


async def test_a_refused_connection_is_not_a_tls_problem() -> None:
    for insecure in (True, False):
        once = RetryPolicy(attempts=1)
        async with AsyncClient("127.0.0.1:1", token="key", insecure=insecure, retry=once) as client:
            with pytest.raises(UnavailableError, match=r"no server responds at 127\.0\.0\.1:1") as found:
                await client.identity.who_am_i()
        assert found.value.connection_problem == ""


async def test_another_protocol_over_tls_is_reported(tmp_path: Path) -> None:
    for name, content in (("c.pem", OF_AUTHORITY.pem), ("k.pem", OF_AUTHORITY.key_pem)):
        (tmp_path / name).write_bytes(content)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, AsyncClient(address, token="key", tls=BY_AUTHORITY) as client:
        with pytest.raises(UnavailableError, match="not HTTP/2 in it") as found:
            await client.identity.who_am_i()
    assert found.value.connection_problem == "HTTP2_NOT_SPOKEN"


@asynccontextmanager
async def answering(words: bytes) -> AsyncIterator[str]:
    """Yields the address of a server that reads the start of a request and responds in plain text."""
    opened: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        await reader.read(1024)
        writer.write(words)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    # A connection that the client gave up may not have been closed yet.
    for writer in opened:
        writer.close()


HTTP1 = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"


@pytest.mark.parametrize(
    "words", [HTTP1, b"SSH-2.0-OpenSSH_9.2p1\r\n", b"no\n"], ids=["http", "ssh", "short"]
)
@pytest.mark.parametrize("tls", [None, BY_AUTHORITY], ids=["plain", "tls"])
async def test_another_protocol_in_plain_text_is_reported(words: bytes, tls: Tls | None) -> None:
    async with answering(words) as address:
        async with AsyncClient(address, token="key", tls=tls, insecure=tls is None) as client:
            with pytest.raises(UnavailableError, match="does not speak gRPC") as found:
                await client.identity.who_am_i()
        assert found.value.connection_problem == "GRPC_NOT_SPOKEN"
        assert found.value.message.startswith(f"the server at {address}")
        assert not FOREIGN.search(found.value.message)


async def test_a_silent_server_is_not_reported_as_another_protocol() -> None:
    once = RetryPolicy(attempts=1)
    async with answering(b"") as address, AsyncClient(address, token="key", retry=once) as client:
        with pytest.raises(UnavailableError) as found:
            await client.identity.who_am_i()
    assert found.value.connection_problem == ""


class _Late(ssl.SSLContext):
    """Wraps a socket only after its peer has reset the connection."""

    def wrap_socket(self, sock: socket.socket, *given: Any, **options: Any) -> ssl.SSLSocket:
        if sock.getsockname()[1]:
            select.select([sock], [], [], patient(5.0))
        return super().wrap_socket(sock, *given, **options)


def test_a_reset_before_the_handshake_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def reset() -> None:
        opened, _ = listening.accept()
        # A close with a linger time of zero sends a reset.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        opened.close()

    context = _Late(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    monkeypatch.setattr(handshake, "_unchecked", lambda: context)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        ThreadPoolExecutor(1) as pool,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always", ResourceWarning)
        resetting = pool.submit(reset)
        assert handshake.shown_by(f"127.0.0.1:{listening.getsockname()[1]}", Tls(), patient(5.0)) is None
        resetting.result()
        gc.collect()
    assert [str(warning.message) for warning in warned if "SSLSocket" in str(warning.message)] == []


def test_fingerprints_are_compared_in_any_notation() -> None:
    shown = fingerprint_of(OWN.pem.decode())
    plain = shown.removeprefix("SHA256:").replace(":", "").lower()
    assert same_fingerprint(shown, plain)
    assert same_fingerprint(shown, f"sha256:{plain} ")
    assert not same_fingerprint(shown, fingerprint_of(OTHER.pem.decode()))


async def log_in(pilothouse: Command, fake: FakeServer, *more: str) -> Ended:
    words = ("login", "--server", fake.address, "--user", "admin", "--password-stdin", *more)
    async with within(20):
        return await pilothouse(*words, stdin=PASSWORD + "\n")


def hinted(ended: Ended) -> list[str]:
    """Returns the arguments of the one command that is printed as a hint."""
    commands = re.findall(r"(?<=[:;] )pilothouse .*", ended.err)
    assert len(commands) == 1, ended.err
    words = shlex.split(commands[0])
    assert words[0] == "pilothouse"
    return words[1:]


async def typed(pilothouse: Command, ended: Ended) -> Ended:
    """Runs the printed command as it is, and enters the password, and the user if it is missing."""
    words = hinted(ended)
    # Without a terminal, the password is read from standard input.
    login = words.index("login") + 1
    words[login:login] = ["--password-stdin"]
    if "--user" not in words:
        words[login:login] = ["--user", "admin"]
    async with within(20):
        return await pilothouse(*words, stdin=PASSWORD + "\n")


def remembered(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "config.json").read_text())["contexts"]
    return found


def test_a_hint_repeats_the_client_certificate() -> None:
    called = hints.called.set(hints.Called("h:1", shown=("own cert.pem", "own.key")))
    try:
        shown = "pilothouse --client-cert 'own cert.pem' --client-key own.key login --server h:1 --secure"
        assert hints.log_in(insecure=False) == shown
        # In plain text no client certificate is sent.
        assert hints.log_in(insecure=True) == "pilothouse login --server h:1 --insecure"
    finally:
        hints.called.reset(called)


async def test_a_hint_names_the_server_that_was_called(
    pilothouse: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(OWN) as fake:
        away = ("--server", fake.address, "--secure")
        ended = await pilothouse(*away, "whoami")
        assert hinted(ended) == ["login", *away]
        with_token = await pilothouse(*away, "--token", "x", "whoami")
        assert hinted(with_token) == ["login", *away]
        assert "trust it" in with_token.err
        workload = await pilothouse(*away, "token", "exchange", stdin="a.b.c")
        assert hinted(workload) == ["login", *away]
        assert (await typed(pilothouse, with_token)).code == 0
        monkeypatch.setenv("PILOTHOUSE_TOKEN", "wrong")
        refused = await pilothouse("whoami")
        assert refused.code == 4
        assert "give another token, or log in without one: pilothouse login --server" in refused.err
        monkeypatch.delenv("PILOTHOUSE_TOKEN")
        assert (await typed(pilothouse, refused)).code == 0
        assert (await pilothouse("whoami")).code == 0


async def test_a_hint_names_the_context_that_was_used(pilothouse: Command, tmp_path: Path) -> None:
    async with serving(OWN) as fake, serving(None) as other:
        assert (await log_in(pilothouse, fake, "--secure", "--name", "its own")).code == 0
        assert (await log_in(pilothouse, other, "--name", "other")).code == 0
        address = fake.address
    async with serving(OTHER, address) as fake:
        ended = await pilothouse("--context", "its own", "whoami")
        assert hinted(ended)[:3] == ["--context", "its own", "login"]
        ended = await pilothouse("--server", address, "whoami")
        assert hinted(ended)[:3] == ["--context", "its own", "login"]
        assert (await typed(pilothouse, ended)).code == 0
        assert (await pilothouse("--context", "its own", "whoami")).code == 0
        assert sorted(remembered(tmp_path)) == ["its own", "other"]


@pytest.mark.parametrize(
    "said", [("--fingerprint", fingerprint_of(OWN.pem.decode())), ("--trust-new-certificate",)]
)
async def test_a_hint_keeps_the_certificate_options(pilothouse: Command, said: tuple[str, ...]) -> None:
    async with serving(OWN) as fake:
        login = ("login", "--server", fake.address, "--secure", *said, "--user", "admin")
        refused = await pilothouse(*login, "--password-stdin", stdin="wrong\n")
        assert refused.code == 4
        assert hinted(refused) == list(login)
        assert (await typed(pilothouse, refused)).code == 0


async def test_a_hint_suggests_secure_or_insecure_with_the_server(pilothouse: Command) -> None:
    async with serving(OWN) as fake:
        ended = await log_in(pilothouse, fake, "--insecure")
        assert hinted(ended) == ["login", "--server", fake.address, "--secure", "--user", "admin"]
        assert (await typed(pilothouse, ended)).code == 0
    async with serving(None, fake.address) as fake:
        ended = await log_in(pilothouse, fake)
        assert "--insecure" in hinted(ended)
        assert (await typed(pilothouse, ended)).code == 0
        # For other verbs these options go before the verb.
        ended = await pilothouse("--secure", "whoami")
        assert "with --insecure before the verb" in ended.err
        # Before `login`, they also override the stored context.
        ended = await pilothouse("--secure", "login", "--user", "admin", "--password-stdin", stdin=PASSWORD)
        assert "was called by TLS" in ended.err


async def test_no_login_is_suggested_for_a_certificate_it_would_not_trust(
    pilothouse: Command, tmp_path: Path
) -> None:
    (tmp_path / "roots.pem").write_bytes(AUTHORITY.pem)
    async with serving(OWN) as fake:
        of_file = ("--server", fake.address, "--ca-file", str(tmp_path / "roots.pem"), "--token", "x")
        ended = await pilothouse(*of_file, "whoami")
        assert "self-signed certificate" in ended.err
        assert ended.err.endswith("  name a file of authorities with --ca-file\n"), ended.err
        # Several servers with different certificates cannot be called by TLS together, so the hint suggests one of
        # them.
        ended = await pilothouse("--server", f"{fake.address},{fake.address}", "--token", "x", "whoami")
        assert "speaks TLS" in ended.err
        assert ended.err.endswith("  call one of them alone by TLS, with --secure\n"), ended.err


async def test_only_the_certificate_of_the_first_use_is_trusted(pilothouse: Command) -> None:
    async with serving(OWN) as fake:
        ended = await log_in(pilothouse, fake, "--secure")
        assert ended.code == 0, ended.err
        assert fingerprint_of(OWN.pem.decode()) in ended.err
        assert (await pilothouse("whoami")).code == 0
        # The certificate is already trusted, for other contexts as well.
        again = await log_in(pilothouse, fake, "--secure", "--name", "another")
        assert (again.code, again.err) == (0, "")
        address = fake.address
    async with serving(OTHER, address) as fake:
        for ended in (await pilothouse("whoami"), await log_in(pilothouse, fake)):
            assert ended.code == 9
            assert "presents a different certificate than" in ended.err
            assert hinted(ended)[-1] == "--trust-new-certificate"
        assert fake.calls == []
        assert (await typed(pilothouse, ended)).code == 0
        # All contexts of a server trust the same certificate. Their sessions have ended.
        ended = await pilothouse("--context", "another", "whoami")
        assert (ended.code, "the session has ended" in ended.err) == (4, True)


async def test_the_certificate_must_have_the_given_fingerprint(pilothouse: Command) -> None:
    async with serving(OWN) as fake:
        refused = await log_in(
            pilothouse, fake, "--secure", "--fingerprint", fingerprint_of(OTHER.pem.decode())
        )
        assert (refused.code, fake.calls) == (9, [])
        assert "another fingerprint" in refused.err
        right = fingerprint_of(OWN.pem.decode()).removeprefix("SHA256:").lower()
        assert (await log_in(pilothouse, fake, "--secure", "--fingerprint", right)).code == 0
        without = await log_in(pilothouse, fake, "--insecure", "--fingerprint", right)
        assert (without.code, "give one HOST:PORT and --secure" in without.err) == (2, True)


async def test_a_server_verified_by_an_authority_cannot_become_self_signed(
    pilothouse: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(AUTHORITY.pem)
    # gRPC reads GRPC_DEFAULT_SSL_ROOTS_FILE_PATH once per process, so the test passes the authority with --ca-file.
    async with serving(OF_AUTHORITY) as fake:
        assert (await log_in(pilothouse, fake, "--secure", "--ca-file", str(roots))).code == 0
        address = fake.address
        config = (tmp_path / "config.json").read_text()
        assert '"vouched_for": true' in config
        (tmp_path / "config.json").write_text(config.replace(str(roots), ""))
    async with serving(OWN, address) as fake:
        ended = await log_in(pilothouse, fake)
        assert (ended.code, fake.calls) == (9, [])
        assert "which no trusted authority has issued" in ended.err


@pytest.mark.parametrize(
    ("served", "how", "words", "hint"),
    [
        (OWN, "--insecure", "speaks TLS, and was called in plain text", "call it by TLS, with --secure"),
        (None, "--secure", "speaks plain text, and was called by TLS", "in plain text, with --insecure"),
        (
            made("127.0.0.1", by=STRANGE),
            "--ca-file",
            "a certificate of an authority that is not trusted here: SHA256:",
            "name a file of authorities with --ca-file",
        ),
        (
            made("a.example", by=AUTHORITY),
            "--ca-file",
            "is not for 127.0.0.1, but for a.example",
            "call the server by a name that its certificate is for",
        ),
        (
            made("127.0.0.1", by=AUTHORITY, days=(-2, -1)),
            "--ca-file",
            "has expired",
            "have the server's certificate renewed",
        ),
    ],
    ids=["tls", "plain", "authority", "name", "expired"],
)
async def test_the_command_reports_a_tls_problem_with_a_remedy(
    pilothouse: Command, tmp_path: Path, served: Made | None, how: str, words: str, hint: str
) -> None:
    (tmp_path / "roots.pem").write_bytes(AUTHORITY.pem)
    way = (how, str(tmp_path / "roots.pem")) if how == "--ca-file" else (how,)
    async with serving(served) as fake:
        ended = await log_in(pilothouse, fake, *way)
    assert (ended.code, fake.calls) == (9, [])
    assert words in ended.err
    assert hint in ended.err
    assert not FOREIGN.search(ended.err.replace("SHA256", "")), ended.err


@pytest.mark.parametrize(
    ("served", "words"),
    [
        (made("127.0.0.1", days=(-2, -1)), "has expired"),
        (made("127.0.0.1", days=(1, 2)), "is not valid yet: is the clock of this machine right?"),
    ],
    ids=["expired", "too early"],
)
async def test_a_self_signed_certificate_outside_its_validity_is_reported(
    pilothouse: Command, served: Made, words: str
) -> None:
    async with serving(served) as fake:
        ended = await log_in(pilothouse, fake, "--secure")
    assert (ended.code, fake.calls) == (9, [])
    assert ended.err == (
        f"error: the certificate of {fake.address} {words}\n"
        "  have the server's certificate renewed, or set the clock of this machine if it is wrong\n"
    )


async def test_the_command_reports_a_server_without_grpc(pilothouse: Command) -> None:
    async with answering(HTTP1) as address:
        arguments = ("login", "--server", address, "--user", "admin", "--password-stdin")
        ended = await pilothouse(*arguments, stdin=PASSWORD + "\n")
    assert ended.code == 9
    assert f"the server at {address} does not speak gRPC" in ended.err


async def test_an_invalid_ca_file_is_reported(pilothouse: Command, tmp_path: Path) -> None:
    (tmp_path / "none.pem").write_text("no certificate")
    async with serving(None) as fake:
        ended = await log_in(pilothouse, fake, "--ca-file", str(tmp_path / "none.pem"))
    assert (ended.code, "contains no PEM certificate" in ended.err) == (2, True)


def test_a_number_out_of_range_is_not_a_port() -> None:
    for port in ("0", "65536", "99999", "-1", "x"):
        with pytest.raises(ValueError, match="not a port"):
            Client(f"127.0.0.1:{port}")
