"""Computes the health of applications and members from the states that the nouns observe; pure functions.

The words are Argo CD's: healthy; suspended (by a caller); progressing (waiting may help); missing; degraded. An
application has the status and reason of its worst member, in Argo CD's order. A member has failed if waiting does not
make it healthy: one of its newest pods restarts, its image cannot be pulled, or the cluster has had no room for it for
a minute, refuses it, or has given up its rollout. A degraded object of another noun may recover by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from pilothouse_server.applications.model import (
    ApplicationStatus,
    FollowedApplication,
    Member,
    MemberNoun,
)
from pilothouse_server.applications.steps import PHASE_WORDS, NextState, next_state
from pilothouse_server.containers.rollout import DEADLINE_EXCEEDED, ROLLED_OUT, ROLLING_OUT, ROLLOUT_HELD
from pilothouse_server.containers.stability import RESTARTED, STABLE
from pilothouse_server.kubernetes.conditions import APPLIED, MESSAGE_LIMIT, REASON_LIMIT
from pilothouse_server.values.resources import Condition

# A pod that stays unschedulable for this many seconds has failed. Autoscalers that add nodes need less.
UNSCHEDULABLE_SECONDS: Final = 60.0
# Seconds in which a revision must become healthy if the request sets no deadline.
PROGRESS_DEADLINE_SECONDS: Final = 600
# Seconds after which a rollback is retried, by any server, if the first server died during it.
_RETRY_SECONDS: Final = 5.0
# Seconds between attempts to delete an object whose deletion was refused.
_REMOVAL_SECONDS: Final = 30.0
# A revision that has been healthy for this many seconds is no longer rolled back.
SETTLED_SECONDS: Final = 10.0
# From worst to best.
_ORDER: Final[tuple[ApplicationStatus, ...]] = (
    "degraded",
    "missing",
    "progressing",
    "suspended",
    "healthy",
)
_IMAGE_ERRORS: Final = frozenset({
    "ErrImageNeverPull", "ErrImagePull", "ImageInspectError", "ImagePullBackOff", "InvalidImageName",
    "RegistryUnavailable", "SignatureValidationFailed",
})  # fmt: skip
_UNSCHEDULABLE: Final = "Unschedulable"
_NO_REPLICAS: Final = "NoReplicas"
_OF_OBJECTS: Final[Mapping[str, ApplicationStatus]] = {
    "progressing": "progressing",
    "degraded": "degraded",
}


class MemberHealth(NamedTuple):
    """The health of a member, with its reason. `failed`: waiting does not make it healthy."""

    status: ApplicationStatus
    reason: str = ""
    message: str = ""
    failed: bool = False


class PresentState(msgspec.Struct, frozen=True):
    """The present state of a member, as its noun stores it.

    `state`: the desired state of a container, the health of a carried object, or the type of a volume. `applied`: the
    cluster has the member's newest generation. `going`: the member is being deleted.
    """

    status: str
    reason: str
    message: str
    state: str
    conditions: tuple[Condition, ...]
    applied: bool
    going: bool


def member_health(noun: MemberNoun, present: PresentState | None, now: datetime) -> MemberHealth:
    """Returns the health of a member. `present`: None if the object does not exist any more."""
    if present is None or present.going:
        return MemberHealth("missing", "Deleted", "it was deleted by another call")
    refused = _condition(present, APPLIED, "False")
    # A refusal of an earlier generation does not apply to this one.
    if refused is not None and present.applied:
        return MemberHealth(
            "degraded", refused.reason, f"the cluster refuses it: {refused.message}", failed=True
        )
    if noun == "container":
        return _container_health(present, now)
    if noun == "volume":
        return _volume_health(present)
    if not present.applied:
        return MemberHealth("progressing", "Applying", "the cluster has yet to follow")
    if noun == "object":
        return MemberHealth(_OF_OBJECTS.get(present.state, "healthy"), present.reason, present.message)
    if noun == "service" and present.status == "pending":
        return MemberHealth("progressing", present.reason, present.message)
    return MemberHealth("healthy")


def health_in_step(member: Member, found: MemberHealth) -> MemberHealth:
    """Returns the health of a member, given its own health and its step in the newest revision.

    The Job of a hook is healthy once it has succeeded. Other Jobs are healthy while they run, too.
    """
    if member.outcome == "failed":
        return MemberHealth("degraded", member.outcome_reason, member.outcome_message, failed=True)
    if member.outcome == "skipped":
        return MemberHealth("healthy", "Skipped", "the hook took no part in the newest revision")
    if member.outcome == "succeeded":
        return MemberHealth("healthy", "Completed", "the hook has ended")
    if member.pruned:
        return MemberHealth("progressing", "Pruning", "it is deleted when everything else is healthy")
    if member.waiting and found.status != "suspended":
        where = f"wave {member.wave} of {PHASE_WORDS[member.phase]}"
        return MemberHealth(
            "progressing", "WaitingForWave", f"it is applied in {where}, after all earlier waves are healthy"
        )
    if member.hook and member.running and found.status == "healthy":
        return MemberHealth("progressing", "Running", "the hook has yet to end")
    return found


def health_of(members: Sequence[Member]) -> MemberHealth:
    """Returns the health of an application: that of its worst member, and whether any member has failed."""
    for status in _ORDER[:-1]:
        worst = [each for each in members if each.status == status]
        if worst:
            # A member that waits for another one is not shown as the reason if there is a better one.
            shown = min(worst, key=lambda each: (not each.failed, each.waiting or each.pruned))
            found = shown.message or shown.reason
            name = f"{PHASE_WORDS[shown.phase]} hook {shown.name}" if shown.hook else str(shown.key)
            message = f"{name}: {found}" if found else f"{name}: {status}"
            return MemberHealth(status, shown.reason, message, failed=shown.failed)
    modified = next((each for each in members if each.modified), None)
    if modified is None:
        return MemberHealth("healthy")
    by = f" by {modified.modified_by}" if modified.modified_by else ""
    return MemberHealth("healthy", "Modified", f"{modified.key} was changed{by} since the newest revision")


class FollowedHealth(NamedTuple):
    """The state of an application to store, the time of its next pass, and the reason why its newest revision failed.

    `failure`: empty if the revision did not fail or is not to be rolled back. `next`: the next action for its steps.
    """

    followed: FollowedApplication
    look_at: datetime | None
    failure: str = ""
    next: NextState = NextState(0, installed=True)


def followed_health(before: FollowedApplication, now: datetime) -> FollowedHealth:
    """Returns the state of an application computed from its members."""
    members = before.application.members
    found = health_of(members)
    works = found.status in ("healthy", "suspended")
    healthy_since = (before.healthy_since or now) if works else None
    deadline_at, failure = before.deadline_at, ""
    settles_at = healthy_since and healthy_since + timedelta(seconds=SETTLED_SECONDS)
    if deadline_at is not None:
        if settles_at is not None and settles_at <= now:
            deadline_at = None
        elif found.failed:
            failure = found.message
        elif not works and deadline_at <= now:
            failure = f"it was not healthy in time: {found.message}"
    message = found.message
    if before.not_rolled_back:
        message = f"{message}; not rolled back: {before.not_rolled_back}".lstrip("; ")
    following = next_state(before.application)
    application = msgspec.structs.replace(
        before.application,
        step=following.step,
        installed=following.installed,
        status=found.status,
        reason=found.reason[:REASON_LIMIT],
        message=message[:MESSAGE_LIMIT],
    )
    moments = [each.fails_at for each in members if each.fails_at is not None and each.fails_at > now]
    if deadline_at is not None:
        moments.append(settles_at if settles_at is not None else deadline_at)
    if failure:
        moments.append(now + timedelta(seconds=_RETRY_SECONDS))
    if following.removed:
        moments.append(now + timedelta(seconds=_REMOVAL_SECONDS))
    followed = msgspec.structs.replace(
        before, application=application, healthy_since=healthy_since, deadline_at=deadline_at
    )
    later = [each for each in moments if each > now]
    # Another pass follows immediately: a step may be empty, or the ended hooks may be all that the step waited for.
    look_at = now if following.begun or following.ended else min(later, default=None)
    return FollowedHealth(followed, look_at, failure, following)


def becomes_unschedulable(noun: MemberNoun, present: PresentState | None) -> datetime | None:
    """Returns when a member that the cluster has no room for will fail; None if the member is not in that state."""
    if noun != "container" or present is None:
        return None
    pending = _condition(present, ROLLED_OUT, "False")
    if pending is None or pending.reason != _UNSCHEDULABLE or pending.last_transition_time is None:
        return None
    return pending.last_transition_time + timedelta(seconds=UNSCHEDULABLE_SECONDS)


def _container_health(present: PresentState, now: datetime) -> MemberHealth:
    if present.state in ("stopped", "paused"):
        return MemberHealth("suspended", present.state.capitalize(), f"it is {present.state}")
    if not present.applied:
        return MemberHealth("progressing", "Applying", "the cluster has yet to follow")
    if failure := _failure(present, now):
        return failure
    pending = _condition(present, ROLLED_OUT, "False")
    if pending is not None and pending.reason == ROLLOUT_HELD:
        return MemberHealth("suspended", ROLLOUT_HELD, pending.message)
    if present.status == "succeeded" or (present.status, present.reason) == ("stopped", _NO_REPLICAS):
        return MemberHealth("healthy")
    waiting = pending or _condition(present, STABLE, "False")
    if waiting is not None:
        return MemberHealth("progressing", waiting.reason, waiting.message)
    if present.status != "running":
        return MemberHealth("progressing", present.reason, present.message)
    return MemberHealth("healthy")


def _failure(present: PresentState, now: datetime) -> MemberHealth | None:
    """Returns the failure of a container whose newest state will not run by waiting; None if it may still run."""
    stable = _condition(present, STABLE, "False")
    if stable is not None and stable.reason == RESTARTED:
        return MemberHealth("degraded", RESTARTED, f"a newest pod restarts: {stable.message}", failed=True)
    pending = _condition(present, ROLLED_OUT, "False")
    reason = pending.reason if pending is not None else present.reason
    message = pending.message if pending is not None else present.message
    if reason == DEADLINE_EXCEEDED:
        words = f"the cluster has given up its rollout: {present.message or message}"
        return MemberHealth("degraded", reason, words, failed=True)
    if reason in _IMAGE_ERRORS:
        return MemberHealth("degraded", reason, f"its image cannot be pulled: {message}", failed=True)
    fails_at = becomes_unschedulable("container", present)
    if fails_at is not None and fails_at <= now:
        return MemberHealth("degraded", reason, f"its pods cannot be scheduled: {message}", failed=True)
    # During a rollout the old pods may still fail while their replacements start.
    if present.status in ("failed", "crash_loop_back_off") and reason != ROLLING_OUT:
        return MemberHealth("degraded", present.reason, present.message, failed=True)
    return None


def _volume_health(present: PresentState) -> MemberHealth:
    if present.status == "failed":
        return MemberHealth("degraded", present.reason, present.message)
    # Volumes of other types are parts of pods, and have no object on the cluster.
    if present.state != "persistent_volume_claim" or present.status == "bound":
        return MemberHealth("healthy")
    # A claim that waits for the first pod that mounts it is in its intended state.
    if present.reason == "WaitForFirstConsumer":
        return MemberHealth("healthy", present.reason, present.message)
    return MemberHealth("progressing", present.reason or "Pending", present.message)


def _condition(present: PresentState, type_: str, status: str) -> Condition | None:
    return next((each for each in present.conditions if (each.type, each.status) == (type_, status)), None)
