"""exec by websocket: every recorded conversation and refusal, and the rules of shells, streams and terminals."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.values.resources import PODS
from tests.simulator.recordings import load
from tests.simulator.replay import create
from tests.simulator.workloads import poll_cluster
from tests.virtual_time import virtual_time
from tests.waiting import patient, runs_out

pytestmark = pytest.mark.full

JsonObject = dict[str, Any]

_EXEC = "08b-exec-websocket"
_PATH = "/api/v1/namespaces/rec-logs/pods"
_SERVER = {"name": "main", "image": "busybox:1", "command": ["sh", "-c", "sleep 100000"]}
# The output of a line editor: the query for the cursor position, and the prompt that is repeated after a resize.
_PAINT = re.compile(r"\x1b\[6n|\r/ # \x1b\[J|\r\n\r\nBusyBox .*\r\nEnter 'help' .*\r\n\r\n")
_DEADLINE_SECONDS = 10.0
_FORCE_DELETED = 26
_FORBIDDEN_USER = 25


@asynccontextmanager
async def _cluster() -> AsyncIterator[SimulatedCluster]:
    """Yields a cluster with the pods of the recording."""
    async with SimulatedCluster(speed=20, nodes=1) as cluster:
        await create(cluster, "/api/v1/namespaces", {"metadata": {"name": "rec-logs"}})
        huge = {**_SERVER, "resources": {"requests": {"cpu": "1000"}}}
        over = {**_SERVER, "command": ["true"]}
        pods: dict[str, tuple[list[JsonObject], str]] = {
            "box": ([_SERVER], "Always"),
            "pair": ([_SERVER, {**_SERVER, "name": "second"}], "Always"),
            "over": ([over], "Never"),
            "pending": ([huge], "Always"),
            "nopull": ([{**_SERVER, "image": "registry.invalid/nosuch:1"}], "Always"),
        }
        for name, (containers, policy) in pods.items():
            spec = {"containers": containers, "restartPolicy": policy}
            await create(cluster, _PATH, {"metadata": {"name": name}, "spec": spec})
        phases = {"box": "Running", "pair": "Running", "over": "Succeeded"}
        await poll_cluster(
            cluster, lambda: all(_phase(cluster, name) == phase for name, phase in phases.items())
        )
        yield cluster


def _phase(cluster: SimulatedCluster, name: str) -> str:
    pod = cluster.store.get(PODS, "rec-logs", name)
    return str(pod["status"].get("phase")) if pod is not None else ""


class _Conversation:
    """A websocket and the bytes of its channels."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.channels: dict[int, bytes] = {}
        self.first: tuple[int, bytes] | None = None
        self.largest = 0

    async def receive(self) -> bool:
        """Receives one message; returns False at the end."""
        message = await self.socket.receive(timeout=patient(_DEADLINE_SECONDS))
        if message.type is aiohttp.WSMsgType.BINARY:
            channel, data = message.data[0], message.data[1:]
            self.first = self.first or (channel, data)
            self.largest = max(self.largest, len(data))
            self.channels[channel] = self.channels.get(channel, b"") + data
            return True
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED), message
        return False

    async def until_output(self, wanted: bytes) -> None:
        """Reads until the standard output, without the line editor's output, is `wanted`."""
        while _unpainted(self.channels.get(1, b"")) != wanted:
            assert await self.receive(), f"ended with {self.channels}, wanted {wanted!r}"

    async def to_the_end(self) -> JsonObject:
        """Reads to the end; returns the Status."""
        while await self.receive():
            pass
        status: JsonObject = json.loads(self.channels.get(3, b"{}"))
        return status


def _unpainted(data: bytes) -> bytes:
    return _PAINT.sub("", data.decode()).encode()


@asynccontextmanager
async def _exec(
    cluster: SimulatedCluster,
    pod: str,
    query: list[tuple[str, str]],
    protocols: tuple[str, ...] = ("v5.channel.k8s.io", "v4.channel.k8s.io"),
) -> AsyncIterator[_Conversation]:
    headers = {"authorization": f"Bearer {cluster.token}"}
    async with (
        aiohttp.ClientSession(cluster.url, headers=headers) as session,
        session.ws_connect(f"{_PATH}/{pod}/exec", params=query, protocols=protocols) as socket,
    ):
        yield _Conversation(socket)


async def _run(cluster: SimulatedCluster, *command: str, pod: str = "box") -> tuple[str, str, int]:
    """Returns output, error output and exit code of a command."""
    query = [("stdout", "true"), ("stderr", "true"), *(("command", word) for word in command)]
    async with _exec(cluster, pod, query) as conversation:
        status = await conversation.to_the_end()
    causes = (status.get("details") or {}).get("causes") or []
    code = next((int(cause["message"]) for cause in causes if cause.get("reason") == "ExitCode"), 0)
    return conversation.channels.get(1, b"").decode(), conversation.channels.get(2, b"").decode(), code


def _query(request: JsonObject) -> list[tuple[str, str]]:
    return [
        (name, part)
        for name, value in request["query"].items()
        for part in (value if isinstance(value, list) else [value])
    ]


def _recorded_output(frames: list[JsonObject], channel: int) -> bytes:
    """Returns the recorded bytes of a channel; abbreviated data is restored by repeating its first byte."""
    text = b""
    for frame in frames:
        if frame["dir"] != "received" or frame.get("channel") != channel:
            continue
        data = frame["data"].encode()
        text += data[:1] * frame["bytes"] if "bytes" in frame else data
    return text


async def _converse(cluster: SimulatedCluster, number: int, exchange: JsonObject) -> None:
    """Replays the input and compares the output, channel by channel."""
    request, frames = exchange["request"], exchange["response"]["frames"]
    protocols = tuple(request["headers"]["sec-websocket-protocol"].replace(",", " ").split())
    pod = request["path"].split("/")[-2]
    async with _exec(cluster, pod, _query(request), protocols) as conversation:
        assert (conversation.socket.protocol or "") == exchange["response"]["headers"][
            "sec-websocket-protocol"
        ]
        for position, frame in enumerate(frames):
            if frame["dir"] == "-":
                await conversation.until_output(_recorded_output(frames, 1))
                # Its input cannot be closed, so the program waits until the client disconnects.
                with pytest.raises(TimeoutError):
                    await conversation.socket.receive(timeout=runs_out(0.2))
                return
            if frame["dir"] == "received":
                continue
            await conversation.until_output(_unpainted(_recorded_output(frames[:position], 1)))
            closes = (
                bytes([frame["closes_channel"]])
                if "closes_channel" in frame
                else frame.get("data", "").encode()
            )
            await conversation.socket.send_bytes(bytes([frame["channel"]]) + closes)
        if number == _FORCE_DELETED:
            await conversation.until_output(b"begin\n")
            cluster.store.delete(PODS, "rec-logs", pod, grace_period_seconds=0)
        status = await conversation.to_the_end()
        assert conversation.socket.close_code == 1000
    assert conversation.first == (1, b"")
    assert conversation.largest <= 32_768
    for channel in (1, 2):
        assert _unpainted(conversation.channels.get(channel, b"")) == _unpainted(
            _recorded_output(frames, channel)
        )
    recorded = json.loads(_recorded_output(frames, 3) or b"{}")
    assert {**status, "message": "", "details": _causes(status)} == {
        **recorded,
        "message": "",
        "details": _causes(recorded),
    }


def _causes(status: JsonObject) -> list[tuple[Any, Any]]:
    """Returns the causes without the container runtime's messages, which vary."""
    causes = (status.get("details") or {}).get("causes") or []
    return [(cause.get("reason"), cause["message"] if cause.get("reason") else "") for cause in causes]


@virtual_time
async def test_conversations_are_as_recorded() -> None:
    conversations = [
        (number, exchange)
        for number, exchange in enumerate(load(_EXEC)["exchanges"])
        if "frames" in exchange["response"] and "text message" not in str(exchange["response"]["frames"])
    ]
    assert len(conversations) > 12
    async with _cluster() as cluster:
        await asyncio.gather(
            *(_converse(cluster, *entry) for entry in conversations if entry[0] != _FORCE_DELETED)
        )
        await _converse(cluster, *conversations[-1])


@virtual_time
async def test_refusals_are_as_recorded() -> None:
    async with _cluster() as cluster:
        cluster.users.add("seen", "viewer", [])
        for number, exchange in enumerate(load(_EXEC)["exchanges"]):
            request, recorded = exchange["request"], exchange["response"]
            if recorded["status"] < 400:
                continue
            token = "seen" if number == _FORBIDDEN_USER else cluster.token
            sent = {**request["headers"], "authorization": f"Bearer {token}"}
            if "upgrade" in sent:
                sent |= {"sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
            async with (
                aiohttp.ClientSession(cluster.url) as session,
                session.get(request["path"], params=_query(request), headers=sent) as response,
            ):
                text = await response.text()
                assert response.status == recorded["status"], (number, text)
                if "body" in recorded:
                    assert json.loads(text) == recorded["body"]
                else:
                    assert text == recorded["text"]


@virtual_time
async def test_base64_messages_are_as_recorded() -> None:
    query = [
        ("stdout", "true"),
        ("stderr", "true"),
        ("command", "sh"),
        ("command", "-c"),
        ("command", "echo hi"),
    ]
    async with (
        _cluster() as cluster,
        _exec(cluster, "box", query, ("base64.channel.k8s.io",)) as conversation,
    ):
        messages = [message.data async for message in conversation.socket]
    assert messages == ["1", "1aGkK"]


@pytest.mark.parametrize(
    ("script", "output", "errors", "code"),
    [
        ("echo $HOSTNAME; hostname", "box\nbox\n", "", 0),
        ("a=1; b=\"$a 2\"; echo $b '$a'", "1 2 $a\n", "", 0),
        ("false && echo no || echo yes; true", "yes\n", "", 0),
        ("if [ -f /etc/hostname ]; then cat /etc/hostname; else exit 2; fi", "box\n", "", 0),
        ("while true; do echo x; exit 4; done", "x\n", "", 4),
        ("echo a > /tmp/f; echo b >> /tmp/f; cat < /tmp/f | wc", "2\n", "", 0),
        ("echo $(echo a b) \"$(echo 'c  d')\"", "a b c  d\n", "", 0),
        ("cat /nosuch", "", "cat: can't open '/nosuch': No such file or directory\n", 1),
        ("nosuch", "", "sh: nosuch: not found\n", 127),
        ("nosuch 2>/dev/null || echo $?", "127\n", "", 0),
        ("printf '%s-%s\\n' a b | tr a-z A-Z", "A-B\n", "", 0),
        ("for i in 1 2; do echo $i; done | grep 2", "2\n", "", 0),
        ("sleep 1 & wait; echo done", "done\n", "", 0),
        ("! true", "", "", 1),
        ("head -c 5 | wc -c", "0\n", "", 0),
        ("echo ${nothing:-else}; unset; exit 300", "else\n", "sh: unset: not found\n", 44),
    ],
)
@virtual_time
async def test_a_shell_runs_typical_scripts(script: str, output: str, errors: str, code: int) -> None:
    async with SimulatedCluster(speed=20, nodes=1) as cluster:
        await create(cluster, "/api/v1/namespaces", {"metadata": {"name": "rec-logs"}})
        await create(cluster, _PATH, {"metadata": {"name": "box"}, "spec": {"containers": [_SERVER]}})
        await poll_cluster(cluster, lambda: _phase(cluster, "box") == "Running")
        assert await _run(cluster, "sh", "-c", script) == (output, errors, code)


@virtual_time
async def test_a_syntax_error_is_reported() -> None:
    async with _cluster() as cluster:
        for script in ("echo 'a", "if true", "| cat", "echo >", "done", "for i in a; echo"):
            output, errors, code = await _run(cluster, "sh", "-c", script)
            assert (output, code) == ("", 2)
            assert errors.startswith("sh: syntax error: ")


@virtual_time
async def test_the_environment_is_that_of_the_container() -> None:
    async with _cluster() as cluster:
        env = [
            {"name": "GREETING", "value": "hello"},
            {"name": "TWICE", "value": "$(GREETING) $(GREETING) $$(GREETING)"},
            {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ]
        spec = {"containers": [{**_SERVER, "env": env}]}
        await create(cluster, _PATH, {"metadata": {"name": "env"}, "spec": spec})
        await poll_cluster(cluster, lambda: _phase(cluster, "env") == "Running")
        output, _, code = await _run(cluster, "env", pod="env")
        lines = output.splitlines()
        assert code == 0
        assert {"GREETING=hello", "TWICE=hello hello $(GREETING)", "WHERE=rec-logs", "HOSTNAME=env"} <= set(
            lines
        )
        assert await _run(cluster, "printenv", "NOTHING", pod="env") == ("", "", 1)


@virtual_time
async def test_a_terminal_echoes_edits_and_interrupts() -> None:
    query = [("stdin", "true"), ("stdout", "true"), ("tty", "true"), ("command", "cat")]
    async with _cluster() as cluster:
        async with _exec(cluster, "box", query) as conversation:
            await conversation.socket.send_bytes(b"\x00helpx\x7flo\r")
            await conversation.until_output(b"helpx\b \blo\r\nhelplo\r\n")
            await conversation.socket.send_bytes(b"\x00\x03")
            status = await conversation.to_the_end()
            assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "130"}]
        async with _exec(cluster, "box", query) as conversation:
            await conversation.socket.send_bytes(b"\x00end\n\x04")
            assert (await conversation.to_the_end())["status"] == "Success"


@virtual_time
async def test_an_interrupt_returns_a_shell_to_its_prompt() -> None:
    query = [("stdin", "true"), ("stdout", "true"), ("tty", "true"), ("command", "sh")]
    async with _cluster() as cluster, _exec(cluster, "box", query) as conversation:
        seen = ""

        async def turn(keys: bytes, shown: str) -> None:
            nonlocal seen
            await conversation.socket.send_bytes(b"\x00" + keys)
            seen += shown
            await conversation.until_output(seen.encode())

        seen = "/ # "
        await conversation.until_output(seen.encode())
        await turn(b"sleep 1000\r", "sleep 1000\r\n")
        await turn(b"\x03", "^C\r\n/ # ")
        await turn(b"echo $?\r", "echo $?\r\n130\r\n/ # ")
        await turn(b"half a line\x03", "half a line^C\r\n/ # ")
        # An inner shell has its own prompt, and returns to the prompt of the outer shell at its end.
        await turn(b"sh\r", "sh\r\n/ # ")
        await turn(b"sleep 1000\r", "sleep 1000\r\n")
        await turn(b"\x03", "^C\r\n/ # ")
        await turn(b"exit 4\r", "exit 4\r\n/ # ")
        await turn(b"\x03", "^C\r\n/ # ")
        await conversation.socket.send_bytes(b"\x00exit 5\r")
        status = await conversation.to_the_end()
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]


@virtual_time
async def test_large_input_arrives_completely() -> None:
    sent = bytes(range(256)) * 4096
    query = [("stdin", "true"), ("stdout", "true"), ("command", "cat")]
    async with _cluster() as cluster, _exec(cluster, "box", query) as conversation:

        async def send() -> None:
            for start in range(0, len(sent), 30_000):
                await conversation.socket.send_bytes(b"\x00" + sent[start : start + 30_000])
            await conversation.socket.send_bytes(b"\xff\x00")

        _, status = await asyncio.gather(send(), conversation.to_the_end())
    assert status["status"] == "Success"
    assert conversation.channels[1] == sent


@virtual_time
async def test_a_program_ends_when_its_client_disconnects() -> None:
    script = "echo begin; sleep 5; echo late > /tmp/late"
    query = [("stdout", "true"), ("command", "sh"), ("command", "-c"), ("command", script)]
    async with _cluster() as cluster:
        async with _exec(cluster, "box", query) as conversation:
            await conversation.until_output(b"begin\n")
        await cluster.clock.sleep(6)
        assert (await _run(cluster, "cat", "/tmp/late"))[2] == 1
