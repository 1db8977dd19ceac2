"""The health of an application and of its members, from the states that the nouns observe: pure functions.

The words are those of Argo CD. The status of an application is that of the member that is worst, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from pilothouse_server.applications.model import ApplicationStatus, Member, MemberNoun
from pilothouse_server.values.resources import Condition

Health = tuple[ApplicationStatus, str, str]

# From the worst to the best.
_ORDER: Final[tuple[ApplicationStatus, ...]] = ("missing", "degraded", "progressing", "suspended", "healthy")
_OF_CONTAINERS: Final[Mapping[str, ApplicationStatus]] = {
    "running": "healthy",
    "succeeded": "healthy",
    "paused": "suspended",
    "stopped": "suspended",
    "failed": "degraded",
    "crash_loop_back_off": "degraded",
}
_OF_OTHERS: Final[Mapping[str, ApplicationStatus]] = {
    "active": "healthy",
    "available": "healthy",
    "bound": "healthy",
    "failed": "degraded",
}


class PresentState(msgspec.Struct, frozen=True):
    """A member as its noun has it now. `state`: the desired state of a container, the health of a carried object.

    `applied`: the cluster was brought to its newest generation. `going`: it is being deleted.
    """

    status: str
    reason: str
    message: str
    state: str
    conditions: tuple[Condition, ...]
    applied: bool
    going: bool


def member_health(noun: MemberNoun, present: PresentState | None) -> Health:
    """Returns status, reason and message of a member; `present` None: it is not there any more."""
    if present is None or present.going:
        return "missing", "Deleted", "it was deleted by another call"
    refused = next(
        (each for each in present.conditions if each.type == "Applied" and each.status == "False"), None
    )
    if refused is not None:
        return "degraded", refused.reason, refused.message
    if noun in ("config_map", "secret"):
        return ("healthy", "", "") if present.applied else ("progressing", "Applying", "")
    words = _OF_CONTAINERS if noun == "container" else _OF_OTHERS
    status = words.get(present.status, "progressing")
    if noun == "object" and present.state in ("degraded", "progressing") and status == "healthy":
        status = "degraded" if present.state == "degraded" else "progressing"
    # A volume that is a part of pods has no object on the cluster.
    if (
        not present.applied
        and status == "healthy"
        and not (noun == "volume" and present.status == "available")
    ):
        status = "progressing"
    if noun == "container" and status == "healthy" and not _is_rolled_out(present.conditions):
        status = "progressing"
    return status, present.reason, present.message


def health_of(members: Sequence[Member]) -> Health:
    """Returns status, reason and message of an application with these members: those of the worst."""
    for status in _ORDER:
        worst = next((each for each in members if each.status == status), None)
        if worst is not None and status != "healthy":
            found = worst.message or worst.reason
            message = f"{worst.key}: {found}" if found else f"{worst.key}: {status}"
            return status, worst.reason, message
    modified = next((each for each in members if each.modified), None)
    if modified is None:
        return "healthy", "", ""
    by = f" by {modified.modified_by}" if modified.modified_by else ""
    return "healthy", "Modified", f"{modified.key} was changed{by} since the newest revision"


def _is_rolled_out(conditions: Sequence[Condition]) -> bool:
    return not any(each.type == "RolledOut" and each.status == "False" for each in conditions)
