"""One verb for several containers: how they are named, the output, and the exit code."""

from __future__ import annotations

import json

import grpc
import pytest

from pilothouse.container.v1 import container_pb2 as pb
from tests.client.command import Command
from tests.client.fake_server import FakeServer


async def _made(fake: FakeServer, *names: str) -> None:
    for name in names:
        await fake.commit(
            "container",
            ("shop", name),
            pb.Container(namespace="shop", name=name, image="nginx", labels={"a": name}),
        )


async def test_names_labels_or_all(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake, "a", "b", "c")
    await logged_in("containers", "delete", "a", "b", "-y")
    assert [call.request.name for call in fake.calls_of("DeleteContainer")] == ["a", "b"]
    await logged_in("containers", "delete", "--all", "-y")
    assert [call.request.name for call in fake.calls_of("DeleteContainer")][2:] == ["c"]
    await _made(fake, "a")
    await logged_in("containers", "stop", "-l", "a=a")
    assert fake.calls_of("ListContainers")[-1].request.label_selector == "a=a"
    for line in ([], ["a", "--all"], ["-l", "a=b", "--all"]):
        ended = await logged_in("containers", "stop", *line)
        assert (ended.code, "one of the three" in ended.err) == (2, True)


async def test_a_failure_stops_none_of_the_others(fake: FakeServer, logged_in: Command) -> None:
    """Each failure has a line with its name; the highest exit code counts, and the rest is done."""
    await _made(fake, "a", "c")
    ended = await logged_in("containers", "delete", "a", "nobody", "c", "-y")
    assert ended.code == 6
    assert ended.err.splitlines()[0].startswith("error: nobody: ")
    assert ended.err.splitlines()[-1] == "2 deleted, 1 failed"
    assert [line.split()[0] for line in ended.lines[1:]] == ["a", "c"]
    again = await logged_in("containers", "delete", "x", "y", "-y", "--json-errors")
    assert [json.loads(line)["name"] for line in again.err.splitlines()[:-1]] == ["x", "y"]


async def test_one_name_is_no_batch(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake, "a", "b")
    one = await logged_in("containers", "delete", "a", "-y", "-o", "json")
    assert (json.loads(one.out)["name"], one.err) == ("a", "")
    assert isinstance(
        json.loads((await logged_in("containers", "delete", "--all", "-y", "-o", "json")).out), list
    )


async def test_scale_reads_its_last_argument(fake: FakeServer, logged_in: Command) -> None:
    await logged_in("containers", "scale", "a", "b", "3")
    assert [(call.request.name, call.request.replicas) for call in fake.calls_of("ScaleContainer")] == [
        ("a", 3),
        ("b", 3),
    ]
    ended = await logged_in("containers", "scale", "a", "many")
    assert (ended.code, "number of pods, not 'many'" in ended.err) == (2, True)


@pytest.mark.parametrize("verb", ["delete", "start", "stop", "pause", "resume", "restart", "scale"])
async def test_a_dry_run_asks_nobody_and_changes_nothing(
    fake: FakeServer, logged_in: Command, verb: str
) -> None:
    await _made(fake, "a", "b")
    ended = await logged_in("containers", verb, "a", "b", *(["1"] if verb == "scale" else []), "--dry-run")
    calls = [call for call in fake.calls if call.method.lower() == f"{verb}container"]
    assert [call.request.validate_only for call in calls] == [True, True]
    assert "(dry run)" in ended.err


async def test_a_question_names_them(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake, *(f"c{number}" for number in range(12)))
    ended = await logged_in("containers", "delete", "--all")
    assert ended.code == 2
    assert "Delete 12 containers of shop (c0, c1, " in ended.err
    assert " and 2 more)?" in ended.err
    assert fake.calls_of("DeleteContainer") == []


async def test_the_highest_exit_code(fake: FakeServer, logged_in: Command) -> None:
    for code in ("NOT_FOUND", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED"):
        fake.fail("StopContainer", grpc.StatusCode[code])
    assert (await logged_in("containers", "stop", "a", "b", "c")).code == 8
