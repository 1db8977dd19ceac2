"""The steps of an apply, computed by pure functions from the order of documents and the present members."""

from __future__ import annotations

from typing import Any, get_args

from pilothouse_manifests.translator.ordering import DocumentOrder, PhaseWord
from pilothouse_server.applications.model import (
    ApplicationPhase,
    ApplicationResource,
    ApplyChoice,
    Member,
    MemberKey,
    MemberNoun,
    MemberPlace,
    WantedObject,
)
from pilothouse_server.applications.steps import next_state, phase_of, placed
from pilothouse_server.values.resources import NamespaceRef

NEW = None
NAMESPACE = NamespaceRef(name="demo")
INSTALLED = ApplicationResource(name="shop", namespace_ref=NAMESPACE, installed=True)


def wanted(name: str, noun: MemberNoun = "container", **order: Any) -> WantedObject:
    return WantedObject(MemberKey(noun, name), "v1", "Kind", None, order=DocumentOrder(**order))


def member(name: str, step: int = 0, status: Any = "healthy", **given: Any) -> Member:
    place = MemberPlace(given.pop("phase", "sync"), 0, step, **given.pop("place", {}))
    return Member(MemberKey("container", name), "v1", "Job", status=status, place=place, **given)


def hook(name: str, step: int = 0, status: Any = "healthy", **given: Any) -> Member:
    policies = {"hook": True, "delete_on": given.pop("delete_on", frozenset())}
    return member(name, step, status, phase="pre_sync", place=policies, resource_id=7, **given)


def application(*members: Member, step: int = 0, installed: bool = False) -> ApplicationResource:
    return ApplicationResource(
        name="shop", namespace_ref=NAMESPACE, members=members, step=step, installed=installed
    )


def names(members: tuple[Member, ...]) -> list[str]:
    return [each.name for each in members]


def test_phase_types_have_the_same_names() -> None:
    assert get_args(PhaseWord) == get_args(ApplicationPhase)


def test_hooks_run_on_install_or_upgrade() -> None:
    order = DocumentOrder("pre_sync", None, hook=True)
    apply, rollback = ApplyChoice("shop"), ApplyChoice("shop", origin=1)
    assert phase_of(order, NEW, apply) == "pre_sync"
    assert phase_of(order, application(), apply) == "pre_sync"
    assert phase_of(order, INSTALLED, apply) is None
    both = DocumentOrder("pre_sync", "pre_sync", hook=True)
    assert phase_of(both, INSTALLED, apply) == "pre_sync"
    assert phase_of(both, INSTALLED, rollback) is None
    assert phase_of(both, INSTALLED, ApplyChoice("shop", origin=1, rerun_jobs=True)) == "pre_sync"
    assert phase_of(DocumentOrder(wave=2), INSTALLED, rollback) == "sync"


def test_steps_follow_phases_and_waves_and_hook_containers_come_last() -> None:
    pre: dict[str, Any] = {"install": "pre_sync", "upgrade": "pre_sync", "hook": True}
    objects = [
        wanted("web", wave=5),
        wanted("settings", "config_map"),
        wanted("migrate", **pre),
        wanted("role", "object", **pre),
        wanted("early", "object", **(pre | {"wave": -1})),
        wanted("announce", install="post_sync", upgrade="post_sync", hook=True),
        wanted("skipped", **pre),
    ]
    places = placed((each, None if each.key.name == "skipped" else each.order.install) for each in objects)
    steps = {key.name: place.step for key, place in places.items() if not place.skipped}
    assert steps == {"early": 0, "role": 1, "migrate": 2, "settings": 3, "web": 4, "announce": 5}
    assert [key.name for key, place in places.items() if place.skipped] == ["skipped"]
    # Without an order, there is one step.
    plain = placed((each, "sync") for each in (wanted("web"), wanted("settings", "config_map")))
    assert {place.step for place in plain.values()} == {0}


def test_helm_jobs_of_equal_weight_run_in_sequence_by_name() -> None:
    helm: dict[str, Any] = {"install": "pre_sync", "upgrade": "pre_sync", "hook": True, "alone": True}
    objects = [
        wanted("b-seed", **helm),
        wanted("c-role", "object", **helm),
        wanted("a-migrate", **helm),
        wanted("argo", install="pre_sync", upgrade="pre_sync", hook=True),
        wanted("b-later", **(helm | {"wave": 1})),
        wanted("web"),
    ]
    places = placed((each, each.order.install) for each in objects)
    steps = {key.name: place.step for key, place in places.items()}
    assert steps == {"c-role": 0, "argo": 1, "a-migrate": 2, "b-seed": 3, "b-later": 4, "web": 5}


def test_a_step_starts_when_all_earlier_members_are_healthy() -> None:
    waits = application(member("back", status="progressing"), member("front", 1, "progressing"))
    assert next_state(waits)[:2] == (0, True)
    ready = application(member("back"), member("front", 1, "progressing"), member("last", 2))
    state = next_state(ready)
    assert (state.step, names(state.begun)) == (1, ["front"])
    # A running Job is healthy, but the next step waits for its end.
    assert next_state(application(member("fill", running=True), member("front", 1))).step == 0
    # A paused member blocks the next step; a suspended CronJob does not, because its document may say so.
    assert next_state(application(member("back", status="suspended"), member("front", 1))).step == 0
    cron = Member(MemberKey("container", "nightly"), "batch/v1", "CronJob", status="suspended")
    assert next_state(application(cron, member("front", 1))).step == 1
    assert next_state(application(member("back"))).step == 0


def test_an_application_is_installed_when_it_reaches_sync() -> None:
    runs = application(hook("migrate", status="progressing"), member("web", 1))
    assert not next_state(runs).installed
    assert next_state(application(hook("migrate"), member("web", 1))).installed
    failed = application(hook("migrate", status="degraded", failed=True), member("web", 1))
    assert not next_state(failed).installed
    assert next_state(application(hook("migrate", status="progressing"), installed=True)).installed


def test_hooks_end_with_their_phase_and_follow_their_policies() -> None:
    succeeded = frozenset({"succeeded"})
    first = application(
        hook("one", delete_on=succeeded), hook("two", 1, "progressing"), member("web", 2), step=0
    )
    assert next_state(first)[2:] == ((first.members[1],), (), ())
    last = application(hook("one", delete_on=succeeded), hook("two", 1), member("web", 2), step=1)
    state = next_state(last)
    assert (names(state.begun), names(state.ended), names(state.removed)) == (
        ["web"],
        ["one", "two"],
        ["one"],
    )
    # The hook stays in the list until its object is deleted.
    gone = hook("one", delete_on=succeeded, outcome="succeeded")
    assert names(next_state(application(gone, member("web", 1), step=1)).removed) == ["one"]


def test_a_failed_hook_and_earlier_hooks_follow_their_policies() -> None:
    failing = hook("two", 1, "degraded", failed=True, reason="Why", delete_on=frozenset({"failed"}))
    before = hook("one", delete_on=frozenset({"succeeded"}))
    state = next_state(application(before, failing, member("web", 2), step=1))
    assert (state.step, names(state.removed)) == (1, ["one", "two"])
    assert [(each.outcome, each.outcome_reason) for each in state.ended] == [
        ("failed", "Why"),
        ("succeeded", ""),
    ]
    kept = hook("two", 1, "degraded", failed=True)
    assert next_state(application(kept, member("web", 2), step=1))[2:] == ((), (), ())


def test_pruning_is_the_last_step() -> None:
    pruned = member("former", 2, "progressing", pruned=True, resource_id=3)
    assert not next_state(application(member("a"), member("b", 1), pruned, step=0)).removed
    state = next_state(application(member("a"), member("b", 1), pruned, step=1))
    assert (state.step, names(state.removed)) == (2, ["former"])
