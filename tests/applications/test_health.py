"""The health of applications and their members, computed by pure functions of their states."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pilothouse_server.applications.health import (
    PresentState,
    becomes_unschedulable,
    health_of,
    member_health,
)
from pilothouse_server.applications.model import Member, MemberKey, MemberNoun
from pilothouse_server.values.resources import Condition, ConditionStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNS = (Condition("RolledOut", "True"), Condition("Stable", "True", "Stable"))


def present(status: str = "running", **given: Any) -> PresentState:
    fields = {"reason": "", "message": "", "state": "running", "conditions": (), "applied": True}
    return PresentState(status=status, **{**fields, "going": False, **given})


def condition(type_: str, reason: str, status: ConditionStatus = "False", seconds: float = 0) -> Condition:
    return Condition(type_, status, reason, f"words of {reason}", NOW - timedelta(seconds=seconds))


def rolled_out(reason: str, seconds: float = 0) -> tuple[Condition, ...]:
    return (condition("RolledOut", reason, seconds=seconds), condition("Stable", "Waiting"))


CONTAINERS = {
    "runs": (present(conditions=RUNS), "healthy", "", False),
    "is not applied yet": (present(conditions=RUNS, applied=False), "progressing", "Applying", False),
    "rolls out": (present(conditions=rolled_out("RollingOut")), "progressing", "RollingOut", False),
    "serves, and pods are not ready": (
        present(conditions=(RUNS[0], condition("Stable", "Waiting"))),
        "progressing",
        "Waiting",
        False,
    ),
    "restarts": (
        present("crash_loop_back_off", conditions=(RUNS[0], condition("Stable", "Restarted"))),
        "degraded",
        "Restarted",
        True,
    ),
    "has no image": (
        present("pending", conditions=rolled_out("ErrImagePull")),
        "degraded",
        "ErrImagePull",
        True,
    ),
    "was given up": (
        present("pending", conditions=rolled_out("ProgressDeadlineExceeded")),
        "degraded",
        "ProgressDeadlineExceeded",
        True,
    ),
    "has had no room for a while": (
        present("pending", conditions=rolled_out("Unschedulable", 59)),
        "progressing",
        "Unschedulable",
        False,
    ),
    "has had no room for a minute": (
        present("pending", conditions=rolled_out("Unschedulable", 60)),
        "degraded",
        "Unschedulable",
        True,
    ),
    "fails": (
        present("failed", reason="FailedCreate", conditions=rolled_out("FailedCreate")),
        "degraded",
        "FailedCreate",
        True,
    ),
    "failed before, and rolls out": (
        present("failed", reason="Error", conditions=rolled_out("RollingOut")),
        "progressing",
        "RollingOut",
        False,
    ),
    "was refused before a change": (
        present(conditions=(condition("Applied", "Invalid"),), applied=False),
        "progressing",
        "Applying",
        False,
    ),
    "is refused": (present(conditions=(condition("Applied", "Invalid"),)), "degraded", "Invalid", True),
    "is stopped": (present("stopped", state="stopped"), "suspended", "Stopped", False),
    "is paused": (present("paused", state="paused", applied=False), "suspended", "Paused", False),
    "is held": (present(conditions=rolled_out("RolloutHeld")), "suspended", "RolloutHeld", False),
    "wants no pods": (present("stopped", reason="NoReplicas"), "healthy", "", False),
    "has succeeded": (present("succeeded", reason="CompletionsReached"), "healthy", "", False),
    "is a Job that has failed": (
        present("failed", reason="BackoffLimitExceeded"),
        "degraded",
        "BackoffLimitExceeded",
        True,
    ),
    "is being deleted": (present(going=True), "missing", "Deleted", False),
    "is gone": (None, "missing", "Deleted", False),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_health_of_a_container_that(case: str) -> None:
    state, *expected = CONTAINERS[case]
    found = member_health("container", state, NOW)
    assert [found.status, found.reason, found.failed] == expected
    assert found.message or found.reason or found.status == "healthy"


def test_an_unschedulable_container_has_a_time_of_failure() -> None:
    waits = present("pending", conditions=rolled_out("Unschedulable", 20))
    assert becomes_unschedulable("container", waits) == NOW + timedelta(seconds=40)
    assert becomes_unschedulable("container", present(conditions=RUNS)) is None


OTHERS: dict[str, tuple[MemberNoun, PresentState, str]] = {
    "a Service": ("service", present("active"), "healthy"),
    "a Service without an address": ("service", present("pending"), "progressing"),
    "an object without a controller": ("object", present("active", state="unknown"), "healthy"),
    "an object that its controller works on": (
        "object",
        present("active", state="progressing"),
        "progressing",
    ),
    "an object that does not work": ("object", present("active", state="degraded"), "degraded"),
    "a claim": ("volume", present("bound", state="persistent_volume_claim"), "healthy"),
    "a claim without storage": (
        "volume",
        present("available", state="persistent_volume_claim"),
        "progressing",
    ),
    "a claim that waits for a pod": (
        "volume",
        present("available", reason="WaitForFirstConsumer", state="persistent_volume_claim"),
        "healthy",
    ),
    "a claim that is lost": ("volume", present("failed", state="persistent_volume_claim"), "degraded"),
    "a folder of pods": ("volume", present("available", state="empty_dir"), "healthy"),
    "a config map": ("config_map", present(""), "healthy"),
    "a secret that is not there yet": ("secret", present("", applied=False), "progressing"),
    "a secret that is refused": (
        "secret",
        present("", conditions=(condition("Applied", "Invalid"),)),
        "degraded",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_health_of_other_members(case: str) -> None:
    noun, state, expected = OTHERS[case]
    assert member_health(noun, state, NOW).status == expected


def member(name: str, state: PresentState | None, **more: Any) -> Member:
    found = member_health("container", state, NOW)
    return Member(
        key=MemberKey("container", name),
        api_version="apps/v1",
        kind="Deployment",
        status=found.status,
        reason=found.reason,
        message=found.message,
        failed=found.failed,
        **more,
    )


def test_an_application_has_the_worst_health_of_its_members() -> None:
    runs, paused = (
        member("runs", present(conditions=RUNS)),
        member("paused", present("paused", state="paused")),
    )
    rolls = member("rolls", present(conditions=rolled_out("RollingOut")))
    gone = member("gone", None)
    broken = member("broken", present(conditions=(condition("Stable", "Restarted"),)))
    every = [runs, paused, rolls, gone, broken]
    found = [health_of(every[:number]).status for number in range(len(every) + 1)]
    assert found == ["healthy", "healthy", "suspended", "progressing", "missing", "degraded"]
    worst = health_of(every)
    assert (worst.reason, worst.failed) == ("Restarted", True)
    assert worst.message == "container broken: a newest pod restarts: words of Restarted"


def test_a_member_changed_by_another_user_is_reported_with_the_user() -> None:
    changed = member("web", present(conditions=RUNS), modified=True, modified_by="ann")
    found = health_of([changed])
    assert (found.status, found.reason) == ("healthy", "Modified")
    assert found.message == "container web was changed by ann since the newest revision"
