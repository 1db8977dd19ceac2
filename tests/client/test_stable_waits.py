"""Waiting for a container to stay up: by the server's clock, over cut watches, and failing if it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import Client, RetryPolicy
from pilothouse_client.streams import Change, ChangeKind
from pilothouse_client.waiting import (
    FALSE,
    TRUE,
    ContainerWait,
    Goal,
    Patience,
    ServerTime,
    Verdict,
    WaitError,
    WaitOutcome,
    scales_up,
    wait_for,
)
from tests.client.fake_server import FakeServer
from tests.waiting import patient, poll_until

# The server's time, unrelated to this machine's clock.
BEGIN = datetime(2031, 5, 1, tzinfo=UTC)
QUICK = RetryPolicy(initial_delay=0.001, greatest_delay=0.01)
ASKED = pb.Container(name="web", namespace="shop", uid="u", generation=3)
STABLE_FOR, UNSCHEDULABLE_FOR = 10.0, 60.0


def condition(type_: str, status: Any, reason: str = "", *, since: float = 0.0) -> resource_pb2.Condition:
    made = resource_pb2.Condition(type=type_, status=status, reason=reason, message=f"{reason} it says")
    made.last_transition_time.FromDatetime(BEGIN + timedelta(seconds=since))
    return made


def running(*conditions: resource_pb2.Condition, **state: Any) -> pb.Container:
    fields: dict[str, Any] = {"status": pb.CONTAINER_STATUS_RUNNING, "observed_generation": 3, **state}
    return pb.Container(
        name="web", namespace="shop", uid="u", generation=3, conditions=conditions, replicas=1, **fields
    )


def stable(since: float = 0.0) -> resource_pb2.Condition:
    return condition("Stable", TRUE, "Stable", since=since)


class Story:
    """A wait, and the watch messages that it receives at given seconds of the server's time."""

    def __init__(self, scaled_up: Callable[[pb.Container], bool] = lambda _: False) -> None:
        self.time = ServerTime()
        self.wait = ContainerWait(ASKED, Goal.RUNNING, Patience(STABLE_FOR, UNSCHEDULABLE_FOR), scaled_up)
        self.seen = pb.Container()

    def at(self, seconds: float, seen: pb.Container | None = None, **change: Any) -> WaitOutcome:
        """Delivers one watch message: a change of the container, or a bookmark. Returns the outcome."""
        return self.verdict(BEGIN + timedelta(seconds=seconds), seen, **change).outcome

    def verdict(self, time: datetime | None, seen: pb.Container | None = None, **change: Any) -> Verdict:
        kind = ChangeKind.BOOKMARK if seen is None else ChangeKind.MODIFIED
        self.seen = self.seen if seen is None else seen
        fields: dict[str, Any] = {"kind": kind, "resume_token": "token", "server_time": time, **change}
        self.time.note(Change(resource=self.seen, **fields))
        return self.wait.judge(self.seen, self.time)


def test_a_wait_ends_after_the_stable_time_without_an_event() -> None:
    story = Story()
    assert story.at(0, running()) is WaitOutcome.WAITING
    assert story.at(3, running(stable(3))) is WaitOutcome.WAITING
    assert story.at(12.9) is WaitOutcome.WAITING
    verdict = story.verdict(BEGIN + timedelta(seconds=12.9))
    assert verdict.why == "waiting until it has run for 10 s without a restart"
    assert story.at(13) is WaitOutcome.ARRIVED


def test_a_long_stable_container_arrives_when_synced() -> None:
    story = Story()
    first = story.verdict(None, running(stable(-60)), kind=ChangeKind.ADDED, resume_token="")
    assert first.outcome is WaitOutcome.WAITING
    assert story.at(0, kind=ChangeKind.SYNCED) is WaitOutcome.ARRIVED


def test_a_restart_resets_the_stable_time_or_fails_the_wait() -> None:
    story = Story()
    story.at(0, running(stable()))
    # The restart was so short that no message showed the container as unstable.
    assert story.at(9, running(stable(9))) is WaitOutcome.WAITING
    assert story.at(12) is WaitOutcome.WAITING
    restarted = story.verdict(BEGIN, running(condition("Stable", FALSE, "Restarted")))
    assert (restarted.outcome, restarted.why) == (
        WaitOutcome.FAILED,
        "a newest pod restarts: Restarted it says",
    )


def test_the_stable_time_before_a_cut_does_not_count() -> None:
    story = Story()
    story.at(0, running(stable()))
    assert story.at(60, resumed=True) is WaitOutcome.WAITING
    assert story.at(69) is WaitOutcome.WAITING
    assert story.at(70) is WaitOutcome.ARRIVED
    # The same holds if the watch starts again with a new state.
    again = Story()
    again.at(0, running(stable()))
    again.verdict(None, kind=ChangeKind.RESTARTED, resume_token="")
    assert again.verdict(None, kind=ChangeKind.ADDED, resume_token="").outcome is WaitOutcome.WAITING
    assert again.at(60, kind=ChangeKind.SYNCED) is WaitOutcome.WAITING
    assert again.at(70) is WaitOutcome.ARRIVED


@pytest.mark.parametrize(
    "state",
    [
        {"observed_generation": 2},
        {"reconciling": True},
        {"status": pb.CONTAINER_STATUS_PENDING},
        {"conditions": (condition("Stable", FALSE, "Waiting"),)},
        {"conditions": (stable(), condition("RolledOut", FALSE, "RollingOut"))},
    ],
)
def test_stability_before_the_change_does_not_count(state: dict[str, Any]) -> None:
    conditions = state.pop("conditions", (stable(),))
    assert Story().at(99, running(*conditions, **state)) is WaitOutcome.WAITING


def test_a_stale_container_is_waited_for() -> None:
    story = Story()
    away = running(stable())
    away.stale_since.FromDatetime(BEGIN)
    assert story.at(99, away) is WaitOutcome.WAITING


def test_a_held_rollout_arrives_with_its_running_pods() -> None:
    held = condition("RolledOut", FALSE, "RolloutHeld")
    assert Story().at(99, running(held, stable())) is WaitOutcome.ARRIVED
    assert Story().at(99, running(held, condition("Stable", FALSE, "Restarted"))) is WaitOutcome.FAILED


def test_crashing_old_pods_do_not_fail_the_wait() -> None:
    no_room = condition("RolledOut", FALSE, "Unschedulable")
    waiting = condition("Stable", FALSE, "Waiting")
    looping = running(no_room, waiting, status=pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF)
    assert Story().at(0, looping) is WaitOutcome.WAITING


def test_an_unschedulable_pod_fails_after_a_minute_unless_scaling_up() -> None:
    pending = running(condition("RolledOut", FALSE, "Unschedulable"), status=pb.CONTAINER_STATUS_PENDING)
    story = Story()
    assert story.at(0, pending) is WaitOutcome.WAITING
    assert story.at(59) is WaitOutcome.WAITING
    failed = story.verdict(BEGIN + timedelta(seconds=60))
    assert failed.outcome is WaitOutcome.FAILED
    assert failed.why == (
        "no node has had room for it for 60 s, and no autoscaler adds one: Unschedulable it says"
    )
    asked: list[pb.Container] = []

    def scaled_up(seen: pb.Container) -> bool:
        asked.append(seen)
        return True

    scaling = Story(scaled_up)
    assert scaling.at(0, pending) is WaitOutcome.WAITING
    assert scaling.at(60) is WaitOutcome.WAITING
    assert len(asked) == 1
    assert scaling.at(119) is WaitOutcome.WAITING
    # A minute without room that is interrupted by room starts again.
    between = Story()
    between.at(0, pending)
    between.at(30, running(condition("RolledOut", FALSE, "RollingOut")))
    between.at(40, pending)
    assert between.at(99) is WaitOutcome.WAITING
    assert between.at(100) is WaitOutcome.FAILED


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeServer]:
    server = FakeServer()
    server.api_keys["key"] = "admin"
    await server.start()
    yield server
    await server.stop()


@pytest.mark.parametrize(
    ("events", "unavailable", "scales"),
    [
        (["NotTriggerScaleUp", "FailedScheduling"], "", False),
        (["FailedScheduling", "TriggeredScaleUp"], "", True),
        ([], "the cluster does not answer", True),
        ([], "", False),
    ],
)
async def test_events_show_whether_a_node_is_being_added(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch, events: list[str], unavailable: str, scales: bool
) -> None:
    """If the events cannot be read, the wait continues."""
    await fake.commit("container", ("shop", "web"), running())
    told = [resource_pb2.KubernetesEvent(reason=reason) for reason in events]
    fake.events, fake.events_unavailable = told, unavailable
    with Client(fake.address, token="key") as client:
        assert await asyncio.to_thread(scales_up, client, ASKED) is scales
    fake.fail("GetContainer", grpc.StatusCode.PERMISSION_DENIED, reason="DENIED")
    with Client(fake.address, token="key") as client:
        assert await asyncio.to_thread(scales_up, client, ASKED)


async def test_a_wait_continues_after_a_cut_and_counts_from_there(fake: FakeServer) -> None:
    await fake.commit("container", ("shop", "web"), running(stable()))
    times = {1: 5.0, 2: 20.0}
    told: list[float] = []

    def server_time() -> datetime:
        told.append(times[len(fake.calls_of("WatchContainers"))])
        return BEGIN + timedelta(seconds=told[-1])

    async def was_told(seconds: float) -> bool:
        return told.count(seconds) > 3

    fake.bookmark_period, fake.server_time = 0.01, server_time
    patience = Patience(STABLE_FOR)
    with Client(fake.address, token="key", retry=QUICK) as client:
        waiting = asyncio.create_task(
            asyncio.to_thread(wait_for, client, ASKED, Goal.RUNNING, timeout=patient(60), patience=patience)
        )
        await poll_until(lambda: was_told(5))
        await fake.cut_watches()
        # It has been stable for 20 seconds, but the watch was cut during that time.
        await poll_until(lambda: was_told(20))
        assert not waiting.done()
        times[2] = 30.0
        assert (await waiting).name == "web"


async def test_a_stateful_set_restart_fails_with_the_last_lines_of_its_pod(fake: FakeServer) -> None:
    restarts = condition("Stable", FALSE, "Restarted")
    restarts.message = "program main of pod db-1 ended: Error, exit code 1"
    await fake.commit("container", ("shop", "web"), running(restarts))
    fake.log = [("db-10", b"of another"), ("db-1", b"no database"), ("db-0", b"of another")]
    with Client(fake.address, token="key") as client, pytest.raises(WaitError) as failed:
        await asyncio.to_thread(wait_for, client, ASKED, Goal.RUNNING, timeout=patient(30))
    assert failed.value.last_lines == ("no database",)


async def test_a_restart_fails_with_the_last_lines_if_they_are_readable(fake: FakeServer) -> None:
    restarted = running(condition("Stable", FALSE, "Restarted"), replica_set_name="web-2")
    await fake.commit("container", ("shop", "web"), restarted)
    fake.log = [("web-1-old", b"of before"), ("web-2-a", b"begins"), ("web-2-a", b"no database")]
    with Client(fake.address, token="key") as client:
        for denied in (False, True):
            if denied:
                fake.fail("StreamLogs", grpc.StatusCode.PERMISSION_DENIED, reason="DENIED", times=2)
            with pytest.raises(WaitError, match="web: a newest pod restarts: ") as failed:
                await asyncio.to_thread(wait_for, client, ASKED, Goal.RUNNING, timeout=patient(30))
            assert failed.value.last_lines == (() if denied else ("begins", "no database"))
    assert fake.calls_of("StreamLogs")[0].request.previous
