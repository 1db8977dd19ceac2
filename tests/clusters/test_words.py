"""Messages about a cluster are accurate.

The text before the colon does not contradict the text after it. Each failure is a real one, caused by a
server on this machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilothouse_server.clusters.refusals import refusal
from pilothouse_server.containers.pod_log_reader import caller_error
from pilothouse_server.errors import FailedPrecondition, Unavailable
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import (
    Away,
    ClusterError,
    CredentialsRefused,
    TooManyValues,
)
from pilothouse_server.kubernetes.namespace_ownership import refuse_foreign
from pilothouse_server.kubernetes.transport import TransportLimits
from pilothouse_server.values.resources import NamespaceRef
from pilothouse_simulator.api.server_certificate import Authority
from tests.clusters import hostile
from tests.clusters.given import another_cluster, encoded, kubeconfig
from tests.clusters.hostile import Answer, hostile_server
from tests.waiting import patient, runs_out

PLACE = "127.0.0.1:PORT"
NOT_AVAILABLE = f"cluster \"far\" is not available: cluster 'far' at {PLACE} "
FAILS = b'{"kind": "Status", "status": "Failure", "message": "a webhook failed", "code": 500}'
BUSY = b'{"kind": "Status", "status": "Failure", "message": "too many requests", "code": 429}'
NO_RIGHT = b'{"kind": "Status", "status": "Failure", "message": "Unauthorized", "code": 401}'

SAID: dict[str, tuple[Answer, str]] = {
    "too much": (
        hostile.exploding(hostile.bomb(10)),
        NOT_AVAILABLE + "sends too much: a response has more than 8388608 bytes",
    ),
    "redirected": (
        hostile.leading_to("http://127.0.0.1:1/elsewhere"),
        NOT_AVAILABLE + "cannot be used: its response is a redirect, which is not followed",
    ),
    "no HTTP": (
        hostile.rubbish,
        NOT_AVAILABLE + "cannot be used: its response is not HTTP, or too long",
    ),
    "no JSON": (
        hostile.saying(b"<html>"),
        'cluster "far" is not available: the cluster\'s response cannot be read: it has another form than requested',
    ),
    "cut off": (
        hostile.cut_off,
        NOT_AVAILABLE + "cannot be used: its response broke off, or cannot be decompressed",
    ),
    "a gateway's": (
        hostile.saying(b"<html>", 503),
        'cluster "far" is not available: <html>',
    ),
    "fails": (hostile.saying(FAILS, 500), 'cluster "far" fails: a webhook failed'),
    "busy": (hostile.saying(BUSY, 429), 'cluster "far" does not accept the request now: too many requests'),
    "refuses": (hostile.saying(NO_RIGHT, 401), 'cluster "far" refuses: Unauthorized'),
    "silent": (hostile.silent, "cluster \"far\" is not available: cluster 'far' did not respond in time"),
}


@asynccontextmanager
async def _client(
    document: dict[str, object], request_seconds: float | None = None
) -> AsyncIterator[ClusterClient]:
    limits = TransportLimits(request_seconds=request_seconds or patient(10.0))
    client = await ClusterClient.from_kubeconfig(document, name="far", limits=limits)
    try:
        yield client
    finally:
        await client.close()


async def _said(document: dict[str, object], place: str, request_seconds: float | None = None) -> str:
    async with _client(document, request_seconds) as client:
        with pytest.raises(ClusterError) as failed:
            await client.version()
    said = refusal(failed.value, "far").message
    assert caller_error(failed.value, "far").message == said
    return said.replace(place, PLACE)


@pytest.mark.parametrize("what", SAID)
async def test_the_message_about_a_response_is_accurate(what: str) -> None:
    answer, words = SAID[what]
    seconds = runs_out(1.0) if what == "silent" else None
    async with hostile_server(answer) as server:
        assert await _said(server.kubeconfig(), server.url.removeprefix("http://"), seconds) == words


async def test_a_missing_server_is_reported_as_unreachable() -> None:
    async with hostile_server(hostile.silent) as server:
        document, place = server.kubeconfig(), server.url.removeprefix("http://")
    assert await _said(document, place) == NOT_AVAILABLE + "cannot be reached: the connection is refused"


async def test_an_untrusted_server_is_not_reported_as_unreachable() -> None:
    async with another_cluster(tls=True) as cluster:
        place = cluster.url.removeprefix("https://")
        document = kubeconfig(cluster)
        entry = document["clusters"][0]["cluster"]
        named = entry | {"tls-server-name": "another.example"}
        stranger = entry | {"certificate-authority-data": encoded(Authority("127.0.0.1").certificate)}
        said = []
        for given in (named, stranger):
            document["clusters"][0]["cluster"] = given
            said.append(await _said(document, place))
    beginning = NOT_AVAILABLE + "cannot be used: its certificate is not trusted: "
    assert said[0] == beginning + "it is for another name"
    assert said[1].startswith(beginning)


async def test_a_server_without_tls_is_not_reported_as_unreachable() -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with hostile_server(hostile.silent) as server:
        document = server.kubeconfig()
    talker = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with talker:
        place = f"127.0.0.1:{talker.sockets[0].getsockname()[1]}"
        document["clusters"][0]["cluster"]["server"] = f"https://{place}"
        assert await _said(document, place) == NOT_AVAILABLE + "cannot be used: the TLS handshake failed"


def test_invalid_credentials_are_not_reported_as_refused_by_the_cluster() -> None:
    error = refusal(CredentialsRefused("the token expired"), "far")
    assert isinstance(error, FailedPrecondition)
    assert error.message == 'cluster "far" cannot be connected to: the token expired'
    away = refusal(Away("the cluster responded with 503"), "far")
    assert isinstance(away, Unavailable)
    assert away.message == 'cluster "far" is not available: the cluster responded with 503'


def test_an_unreadable_object_is_not_reported_as_an_unavailable_cluster() -> None:
    error = refusal(TooManyValues("a response has more than 9 values"), "far")
    assert error.message == 'cluster "far" sends too many values: a response has more than 9 values'


async def test_a_namespace_of_another_owner_cannot_be_used() -> None:
    async with another_cluster() as cluster, _client(kubeconfig(cluster)) as client:
        home = NamespaceRef(name="kube-system", uid="u", cluster_name="far", kubernetes_name="kube-system")
        with pytest.raises(ClusterError) as failed:
            await refuse_foreign(client, home)
    said = refusal(failed.value, "far").message
    assert said.startswith(
        'cluster "far" has an object of another owner: the Kubernetes namespace kube-system exists'
    )
