"""The audit record of a program run in a container: its exit code, and the reason why the call ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import pytest_asyncio

from pilothouse.audit.v1 import audit_pb2
from pilothouse_client import PilothouseError
from tests.harness import Server
from tests.main_job.command import COMMAND, logged_in
from tests.main_job.executing import held, make_web, records_of_ends, run, start
from tests.main_job.terminal import Terminal
from tests.waiting import patient, poll_until, within


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def web(shared_server: Server) -> Server:
    await make_web(shared_server)
    return shared_server


def told(record: audit_pb2.Operation) -> tuple[str, object]:
    """Returns the error code of the call and the exit code of the program."""
    return record.error_code, dict(record.metadata.items()).get("exit_code")


async def test_the_exit_code_is_recorded(web: Server) -> None:
    await run(web.admin, [start("sh", "-c", "exit 42")])
    await run(web.admin, [start("true", "and-ends")])
    _, _, result = await run(web.admin, [start("/nosuch")])
    commands = (("sh", "-c", "exit 42"), ("true", "and-ends"), ("/nosuch",))
    ((failed,), (done,), (not_run,)) = [await records_of_ends(web, 1, command) for command in commands]
    assert (told(failed), told(done), told(not_run)) == (("", 42), ("", 0), ("", -1))
    assert not_run.metadata["message"] == result.message
    assert "message" not in done.metadata


async def test_a_client_that_leaves_after_the_result_cancels_nothing(web: Server) -> None:
    for _ in range(5):
        async with within(20), web.admin.containers.exec(held(start("true", "x", stdin=True))) as answers:
            async for answer in answers:
                if answer.HasField("result"):
                    break
    assert [told(record) for record in await records_of_ends(web, 5, ("true", "x"))] == [("", 0)] * 5


async def test_a_client_that_leaves_before_the_result_cancels_the_call(web: Server) -> None:
    async with within(20), web.admin.containers.exec(held(start("sleep", "600"))) as answers:
        async for answer in answers:
            assert answer.HasField("started")
            break
    (record,) = await records_of_ends(web, 1, ("sleep", "600"))
    assert told(record) == ("CANCELLED", None)
    assert record.error_message == "the client cancelled the call or disconnected"


@pytest.mark.full
async def test_a_passed_deadline_is_recorded(web: Server) -> None:
    hasty = web.admin.with_options(timeout=patient(0.3))
    with pytest.raises(PilothouseError) as ended:
        await run(hasty, held(start("sleep", "6000")))
    assert ended.value.code.name == "DEADLINE_EXCEEDED"
    with pytest.raises(PilothouseError) as ended:
        async for _ in hasty.containers.watch(namespace="demo"):
            pass
    (record,) = await records_of_ends(web, 1, ("sleep", "6000"))
    assert told(record) == ("DEADLINE_EXCEEDED", None)

    async def watch_ended() -> list[str]:
        watches = web.admin.audit.list_operations(filter='action = "watch"')
        return [item.error_code async for item in watches if item.error_code]

    assert await poll_until(watch_ended) == ["DEADLINE_EXCEEDED"]


async def test_programs_run_by_the_command_are_recorded(web: Server, tmp_path: Path) -> None:
    shell = await logged_in(web, tmp_path)
    where = ("containers", "exec", "web", "--namespace", "demo")
    done = await shell.run(*where, "-i", "--", "sh", "-c", "cat; exit 3", given="from here\n")
    assert (done.code, done.output) == (3, "from here\n"), done.errors
    # More input than the program reads: the command ends anyway.
    done = await shell.run(*where, "-i", "--", "true", "unread", given="x" * 4_000_000)
    assert done.code == 0, done.errors
    terminal = Terminal(rows=37, columns=101)
    try:
        command = (*where, "-it", "--", "sh", "-c", "exit 5")
        async with terminal.running(str(COMMAND), *command, env=shell.environment) as process:
            assert await asyncio.wait_for(process.wait(), patient(60)) == 5
    finally:
        terminal.close()
    for program, code in (
        (("sh", "-c", "cat; exit 3"), 3),
        (("true", "unread"), 0),
        (("sh", "-c", "exit 5"), 5),
    ):
        (record,) = await records_of_ends(web, 1, program)
        assert told(record) == ("", code)
