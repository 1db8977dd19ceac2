"""Promise 7 for connections: no failure reveals a connection's credentials.

A cluster is reached with a token, through a proxy with a password; both are canaries. Then the connection fails
in every possible way, and all text about the failure is searched: responses to tenants and administrators,
records, events and the log. The control passes on the messages of the HTTP library, as the product did in the
past. The same search must find the password then.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog
import yaml
from google.protobuf.message import Message

from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client import PilothouseError, RetryPolicy
from pilothouse_server.kubernetes import connection, transport
from pilothouse_server.kubernetes.errors import Unreachable
from pilothouse_server.reconcile.observe.health import HealthSettings
from pilothouse_server.reconcile.queue.worker import WorkerSettings
from pilothouse_server.reconcile.reconciler import ReconcilerSettings
from pilothouse_simulator import SimulatedCluster
from tests.clusters.given import another_cluster, by_kubeconfig, has_status, kubeconfig
from tests.config.canaries import found_in
from tests.conftest import Database
from tests.conftest import connection as connected
from tests.harness import Server, running_server
from tests.promises.failing_proxy import WAYS, FailingProxy, failing_proxy
from tests.waiting import poll_until

USER, PASSWORD, TOKEN = "proxyQ7user", "Zq7ProxyCanaryW4x", "Zq7TokenCanaryW4x"
CANARIES = (USER, PASSWORD, TOKEN)
QUICK = ReconcilerSettings(
    worker=WorkerSettings(poll_seconds=0.05),
    health=HealthSettings(probe_seconds=0.1, answer_seconds=0.7),
    clusters_period_seconds=0.1,
    # A server that does not reach the cluster tries again immediately, because there is no other server to do
    # so.
    free_seconds=0.2,
)
ONCE = RetryPolicy(attempts=1)


class Told:
    """All text that the server has sent or written."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.texts: dict[str, bytes] = {}
        self.lines: list[Any] = []

    def add(self, where: str, what: Message | PilothouseError | str) -> None:
        if isinstance(what, Message):
            what = f"{what}"
        elif isinstance(what, PilothouseError):
            what = f"{what!r} {what} {dict(what.metadata)} {what.violations}"
        self.texts[f"{len(self.texts)} {where}"] = what.encode()

    async def gather(self) -> dict[str, bytes]:
        """Returns all responses and all written bytes, by their places."""
        found = dict(self.texts)
        async with connected(self.server.database.admin_dsn) as admin:
            tables = await admin.fetch("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
            for table in tables:
                rows = await admin.fetch(f"SELECT t::text AS row FROM {table['name']} AS t")
                found[f"table {table['name']}"] = "\n".join(row["row"] for row in rows).encode()
        found["log"] = "\n".join(map(_line, self.lines)).encode()
        return found


def _line(entry: dict[str, Any]) -> str:
    raised = entry.get("exc_info")
    if isinstance(raised, BaseException):
        return f"{entry} {''.join(traceback.format_exception(raised))}"
    return (
        f"{entry} {''.join(traceback.format_exception(*raised))}" if isinstance(raised, tuple) else f"{entry}"
    )


@asynccontextmanager
async def _behind_a_proxy(
    database: Database, directory: Path
) -> AsyncIterator[tuple[Told, SimulatedCluster, FailingProxy]]:
    """Yields a server with a container on a cluster behind a proxy."""
    async with another_cluster(tls=True) as cluster, failing_proxy(USER, PASSWORD) as proxy:
        rules = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        cluster.users.add(TOKEN, "pilothouse", rules)
        address = urlsplit(cluster.url)
        proxy.far = (str(address.hostname), int(address.port or 0))
        with structlog.testing.capture_logs() as lines:
            async with running_server(
                database, directory, with_cluster=False, reconciler=QUICK, cluster_timeout_seconds=2.0
            ) as server:
                told = Told(server)
                told.lines = lines
                await server.admin.namespaces.register_cluster(
                    cluster=pb.Cluster(name="far"), credentials=_credentials(cluster, proxy)
                )
                await server.admin.namespaces.create(
                    namespace=pb.Namespace(name="shop", cluster_name="far"),
                )
                await server.admin.containers.create(
                    namespace="shop", container=containers.Container(name="web", image="nginx:1.27")
                )
                await has_status(server, "far", pb.CLUSTER_STATUS_HEALTHY)
                yield told, cluster, proxy


def _credentials(cluster: SimulatedCluster, proxy: FailingProxy) -> pb.ClusterCredentials:
    document = kubeconfig(cluster, token=TOKEN)
    document["clusters"][0]["cluster"]["proxy-url"] = proxy.url
    return by_kubeconfig(document)


async def _cluster_says(told: Told, words: str) -> None:
    async def look() -> pb.Cluster:
        found: pb.Cluster = await told.server.admin.namespaces.get_cluster(name="far")
        return found

    def holds(found: pb.Cluster) -> bool:
        return found.status == pb.CLUSTER_STATUS_UNREACHABLE and words in found.message

    seen: pb.Cluster = await poll_until(look, holds, seconds=20.0, what=words)
    told.add("cluster", seen)


async def _ask_everything(told: Told, credentials: pb.ClusterCredentials) -> None:
    """Makes the calls that tenants and administrators may make.

    All of them concern an unreachable cluster.
    """
    admin = told.server.admin.with_options(retry=ONCE)
    told.add("namespace", await admin.namespaces.get(name="shop"))
    told.add("container", await admin.containers.get(namespace="shop", name="web"))
    made = containers.Container(name="new", image="nginx:1.27")
    start = containers.ExecRequest(start=containers.ExecStart(namespace="shop", name="web", command=["a"]))

    async def logs() -> None:
        async with admin.containers.stream_logs(namespace="shop", name="web", follow=False) as lines:
            async for line in lines:
                told.add("log line", line)

    async def run() -> None:
        async with admin.containers.exec([start]) as answers:
            async for answer in answers:
                told.add("exec", answer)

    async def update() -> None:
        told.add("update", await admin.namespaces.update_cluster(name="far", credentials=credentials))

    async def rights() -> None:
        told.add("rights", await admin.namespaces.get_required_rights(name="far"))

    async def validate() -> None:
        told.add(
            "validated",
            await admin.containers.create(namespace="shop", container=made, validate_only=True),
        )

    for ask in (validate, logs, run, update, rights):
        try:
            await ask()
        except PilothouseError as error:
            told.add(ask.__name__, error)


def _found(places: dict[str, bytes]) -> dict[str, list[str]]:
    return {where: found for where, content in places.items() if (found := found_in(content, CANARIES))}


@pytest.mark.full
async def test_no_failure_of_a_connection_reveals_a_secret(database: Database, tmp_path: Path) -> None:
    async with _behind_a_proxy(database, tmp_path) as (told, cluster, proxy):
        credentials = _credentials(cluster, proxy)
        for way, (_, words) in WAYS.items():
            proxy.way = way
            await proxy.cut()
            await _cluster_says(told, words)
            await _ask_everything(told, credentials)
        proxy.way = ""
        async with another_cluster(tls=True) as stranger:
            # Another server responds, with a certificate of another authority.
            address = urlsplit(stranger.url)
            proxy.far = (str(address.hostname), int(address.port or 0))
            await proxy.cut()
            await _cluster_says(told, "certificate is not trusted")
            await _ask_everything(told, credentials)
        await proxy.stop()
        await _cluster_says(told, "the connection is refused")
        await _ask_everything(told, credentials)
        places = await told.gather()
        assert {"table clusters", "table operation_logs", "table events", "log"} <= places.keys()
        assert b"responds with 407" in places["log"]
        assert _found(places) == {}


@pytest.mark.full
async def test_messages_of_the_http_library_are_found(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = connection._client

    def with_user_info(api_client: Any, configuration: Any, reach: Any) -> Any:
        proxy = configuration.proxy
        made = original(api_client, configuration, reach)
        made.rest_client.proxy, made.rest_client.proxy_headers = proxy, None
        return made

    def library_words(_self: transport.ClusterTransport, error: BaseException) -> Unreachable:
        return Unreachable(f"cannot be reached: {error}")

    monkeypatch.setattr(connection, "_client", with_user_info)
    monkeypatch.setattr(transport.ClusterTransport, "_unreachable", library_words)
    async with _behind_a_proxy(database, tmp_path) as (told, _, proxy):
        proxy.way = "407"
        await proxy.cut()
        await _cluster_says(told, "407")
        places = await told.gather()
        assert {"table clusters", "log"} <= _found(places).keys()


def _changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "current-context": "h",
        "contexts": [{"name": "h", "context": {"cluster": "h", "user": "h"}}],
        "clusters": [{"name": "h", "cluster": {"server": "https://cluster.invalid:6443"}}],
        "users": [{"name": "h", "user": {"token": TOKEN}}],
    }
    change(document)
    return document


def _cluster(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["clusters"][0]["cluster"]
    return found


def _user(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["users"][0]["user"]
    return found


KUBECONFIGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "user info": lambda d: _cluster(d).update(server=f"https://{USER}:{PASSWORD}@host:6443"),
    "query": lambda d: _cluster(d).update(server=f"https://host:6443?token={TOKEN}"),
    "path": lambda d: _cluster(d).update(server=f"https://host:6443/{TOKEN}"),
    "port": lambda d: _cluster(d).update(server=f"https://host:{PASSWORD}"),
    "scheme": lambda d: _cluster(d).update(server=f"{PASSWORD}://host"),
    "metadata": lambda d: _cluster(d).update(server="http://169.254.169.254"),
    "proxy of another kind": lambda d: _cluster(d).update({"proxy-url": f"socks5://{USER}:{PASSWORD}@host"}),
    "proxy with a path": lambda d: _cluster(d).update(
        {"proxy-url": f"http://{USER}:{PASSWORD}@host/{TOKEN}"}
    ),
    "proxy of this cloud": lambda d: _cluster(d).update(
        {"proxy-url": f"http://{USER}:{PASSWORD}@169.254.169.254"}
    ),
    "proxy without a port": lambda d: _cluster(d).update(
        {"proxy-url": f"http://{USER}:{PASSWORD}@host:{TOKEN}"}
    ),
    "unknown name": lambda d: _cluster(d).update({"proxy-url": f"http://{USER}:{PASSWORD}@proxy.invalid:1"}),
    "program": lambda d: _user(d).update(exec={"command": "sh", "args": [PASSWORD]}),
    "file": lambda d: _user(d).update({"tokenFile": f"/etc/{PASSWORD}"}),
    "password": lambda d: _user(d).update(username=USER, password=PASSWORD),
    "certificate": lambda d: _user(d).update({"client-certificate-data": PASSWORD, "client-key-data": TOKEN}),
    "authority": lambda d: _cluster(d).update({"certificate-authority-data": PASSWORD}),
    "token of another type": lambda d: _user(d).update(token=[TOKEN, PASSWORD]),
    "token with a space": lambda d: _user(d).update(token=f"{TOKEN} {PASSWORD}"),
    "other name": lambda d: _cluster(d).update({"tls-server-name": PASSWORD}),
}
TEXTS = {
    "no YAML": f"token: {TOKEN}\n  a: [{PASSWORD}",
    "alias": f"a: &a {TOKEN}\nb: *a",
    "tag": f"a: !!python/object:{PASSWORD} {TOKEN}",
    "too large": f"token: {TOKEN}\n" + "# " + "x" * 70_000,
    "too deep": "[" * 1000 + TOKEN,
}


@pytest.mark.usefixtures("no_finalizers")
async def test_invalid_credentials_are_refused_and_not_repeated(database: Database, tmp_path: Path) -> None:
    texts = TEXTS | {name: yaml.safe_dump(_changed(change)) for name, change in KUBECONFIGS.items()}
    with structlog.testing.capture_logs() as lines:
        async with running_server(
            database, tmp_path, with_cluster=False, reconciler=QUICK, cluster_timeout_seconds=1.0
        ) as server:
            told = Told(server)
            told.lines = lines
            for name, text in texts.items():
                with pytest.raises(PilothouseError) as refused:
                    await server.admin.with_options(retry=ONCE).namespaces.register_cluster(
                        cluster=pb.Cluster(name="far"), credentials=by_kubeconfig(text)
                    )
                told.add(name, refused.value)
                unreached = refused.value.reason == "CLUSTER_UNREACHABLE"
                assert unreached or refused.value.reason == "CLUSTER_CREDENTIALS_REFUSED", name
                assert unreached or refused.value.metadata["field"].startswith("credentials"), name
            assert _found(await told.gather()) == {}
