"""PortForward, CopyFrom and CopyTo: bytes to a pod and back, permissions, audit records, and their end."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client import PilothouseError
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.transport import AsyncTransport
from tests.harness import PASSWORD, Server
from tests.main_job.command import Shell, logged_in
from tests.waiting import patient, poll_until, within

NAMESPACE = "demo"
GET = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def web(shared_server: Server) -> Server:
    admin = shared_server.admin
    await admin.namespaces.create(namespace=namespace_pb2.Namespace(name=NAMESPACE))
    # Networks of the node: only a holder of container.privileged may request them.
    for name, added in (("web", {}), ("power", {"k8s.v1.cni.cncf.io/networks": "storage"})):
        await admin.containers.create(
            namespace=NAMESPACE,
            container=pb.Container(
                name=name,
                image="nginx:1.27",
                ports=[pb.Port(container_port=80)],
                annotations=added,
                sidecars=[pb.Program(name="helper", image="helper:1")],
            ),
        )

        async def runs(name: str = name) -> bool:
            found = await admin.containers.get(namespace=NAMESPACE, name=name)
            return found.status == pb.CONTAINER_STATUS_RUNNING

        await poll_until(runs)
    return shared_server


def start(name: str = "web", port: int = 80, **more: Any) -> pb.PortForwardRequest:
    return pb.PortForwardRequest(start=pb.PortForwardStart(namespace=NAMESPACE, name=name, port=port, **more))


async def sent(*requests: Any, held: bool = False) -> AsyncIterator[Any]:
    for request in requests:
        yield request
    if held:
        await asyncio.Event().wait()


async def forwarded(client: Nouns[AsyncTransport], *requests: pb.PortForwardRequest) -> tuple[str, bytes]:
    """Returns the pod, and all bytes received until the port was closed."""
    pod, data = "", b""
    async with within(20), client.containers.port_forward(sent(*requests, held=True)) as answers:
        async for answer in answers:
            pod = pod or answer.started.pod
            data += answer.data
    return pod, data


async def copied(client: Nouns[AsyncTransport], path: str, name: str = "web", **more: Any) -> bytes:
    data = b""
    async with (
        within(20),
        client.containers.copy_from(namespace=NAMESPACE, name=name, path=path, **more) as answers,
    ):
        async for answer in answers:
            data += answer.data
    return data


async def put(
    client: Nouns[AsyncTransport], data: bytes, path: str = "/tmp", name: str = "web"
) -> pb.CopyToResponse:
    first = pb.CopyToRequest(start=pb.CopyToStart(namespace=NAMESPACE, name=name, path=path))
    parts = [pb.CopyToRequest(data=data[at : at + 1000]) for at in range(0, len(data), 1000)]
    return await client.containers.copy_to(sent(first, *parts))


def archive(**files: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as made:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return target.getvalue()


async def last_record(server: Server, action: str, **wanted: Any) -> dict[str, Any]:
    """Returns the facts of the newest ended call; the record of a stream is written a moment after its end."""

    async def closed() -> list[dict[str, Any]]:
        facts = [
            MessageToDict(item.metadata)
            async for item in server.admin.audit.list_operations(filter=f'action = "{action}"', page_size=9)
        ]
        return [
            each
            for each in facts
            if each["stream_event"] == "closed"
            and all(each.get(key) == value for key, value in wanted.items())
        ]

    return (await poll_until(closed))[0]


async def test_a_forwarded_port_is_recorded_with_its_number_and_byte_counts(web: Server) -> None:
    pod, data = await forwarded(web.admin, start(), pb.PortForwardRequest(data=GET))
    assert pod.startswith("web-")
    assert data.endswith(f"{pod}\n".encode())
    record = await last_record(web, "port_forward", pod=pod)
    assert record["port"] == 80
    assert (record["bytes_sent"], record["bytes_received"]) == (len(GET), len(data))
    assert "GET /" not in str(record)


async def test_a_connection_carries_bytes_both_ways_until_the_caller_leaves(web: Server) -> None:
    requests: asyncio.Queue[pb.PortForwardRequest] = asyncio.Queue()

    async def given() -> AsyncIterator[pb.PortForwardRequest]:
        while True:
            yield await requests.get()

    requests.put_nowait(start())
    async with within(20), web.admin.containers.port_forward(given()) as answers:
        assert (await anext(answers)).started.pod
        for piece in (b"first", bytes(range(256)) * 100):
            requests.put_nowait(pb.PortForwardRequest(data=piece))
            back = b""
            while len(back) < len(piece):
                back += (await anext(answers)).data
            assert back == piece


async def test_a_port_without_a_listener_and_a_foreign_pod_are_refused(web: Server) -> None:
    power = (await web.admin.containers.get(namespace=NAMESPACE, name="power")).pod_name
    for request, code, words in (
        (start(port=81), "FAILED_PRECONDITION", "connection refused"),
        (start(pod=power), "NOT_FOUND", "not found"),
        (start(port=0), "INVALID_ARGUMENT", "start.port"),
        (start(port=65536), "INVALID_ARGUMENT", "start.port"),
    ):
        with pytest.raises(PilothouseError) as refused:
            await forwarded(web.admin, request)
        assert (refused.value.code.name, words in refused.value.message) == (code, True), (
            refused.value.message
        )


async def test_a_file_is_copied_in_and_out_and_only_its_size_is_recorded(web: Server) -> None:
    content = b"secret words " * 5000
    made = archive(**{"a/b.txt": content, "c.txt": b"c"})
    answer = await put(web.admin, made)
    assert answer.bytes == len(made)
    record = await last_record(web, "copy", direction="to")
    assert (record["path"], record["bytes"]) == ("/tmp", len(made))
    with tarfile.open(fileobj=io.BytesIO(await copied(web.admin, "/tmp/a"))) as back:
        [entry] = back.getmembers()
        source = back.extractfile(entry)
        assert entry.name.removeprefix("./") == "a/b.txt"
        assert source is not None
        assert source.read() == content
    record = await last_record(web, "copy", direction="from")
    assert record["bytes"] > len(content)
    assert "secret words" not in str(record)


async def test_a_failed_copy_reports_the_message_of_tar(web: Server) -> None:
    for call in (copied(web.admin, "/nosuch/file"), put(web.admin, archive(a=b"a"), path="/nosuch")):
        with pytest.raises(PilothouseError) as failed:
            await call
        assert (failed.value.code.name, failed.value.reason) == ("FAILED_PRECONDITION", "COPY_FAILED")
        assert "No such file or directory" in failed.value.message
    for call in (copied(web.admin, "relative"), copied(web.admin, "/tmp", program="injected")):
        with pytest.raises(PilothouseError) as refused:
            await call
        assert refused.value.code.name == "INVALID_ARGUMENT"
    # A hostile path is passed as an argument, not as an option.
    with pytest.raises(PilothouseError, match="No such file"):
        await copied(web.admin, "/tmp/--to-command=reboot")


async def test_a_developer_reaches_only_containers_without_node_rights(web: Server) -> None:
    developer = await web.user("dora", {NAMESPACE: "developer"})
    watcher = await web.user("vera", {NAMESPACE: "observer"})
    assert (await forwarded(developer, start(), pb.PortForwardRequest(data=GET)))[1]
    for client, name in ((developer, "power"), (watcher, "web")):
        for call in (
            forwarded(client, start(name)),
            copied(client, "/etc/hosts", name),
            put(client, archive(a=b"a"), name=name),
        ):
            with pytest.raises(PilothouseError) as refused:
                await call
            assert refused.value.code.name == "PERMISSION_DENIED", name


async def test_a_forwarded_port_and_a_copy_end_soon_after_a_revocation(web: Server) -> None:
    client = await web.user("emil", {NAMESPACE: "developer"})
    opened = asyncio.Event()

    async def hold() -> None:
        async with client.containers.port_forward(sent(start(), held=True)) as answers:
            async for _ in answers:
                opened.set()

    async def copy() -> None:
        first = pb.CopyToRequest(start=pb.CopyToStart(namespace=NAMESPACE, name="web", path="/tmp"))
        await client.containers.copy_to(sent(first, held=True))

    calls = [asyncio.create_task(hold()), asyncio.create_task(copy())]
    await asyncio.wait_for(opened.wait(), patient(20))
    await web.admin.identity.revoke_role.send(
        identity_pb2.RevokeRoleRequest(username="emil", role="developer", namespace=NAMESPACE)
    )
    # The guarantee is five seconds.
    async with within(5.0):
        ended = await asyncio.gather(*calls, return_exceptions=True)
    codes = [each.code.name for each in ended if isinstance(each, PilothouseError)]
    assert codes[0] == "PERMISSION_DENIED"
    # The copy may reach the server after the revocation, when the user has no right left in the namespace.
    assert codes[1:] in (["PERMISSION_DENIED"], ["NOT_FOUND"])


async def test_the_commands_copy_a_directory_both_ways_and_forward_a_port(
    web: Server, tmp_path: Path
) -> None:
    shell = await logged_in(web, tmp_path)
    source, back = tmp_path / "source", tmp_path / "back"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "data").write_bytes(bytes(range(256)) * 300)
    there = await shell.run("cp", str(source), "web:/tmp/copied", "-n", NAMESPACE)
    assert (there.code, there.errors.startswith(f"{source} -> web:/tmp/copied in pod web-")) == (0, True)
    again = await shell.run("containers", "cp", "web:/tmp/copied", str(back), "-n", NAMESPACE)
    assert (again.code, again.errors) == (0, f"web:/tmp/copied -> {back}: 1 file, 75Ki bytes\n")
    assert (back / "deep" / "data").read_bytes() == (source / "deep" / "data").read_bytes()
    for words in (("a", "b"), ("web:/a", "web:/b"), ("web:a", "b"), (str(source), "web:/a")):
        assert (await shell.run("cp", *words, "-n", NAMESPACE)).code == 2, words

    process = await shell.start("port-forward", "web", ":80", "--address", "0.0.0.0", "-n", NAMESPACE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        warning = await asyncio.wait_for(process.stderr.readline(), patient(60))
        line = await asyncio.wait_for(process.stdout.readline(), patient(60))
        assert warning.startswith(b"warning: everybody who reaches 0.0.0.0 ")
        port = int(line.split()[1].rpartition(b":")[2])
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET)
            answer = await asyncio.wait_for(reader.read(), patient(20))
            writer.close()
            await writer.wait_closed()
            assert answer.startswith(b"HTTP/1.1 200 OK")
    finally:
        process.terminate()
        await process.wait()
    # A caller without the permission is refused before a connection is made.
    await web.admin.identity.create_user(
        user=identity_pb2.User(username="watcher", email="watcher@example.org"), password=PASSWORD
    )
    await web.admin.identity.grant_role(username="watcher", role="observer", namespace=NAMESPACE)
    other = Shell(tmp_path / "other")
    login = ("login", "--server", web.address, "--user", "watcher", "--password-stdin")
    await other.succeed(*login, given=f"{PASSWORD}\n")
    refused = await other.run("port-forward", "web", ":80", "-n", NAMESPACE)
    assert (refused.code, refused.output) == (5, "")
    assert refused.errors.startswith("error: permission container.port_forward is needed in namespace ")
