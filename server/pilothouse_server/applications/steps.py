"""The steps of an apply: its phases, and the waves within them, one after the other; pure functions.

    PreSync     hooks that end before anything else changes
    Sync        the objects of the application
    PostSync    hooks that begin when all of these are healthy

The members of one wave of a phase form a step. In PreSync and PostSync the containers of a wave come after its other
objects, because a Job that starts before its Role would fail; Helm and Argo CD order them like this, too. Each Job of a
Helm hook is a step of its own, ordered by name, because charts rely on it. Pruned members are the last step. A revision
with a single step has no order.

The apply stores the whole desired state. The application's row has the step that its newest revision has reached. The
queue rows of members of later steps are held (`reconcile_work.held`), so the cluster keeps their previous state. The
status follower (`following`) begins the next step in the transaction that writes the status, so another server can
continue for a killed one. A new revision begins with its first step. Held members that it does not write stay held.
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
    """Returns the places of objects, given their phases. Objects without a phase are skipped."""
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
    """Returns the place of a member that stays although no document names it. A hook takes no part."""
    return msgspec.structs.replace(member.place, step=0, skipped=member.hook)


class NextState(NamedTuple):
    """The state of an application after a pass: its step, and the members of a step that begins.

    `ended`: hooks with the outcomes to store. `removed`: members to delete now.
    """

    step: int
    installed: bool
    begun: tuple[Member, ...] = ()
    ended: tuple[Member, ...] = ()
    removed: tuple[Member, ...] = ()


def next_state(application: ApplicationResource) -> NextState:
    """Computes the next state of an application from its members."""
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
    """Returns whether an object comes after the rest of its wave, and its name if it is a step of its own."""
    is_late = phase != "sync" and wanted.key.noun == "container"
    return is_late, wanted.key.name if is_late and wanted.order.alone else ""


def _passes(member: Member) -> bool:
    """Returns whether the step after that of a member may begin. A CronJob may be suspended by its document.

    As in Argo CD, a step waits until its Jobs have succeeded, whether they are hooks or not.
    """
    if member.pruned or member.running:
        return False
    return member.status == "healthy" or (member.status == "suspended" and member.kind == "CronJob")


def _hooks_of_passed(members: Sequence[Member], step: int) -> list[Member]:
    """Returns the hooks without an outcome in phases whose steps have all passed."""
    later = {each.phase for each in members if each.place.step > step and not each.pruned}
    return [each for each in members if each.hook and each.outcome is None and each.phase not in later]


def _after_failure(members: Sequence[Member], step: int) -> list[Member]:
    """Returns hooks to delete after a failure: the failed ones and, as in Helm, those before them in the phase."""
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
