"""The plan of an apply: its effect on each object, and why it is refused. It reads, and writes nothing.

An object belongs to at most one application. One that exists outside is taken over only where the caller says so; one
of another application never. The plan deletes exactly the objects that only the newest revision has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.applications.comparison import PERMISSIONS, ComparedObject, compared
from pilothouse_server.applications.documents import writing_order
from pilothouse_server.applications.merging import with_other_changes
from pilothouse_server.applications.model import (
    NOUNS,
    ApplicationProblem,
    ApplicationResource,
    ApplyChoice,
    FieldDifference,
    Member,
    MemberKey,
    ReadDocuments,
    WantedObject,
)
from pilothouse_server.applications.present import Stored
from pilothouse_server.authorization.access import May
from pilothouse_server.runtime.event_loop import cooperatively

TAKE_OVER_REASON: Final = "EXISTS_OUTSIDE"
_OWNED_REASON: Final = "OWNED_BY_APPLICATION"


class Present(msgspec.Struct, frozen=True):
    """The state of the namespace. `owners`: names of applications by their members. `application`: None for a new one.

    `base`: the objects of its newest revision, where a member was changed since. `secret_values`: of secrets that the
    documents ask for; `secret_paths`: of kinds of carried objects.
    """

    stored: Stored
    owners: Mapping[MemberKey, str]
    application: ApplicationResource | None
    base: Mapping[MemberKey, WantedObject] = {}
    secret_values: Mapping[MemberKey, Mapping[str, bytes]] = {}
    secret_paths: Mapping[tuple[str, str], tuple[tuple[str, ...], ...]] = {}

    @property
    def members(self) -> Mapping[MemberKey, Member]:
        """The members of the application by their keys."""
        return {} if self.application is None else {each.key: each for each in self.application.members}


class ApplicationPlan(msgspec.Struct, frozen=True):
    """The effects of an apply on the objects of its documents, in the order in which they are written.

    `pruned`: members to delete, in their order. `kept`: members that stay and belong to no application any more.
    `modified`: fields that other calls changed since the newest revision and that stay, by their objects.
    """

    objects: tuple[ComparedObject, ...]
    pruned: tuple[Member, ...]
    kept: tuple[Member, ...]
    problems: tuple[ApplicationProblem, ...]
    modified: Mapping[MemberKey, tuple[FieldDifference, ...]] = {}

    @property
    def changes_objects(self) -> bool:
        """Whether an object is written."""
        return bool(self.pruned) or any(each.action != "unchanged" for each in self.objects)


async def planned(
    read: ReadDocuments, present: Present, choice: ApplyChoice, may: May, namespace: str
) -> ApplicationPlan:
    """Returns the plan of an apply of the documents."""
    problems, objects = list(read.problems), list[ComparedObject]()
    members, modified = present.members, dict[MemberKey, tuple[FieldDifference, ...]]()
    order = {noun: number for number, noun in enumerate(NOUNS)}
    ordered = sorted(read.wanted, key=lambda each: (writing_order(each), each.key))
    async for wanted in cooperatively(ordered):
        if choice.name and (problem := _membership_problem(wanted, present, choice)) is not None:
            problems.append(problem)
        found, others = _compared(wanted, present, choice, members.get(wanted.key))
        if others:
            modified[wanted.key] = others
        problems += found.problems
        if found.permission and not may(found.permission):
            problems.append(_denied(wanted, found.permission, namespace))
        objects.append(found)
    wanted_keys = {each.key for each in read.wanted}
    pruned, kept = [], []
    for member in sorted(members.values(), key=lambda each: (-order[each.key.noun], each.key)):
        if member.key in wanted_keys or member.key not in present.stored:
            continue
        if member.key in choice.left:
            objects.append(ComparedObject(_of_member(member), "unchanged"))
            continue
        stays = is_claim(member.key, present.stored) and not choice.delete_claims
        if stays or not choice.prune:
            kept.append(member)
            continue
        pruned.append(member)
        permission = f"{PERMISSIONS[member.key.noun]}.delete"
        if not may(permission):
            problems.append(_denied(_of_member(member), permission, namespace))
    return ApplicationPlan(tuple(objects), tuple(pruned), tuple(kept), tuple(problems), modified)


def is_claim(key: MemberKey, stored: Stored) -> bool:
    """Returns whether a member is a volume with data of its own."""
    return key.noun == "volume" and key in stored and bool(stored[key].is_claim)


def _compared(
    wanted: WantedObject, present: Present, choice: ApplyChoice, member: Member | None
) -> tuple[ComparedObject, tuple[FieldDifference, ...]]:
    """Returns the effect of the apply on an object, and the fields that others changed and that stay.

    Of an object that others changed, only the fields are written that differ between the newest revision and this one.
    """
    stored: Any = present.stored.get(wanted.key)
    found = _between(wanted, stored, present, choice)
    base = present.base.get(wanted.key)
    if stored is None or member is None or base is None or not member.modified or choice.force:
        return found, ()
    undone = _between(base, stored, present, choice)
    values = present.secret_values.get(wanted.key)
    if undone.action == "unchanged" or undone.problems:
        return found, ()
    if (joined := with_other_changes(wanted, base, stored, values)) is not None:
        mine = msgspec.structs.replace(_between(joined, stored, present, choice), wanted=wanted)
    else:
        assert undone.merge is not None, "fields of the other nouns are merged one by one"
        mine = _between(wanted, undone.merge(stored), present, choice)
    if mine.problems:
        return found, ()
    names = {each.path for each in mine.fields}
    others = tuple(
        FieldDifference(each.path, each.after, each.before, each.masked)
        for each in undone.fields
        if each.path not in names
    )
    return mine, others


def _between(wanted: WantedObject, stored: Any, present: Present, choice: ApplyChoice) -> ComparedObject:
    return compared(
        wanted,
        stored,
        replace=choice.replace,
        values=present.secret_values.get(wanted.key),
        secret_paths=present.secret_paths.get((wanted.api_version, wanted.kind), ()),
    )


def _membership_problem(
    wanted: WantedObject, present: Present, choice: ApplyChoice
) -> ApplicationProblem | None:
    owner = present.owners.get(wanted.key)
    if owner == choice.name:
        return None
    if owner is not None and wanted.key in present.stored:
        words = f'belongs to application "{owner}", and an object belongs to one application only'
        return problem_of_object(wanted, _OWNED_REASON, words)
    if owner is None and wanted.key in present.stored and not choice.take_over:
        words = "exists and belongs to no application; set take_over to make it a part of this one"
        return problem_of_object(wanted, TAKE_OVER_REASON, words)
    return None


def _denied(wanted: WantedObject, permission: str, namespace: str) -> ApplicationProblem:
    words = f'permission {permission} is needed in namespace "{namespace}"'
    return msgspec.structs.replace(
        problem_of_object(wanted, "PERMISSION_DENIED", words), permission=permission
    )


def problem_of_object(wanted: WantedObject, reason: str, message: str) -> ApplicationProblem:
    """Returns a problem with a whole object."""
    return ApplicationProblem(
        document=wanted.document,
        reason=reason,
        message=message,
        kind=wanted.kind,
        name=wanted.key.name,
        source=wanted.source,
    )


def _of_member(member: Member) -> WantedObject:
    return WantedObject(member.key, member.api_version, member.kind, None)
