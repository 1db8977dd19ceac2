"""Text from clusters and their programs cannot control the terminal, in any part of the output."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
import yaml

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.commands import invocation
from pilothouse_client.commands.options import Format
from pilothouse_client.commands.output import show, show_all
from pilothouse_client.errors import error_of
from tests.client import fake_services
from tests.client.command import Command
from tests.client.fake_server import FakeServer

WORDS = "cut:\n\x1b]0;title\x07 \x9b2J \u202e.\tend"
SHOWN = "cut:\n ]0;title   2J  .\tend"


class Clusters(fake_services.Containers):
    """The containers of a cluster that puts such text into every field that it can."""

    async def GetContainer(self, request: Any, context: Any) -> Any:
        volumes = resource_pb2.Condition(type="VolumesAttachable", reason="Spread", message=WORDS)
        shown = pb.Container(name=request.name, reason=WORDS, conditions=[volumes])
        return pb.GetContainerResponse(container=shown, events_unavailable=WORDS)

    async def StreamLogs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        problem = pb.LogProblem(container=request.name, pod="pod", message=WORDS)
        yield pb.StreamLogsResponse(problems=[problem])

    async def Exec(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        yield pb.ExecResponse(started=pb.ExecStarted(pod="pod"))
        yield pb.ExecResponse(result=pb.ExecResult(exit_code=126, message=WORDS))


@pytest_asyncio.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeServer]:
    monkeypatch.setattr(fake_services, "Containers", Clusters)
    server = FakeServer()
    await server.start()
    # Stable since 1970, because the transition time is not set.
    stable = resource_pb2.Condition(type="Stable", status=resource_pb2.CONDITION_STATUS_TRUE)
    row = pb.Container(namespace="shop", name="web", uid="u", reason=WORDS, conditions=[stable])
    await server.commit("container", ("shop", "web"), row)
    yield server
    await server.stop()


async def test_control_characters_are_removed_from_a_container(logged_in: Command) -> None:
    ended = await logged_in("containers", "get", "web")
    assert ended.err == f"no events: {SHOWN}\nweb: Spread: {SHOWN}\n"
    # In a table the text takes one line.
    assert SHOWN.translate({10: " ", 9: " "}) in ended.out


async def test_control_characters_are_removed_from_log_and_exec_errors(logged_in: Command) -> None:
    assert (await logged_in("containers", "logs", "web")).err == f"error: web/pod: {SHOWN}\n"
    ended = await logged_in("containers", "exec", "web", "--", "ls")
    assert (ended.code, ended.err) == (126, f"error: {SHOWN}\n")


async def test_control_characters_are_removed_from_progress(logged_in: Command) -> None:
    ended = await logged_in("containers", "start", "web", "--wait")
    assert (ended.code, ended.err) == (0, f"web: running 0/1 {SHOWN}\n")


async def test_control_characters_are_removed_from_field_errors(fake: FakeServer, logged_in: Command) -> None:
    wrong = [(f"container.annotations[{WORDS}]", WORDS), ("container.name", "is wrong")]
    fake.fail("GetContainer", grpc.StatusCode.INVALID_ARGUMENT, violations=wrong)
    ended = await logged_in("containers", "get", "web")
    assert f"\n  container.annotations[{SHOWN}]: {SHOWN}\n" in ended.err
    assert "\x1b" not in ended.err


def test_control_characters_are_removed_from_retry_notices(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(grpc.StatusCode.UNAVAILABLE, WORDS)
    invocation._report_interruption(error)
    assert capsys.readouterr().err == f"interrupted, trying to reconnect: {SHOWN}\n"
    invocation.report_retry(error, invocation._FAILURES_UNTIL_THE_NOTICE)
    assert capsys.readouterr().err == f"retrying until the timeout: {SHOWN}\n"


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_json_and_yaml_contain_the_same_text_escaped(
    capsys: pytest.CaptureFixture[str], form: Format, many: bool
) -> None:
    """People also read these formats."""
    texts = [WORDS, "only \u202e", "\x7f", "two\nlines \u2066", "für: all", "\u200e: " + "long " * 40]
    container = pb.Container(name="web", message="\u2028", annotations={text: text for text in texts})
    if many:
        show_all([container], (), form)
    else:
        show(container, (), form)
    written = capsys.readouterr().out
    assert [each for each in written if not each.isprintable() and each != "\n"] == []
    assert "für: all" in written
    found = json.loads(written) if form is Format.JSON else yaml.safe_load(written)
    (found,) = found if isinstance(found, list) else (found,)
    assert found["annotations"] == {text: text for text in texts}
    assert found["message"] == "\u2028"
