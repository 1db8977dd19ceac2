"""The steps of an apply: its phases, and the waves within them, one after the other; pure functions.

    PreSync     hooks that end before anything else changes
    Sync        the objects of the application
    PostSync    hooks that begin when all of these are healthy

Members of each wave of a phase make a step. In the phases of hooks the containers of a wave come after its other
objects, because a Job that starts before its Role would fail; Helm and Argo CD apply these one after the other. Each
Job of a hook of Helm is a step of its own, by name, because charts rely on it. Pruned members are the last step. A
revision with a single step has no order.

The apply stores the whole desired state. The row of an application has the step that its newest revision has come to,
and the work of members of later steps is held in the queue of the reconciler (`reconcile_work.held`), so the cluster
keeps what it has. The follower of statuses (`following`) begins the next step by the transaction that writes the
status, so a killed server leaves it to another one. A new revision begins with its first step; members that it has not
written stay held if they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from pilothouse_manifests.translator.ordering import DocumentOrder
from pilothouse_server.applications.model import (
    ApplicationPhase,
    ApplicationResource,
    ApplyChoice,
    Member,
    MemberKey,
    MemberPlace,
    WantedObject,
)

_PHASES: Final[tuple[ApplicationPhase, ...]] = ("pre_sync", "sync", "post_sync")
PHASE_WORDS: Final[Mapping[ApplicationPhase, str]] = {
    "pre_sync": "PreSync",
    "sync": "Sync",
    "post_sync": "PostSync",
}


def phase_of(
    order: DocumentOrder, application: ApplicationResource | None, choice: ApplyChoice
) -> ApplicationPhase | None:
    """Returns the phase of an object in this apply; None for a hook that takes no part in it."""
    if order.hook and not choice.runs_hooks:
        return None
    return order.upgrade if application is not None and application.installed else order.install


def placed(phases: Iterable[tuple[WantedObject, ApplicationPhase | None]]) -> dict[MemberKey, MemberPlace]:
    """Returns the places of objects by their phases; those without a phase are skipped."""
    found = list(phases)
    keys = {
        wanted.key: (_PHASES.index(phase), wanted.order.wave, *_late(wanted, phase))
        for wanted, phase in found
        if phase is not None
    }
    steps = {key: number for number, key in enumerate(sorted(set(keys.values())))}
    return {
        wanted.key: MemberPlace(
            phase or wanted.order.upgrade or wanted.order.install or "sync",
            wanted.order.wave,
            steps[keys[wanted.key]] if phase is not None else 0,
            wanted.order.hook,
            frozenset(wanted.order.delete_on),
            skipped=phase is None,
        )
        for wanted, phase in found
    }


def left_in_place(member: Member) -> MemberPlace:
    """Returns the place of a member that stays as it is though no document names it; a hook takes no part."""
    return msgspec.structs.replace(member.place, step=0, skipped=member.hook)


class NextState(NamedTuple):
    """The state of an application after a look: its step, and the members of the step that begins.

    `ended`: hooks with the outcomes to be stored. `removed`: members to be deleted now.
    """

    step: int
    installed: bool
    begun: tuple[Member, ...] = ()
    ended: tuple[Member, ...] = ()
    removed: tuple[Member, ...] = ()


def next_state(application: ApplicationResource) -> NextState:
    """Returns the state that follows from the members as they are now."""
    members, step = application.members, application.step
    last = max((each.place.step for each in members), default=0)
    begun: tuple[Member, ...] = ()
    passes = all(_passes(each) for each in members if each.place.step <= step)
    if passes:
        ended = [
            msgspec.structs.replace(each, outcome="succeeded") for each in _hooks_of_passed(members, step)
        ]
        if step < last:
            step += 1
            begun = tuple(each for each in members if each.place.step == step)
    else:
        ended = _after_failure(members, step)
    outcomes = {each.key: each for each in ended}
    now = [outcomes.get(each.key, each) for each in members]
    removed = [
        each
        for each in now
        if (each.resource_id is not None and each.outcome in each.place.delete_on)
        or (each.pruned and each.place.step <= step)
    ]
    installed = application.installed or _has_come_to_sync(members, step)
    return NextState(step, installed, begun, tuple(ended), tuple(removed))


def is_installing(members: Iterable[Member]) -> bool:
    """Returns whether a revision with these members begins before its phase Sync."""
    return not _has_come_to_sync(members, 0)


def _has_come_to_sync(members: Iterable[Member], step: int) -> bool:
    return not any(
        each.phase == "pre_sync" and each.place.step >= step and each.outcome is None for each in members
    )


def _late(wanted: WantedObject, phase: ApplicationPhase) -> tuple[bool, str]:
    """Returns whether an object comes after the others of its wave, and its place among those."""
    is_late = phase != "sync" and wanted.key.noun == "container"
    return is_late, wanted.key.name if is_late and wanted.order.alone else ""


def _passes(member: Member) -> bool:
    """Returns whether the step after that of a member may begin. A CronJob may be suspended by its document.

    As in Argo CD, a Job is waited for until it has succeeded, a hook or not.
    """
    if member.pruned or member.running:
        return False
    return member.status == "healthy" or (member.status == "suspended" and member.kind == "CronJob")


def _hooks_of_passed(members: Sequence[Member], step: int) -> list[Member]:
    """Returns the hooks of phases whose steps have all passed, without those that have an outcome."""
    later = {each.phase for each in members if each.place.step > step and not each.pruned}
    return [each for each in members if each.hook and each.outcome is None and each.phase not in later]


def _after_failure(members: Sequence[Member], step: int) -> list[Member]:
    """Returns hooks to be deleted after a failure: those that failed, and as in Helm those before them."""
    here = [each for each in members if each.hook and each.outcome is None and each.place.step <= step]
    failed = [each for each in here if each.failed]
    phases = {each.phase for each in failed}
    ended = [
        msgspec.structs.replace(
            each, outcome="failed", outcome_reason=each.reason, outcome_message=each.message
        )
        for each in failed
        if "failed" in each.place.delete_on
    ]
    ended += [
        msgspec.structs.replace(each, outcome="succeeded")
        for each in here
        if each.phase in phases and each.status == "healthy" and "succeeded" in each.place.delete_on
    ]
    return ended
