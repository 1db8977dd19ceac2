"""Programs run in containers: output, input, exit code, audit record, and the end when permission is revoked."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client import ChangeKind, PilothouseError, RetryPolicy
from tests.harness import Server
from tests.main_job.command import COMMAND, Shell, logged_in
from tests.main_job.executing import held, make_web, records_of_ends, run, start
from tests.main_job.terminal import Terminal
from tests.waiting import patient, poll_until, within


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def web(shared_server: Server) -> Server:
    await make_web(shared_server)
    return shared_server


@pytest.fixture
async def own_web(server: Server) -> Server:
    """Returns a server of the test's own, for tests that stop the container or the server."""
    await make_web(server)
    return server


async def test_output_and_exit_code_are_returned(web: Server) -> None:
    out, err, result = await run(web.admin, [start("sh", "-c", "echo out; echo err >&2; exit 7")])
    assert (out, err, result.exit_code) == (b"out\n", b"err\n", 7)
    _, _, result = await run(web.admin, [start("/nosuch")])
    assert result.exit_code == -1
    assert "/nosuch" in result.message


async def test_input_is_passed_on_and_recorded_only_on_request(web: Server) -> None:
    said = [pb.ExecRequest(stdin=b"hello\n"), pb.ExecRequest(close_stdin=True)]
    command = ("cat", "-")
    for record in (False, True):
        out, _, result = await run(web.admin, [start(*command, stdin=True, record=record), *said])
        assert (out, result.exit_code) == (b"hello\n", 0)

    without, with_content = [dict(item.metadata.items()) for item in await records_of_ends(web, 2, command)]
    assert "stdin" not in without
    assert with_content["stdin"] == "hello\n"
    assert with_content["stdout"] == "hello\n"


async def test_records_hide_credentials_in_the_command(web: Server) -> None:
    command = ("/nosuch", "--password", "canary-1", "DB_PASSWORD=canary-2", "--verbose")
    await run(web.admin, [start(*command)])
    shown = ["/nosuch", "--password", "[redacted]", "DB_PASSWORD=[redacted]", "--verbose"]
    (record,) = await records_of_ends(web, 1, shown)
    assert "canary" not in str(record)
    assert MessageToDict(record.request_body)["start"]["command"] == shown


async def test_a_program_ends_when_its_permission_is_revoked(web: Server) -> None:
    user = await web.user("dora", {"demo": "developer"})

    async def converse() -> None:
        async with within(15), user.containers.exec(held(start("sleep", "600"))) as answers:
            async for answer in answers:
                assert answer.HasField("started")
                await web.admin.identity.revoke_role(username="dora", role="developer", namespace="demo")

    with pytest.raises(PilothouseError) as ended:
        await converse()
    assert ended.value.code.name == "PERMISSION_DENIED"
    assert ended.value.reason == "PERMISSION_REVOKED"
    assert ended.value.message == (
        'permission container.exec in namespace "demo" was revoked during the call'
    )
    assert ended.value.metadata == {"permission": "container.exec", "namespace": "demo"}


INPUT = [pb.ExecRequest(stdin=b"x" * 16_000)] * 30


async def test_a_refusal_while_input_is_sent_states_its_reason(web: Server) -> None:
    user = await web.user("ivan", {"demo": "viewer"})
    for _ in range(20):
        with pytest.raises(PilothouseError) as refused:
            await run(user, [start("cat", stdin=True), *INPUT])
        assert refused.value.code.name == "PERMISSION_DENIED"
        assert refused.value.metadata["permission"] == "container.exec"
        copied = [pb.CopyToRequest(data=each.stdin) for each in INPUT]
        first = pb.CopyToRequest(start=pb.CopyToStart(namespace="demo", name="web", path="/tmp"))
        with pytest.raises(PilothouseError) as refused:
            await user.containers.copy_to([first, *copied])
        assert refused.value.code.name == "PERMISSION_DENIED"


async def test_a_program_that_ends_while_input_is_sent_returns_its_result(web: Server) -> None:
    for _ in range(20):
        _, _, result = await run(web.admin, [start("true", stdin=True), *INPUT])
        assert result.exit_code == 0


async def to_its_end(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


async def test_logs_and_watches_end_when_their_permission_is_revoked(web: Server) -> None:
    user = await web.user("dana", {"demo": "developer"})
    streams = (
        user.containers.stream_logs(namespace="demo", name="web", follow=True),
        user.containers.watch(namespace="demo"),
    )
    for stream in streams:
        await anext(stream)
    await web.admin.identity.revoke_role(username="dana", role="developer", namespace="demo")
    for stream in streams:
        with pytest.raises(PilothouseError) as ended:
            await asyncio.wait_for(to_its_end(stream), patient(15))
        assert ended.value.reason == "PERMISSION_REVOKED"


async def test_a_terminal_has_its_size_from_the_start(web: Server) -> None:
    first = start("stty", "size", tty=True, terminal_size=pb.TerminalSize(width=177, height=55))
    for _ in range(5):
        out, _, _ = await run(web.admin, [first])
        assert out == b"55 177\r\n"


@pytest.mark.parametrize(
    ("requests", "field", "words"),
    [
        (
            [start("cat", tty=True), pb.ExecRequest(resize=pb.TerminalSize(height=10))],
            "resize.width",
            "given",
        ),
        (
            [start("cat", tty=True), pb.ExecRequest(resize=pb.TerminalSize(width=1, height=10_001))],
            "resize.height",
            "10000",
        ),
        (
            [start("cat", tty=True, terminal_size=pb.TerminalSize(width=7))],
            "start.terminal_size.height",
            "given",
        ),
        (
            [start("cat", terminal_size=pb.TerminalSize(width=7, height=7))],
            "start.terminal_size",
            "start.tty",
        ),
        (
            [start("sleep", "60"), pb.ExecRequest(resize=pb.TerminalSize(width=7, height=7))],
            "resize",
            "start.tty",
        ),
        ([start("sleep", "60"), pb.ExecRequest(stdin=b"x")], "stdin", "start.stdin"),
    ],
)
async def test_invalid_input_is_refused_by_field(
    web: Server, requests: list[pb.ExecRequest], field: str, words: str
) -> None:
    with pytest.raises(PilothouseError) as refused:
        await run(web.admin, held(*requests))
    assert refused.value.code.name == "INVALID_ARGUMENT"
    assert [violation.field for violation in refused.value.violations] == [field]
    assert words in refused.value.violations[0].description


@pytest.mark.full
async def test_a_stopping_server_waits_for_programs_for_most_of_its_grace(own_web: Server) -> None:
    # The grace period of the tests is five seconds: a program that ends within three of them is not interrupted.
    quick, slow = (
        asyncio.ensure_future(
            run(own_web.admin, held(start("sh", "-c", f"echo begin; sleep {seconds}; echo end")))
        )
        for seconds in (20, 6000)
    )
    watch = own_web.admin.with_options(retry=RetryPolicy(attempts=1)).containers.watch(namespace="demo")
    assert (await anext(watch)).kind is ChangeKind.ADDED

    async def begun() -> bool:
        found = own_web.admin.audit.list_operations(filter='action = "exec"')
        return len([item async for item in found]) == 2

    await poll_until(begun)
    stopping = asyncio.ensure_future(own_web.application.stop())
    out, _, result = await quick
    assert (out, result.exit_code) == (b"begin\nend\n", 0)
    assert not stopping.done()
    with pytest.raises(PilothouseError) as ended:
        await slow
    assert (ended.value.code.name, ended.value.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
    assert "interrupted" in ended.value.message
    with pytest.raises(PilothouseError) as ended:
        await to_its_end(watch)
    assert ended.value.reason == "SHUTTING_DOWN"
    await stopping


async def test_refusals_state_their_reason(own_web: Server) -> None:
    viewer = await own_web.user("vera", {"demo": "viewer"})
    with pytest.raises(PilothouseError) as refused:
        await run(viewer, [start("true")])
    assert refused.value.metadata["permission"] == "container.exec"
    for requests, reason in (
        ([], "REQUIRED"),
        ([pb.ExecRequest(stdin=b"x")], "REQUIRED"),
        (
            [pb.ExecRequest(start=pb.ExecStart(namespace="demo", name="none", command=["x"]))],
            "CONTAINER_NOT_FOUND",
        ),
    ):
        with pytest.raises(PilothouseError) as refused:
            await run(own_web.admin, requests)
        assert refused.value.reason == reason
    await own_web.admin.containers.stop(namespace="demo", name="web")

    async def no_pod() -> bool:
        try:
            await run(own_web.admin, [start("true")])
        except PilothouseError as error:
            return error.reason == "NOT_RUNNING"
        return False

    await poll_until(no_pod)


async def test_the_command_runs_a_program_and_passes_input(web: Server, tmp_path: Path) -> None:
    shell = await logged_in(web, tmp_path)
    where = ("containers", "exec", "web", "--namespace", "demo")
    done = await shell.run(*where, "--", "sh", "-c", "echo out; exit 3")
    assert (done.code, done.output) == (3, "out\n"), done.errors
    piped = await shell.run(*where, "-i", "--", "cat", given="from here\n")
    assert (piped.code, piped.output) == (0, "from here\n")


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal(rows=37, columns=101)
    yield made
    made.close()


def at(terminal: Terminal, shell: Shell, *options: str) -> AbstractAsyncContextManager[Process]:
    """Runs a shell in the container, at this terminal."""
    command = (*options, "containers", "exec", "web", "--namespace", "demo", "-it", "--", "sh")
    return terminal.running(str(COMMAND), *command, env=shell.environment)


async def test_the_command_runs_a_shell_at_a_terminal(
    web: Server, tmp_path: Path, terminal: Terminal
) -> None:
    shell = await logged_in(web, tmp_path)
    async with at(terminal, shell) as process:
        await terminal.shows(b"/ # ")
        assert terminal.is_raw
        terminal.type(b"stty size\r")
        await terminal.shows(b"\r\n37 101\r\n/ # ")
        terminal.resize(50, 120)

        async def resized() -> bool:
            terminal.type(b"stty size\r")
            await terminal.shows(b"stty size\r\n")
            await terminal.shows(b"/ # ")
            return b"50 120" in terminal.shown

        await poll_until(resized)
        terminal.type(b"sleep 3600\r")
        await terminal.shows(b"sleep 3600\r\n")
        terminal.type(b"\x03")
        await terminal.shows(b"^C\r\n/ # ")
        terminal.type(b"echo $?; exit 7\r")
        await terminal.shows(b"\r\n130\r\n")
        assert await asyncio.wait_for(process.wait(), patient(60)) == 7
    assert terminal.is_restored


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_restores_the_terminal(
    web: Server, tmp_path: Path, terminal: Terminal, number: signal.Signals
) -> None:
    shell = await logged_in(web, tmp_path)
    async with at(terminal, shell) as process:
        await terminal.shows(b"/ # ")
        assert terminal.is_raw
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), patient(60)) == 128 + number
    assert terminal.is_restored
    assert b"Traceback" not in terminal.screen


@pytest.mark.full
async def test_a_passed_deadline_restores_the_terminal(
    web: Server, tmp_path: Path, terminal: Terminal
) -> None:
    shell = await logged_in(web, tmp_path)
    async with at(terminal, shell, "--timeout", f"{patient(1.0):g}") as process:
        await terminal.shows(b"/ # ")
        assert terminal.is_raw
        await terminal.shows(b"error: the deadline of the call has passed [DEADLINE_EXCEEDED]\r\n")
        assert await asyncio.wait_for(process.wait(), patient(60)) == 9
    assert terminal.is_restored
