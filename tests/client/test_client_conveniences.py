"""Conveniences of the client: waits, local copies, contexts, enum labels, and requests without repeated fields."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client import (
    AsyncClient,
    AsyncWatchInformer,
    Client,
    Goal,
    PilothouseError,
    WaitError,
    WatchInformer,
    enum_label,
)
from pilothouse_client.waiting import FALSE
from tests.client.command import Command
from tests.client.fake_server import FakeServer
from tests.client.test_stable_waits import ASKED, condition, running
from tests.waiting import patient, runs_out


@pytest.fixture(autouse=True)
def _key(fake: FakeServer) -> None:
    fake.api_keys["key"] = "admin"


def _container(name: str, namespace: str = "shop") -> pb.Container:
    return pb.Container(namespace=namespace, name=name, uid=name, status=pb.CONTAINER_STATUS_STOPPED)


async def test_both_clients_wait_for_a_container(fake: FakeServer) -> None:
    await fake.commit("container", ("shop", "web"), _container("web"))
    with Client(fake.address, token="key") as client:
        seen: list[str] = []
        done = await asyncio.to_thread(
            client.wait_for,
            _container("web"),
            Goal.STOPPED,
            timeout=patient(30),
            progress=lambda each: seen.append(each.name),
        )
    assert (done.name, seen) == ("web", ["web"])
    async with AsyncClient(fake.address, token="key") as client_:
        assert (await client_.wait_for(_container("web"), "stopped", timeout=patient(30))).name == "web"


async def test_a_failed_wait_raises_a_pilothouse_error(fake: FakeServer) -> None:
    await fake.commit("container", ("shop", "web"), running(condition("Stable", FALSE, "Restarted")))
    async with AsyncClient(fake.address, token="key") as client:
        with pytest.raises(PilothouseError, match="web: a newest pod restarts") as failed:
            await client.wait_for(ASKED, timeout=patient(30))
    assert isinstance(failed.value, WaitError)
    assert failed.value.reason == "WAIT_FAILED"
    assert failed.value.container is not None


async def test_an_informer_maintains_a_local_copy(fake: FakeServer) -> None:
    """The copy survives cuts of its watch; resources deleted during a cut are removed from it."""
    for name in ("a", "b"):
        await fake.commit("container", ("shop", name), _container(name))
    async with (
        AsyncClient(fake.address, token="key") as client,
        AsyncWatchInformer[pb.Container](lambda: client.containers.watch(namespace="shop")) as copy,
    ):
        assert sorted(copy.all()) == ["a", "b"]
        await fake.commit("container", ("shop", "c"), _container("c"))
        assert "c" in await copy.wait_for(lambda each: len(each) == 3, timeout=patient(30))
        await fake.cut_watches()
        await fake.commit("container", ("shop", "a"), None)
        await copy.wait_for(lambda each: "a" not in each, timeout=patient(30))
        found = copy.get("b")
        assert found is not None
        assert (enum_label(found, "status"), copy.get("nobody")) == ("STOPPED", None)
        with pytest.raises(TimeoutError, match="does not hold after"):
            await copy.wait_for(lambda _each: False, timeout=runs_out(0.01))


async def test_the_blocking_client_has_an_informer(fake: FakeServer) -> None:
    await fake.commit("container", ("shop", "a"), _container("a"))

    def read() -> list[str]:
        with (
            Client(fake.address, token="key") as client,
            WatchInformer[pb.Container](lambda: client.containers.watch(namespace="shop")) as copy,
        ):
            assert copy.get("a", "shop") is not None
            return sorted(copy.wait_for(lambda each: len(each) == 2, timeout=patient(30)))

    reading = asyncio.ensure_future(asyncio.to_thread(read))
    await fake.commit("container", ("shop", "b"), _container("b"))
    assert await reading == ["a", "b"]


async def test_an_update_takes_the_name_from_its_resource(fake: FakeServer) -> None:
    await fake.commit("container", ("shop", "web"), _container("web"))
    async with AsyncClient(fake.address, token="key") as client:
        await client.containers.update(
            container=pb.Container(namespace="shop", name="web", image="nginx:2"),
            update_mask=FieldMask(paths=["image"]),
        )
    [call] = fake.calls_of("UpdateContainer")
    assert (call.request.namespace, call.request.name) == ("shop", "web")


async def test_a_client_is_created_from_a_context(
    fake: FakeServer, logged_in: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client uses the session of `pilothouse login`, and writes renewed tokens to the file."""
    before = (tmp_path / "config.json").read_text()
    fake.expire_access_tokens()
    async with AsyncClient.from_context() as client:
        assert client.namespace == "shop"
        await client.identity.who_am_i()
    assert (tmp_path / "config.json").read_text() != before
    with Client.from_context(f"admin@{fake.address}") as blocking:
        assert blocking.address == fake.address
    monkeypatch.setenv("PILOTHOUSE_CONTEXT", "nobody")
    with pytest.raises(ValueError, match="there is no context 'nobody'; known: admin@"):
        Client.from_context()
