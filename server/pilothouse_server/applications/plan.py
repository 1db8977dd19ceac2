"""Plans an apply: its effect on each object, and why it is refused. Reads only.

An object belongs to at most one application. An object that belongs to none is taken over only if the caller sets
`take_over`; an object of another application never is. The plan deletes exactly the objects that only the newest
revision has. Hooks that no document names any more stay, as in Helm and Argo CD. A hook whose step had not begun is
deleted, because nothing it would create is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    MemberPlace,
    ReadDocuments,
    WantedObject,
)
from pilothouse_server.applications.present import Stored
from pilothouse_server.applications.steps import left_in_place, phase_of, placed
from pilothouse_server.authorization.access import May
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.workloads import has_runs
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.values.resources import ObjectWarning

TAKE_OVER_REASON: Final = "EXISTS_OUTSIDE"
_OWNED_REASON: Final = "OWNED_BY_APPLICATION"


class Present(msgspec.Struct, frozen=True):
    """The state of the namespace.

    `owners`: names of applications by their members. `application`: None for a new one. `base`: the objects of its
    newest revision, if a member was changed since. `secret_values`: those of the secrets that the documents ask for.
    `secret_paths`: those of kinds of carried objects.
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

    `pruned`: members to delete first, in this order. `pruned_later`: members that the last step deletes. `kept`:
    members that stay and leave the application. `modified`: by object, the fields that other calls changed since the
    newest revision and that stay changed.
    """

    objects: tuple[ComparedObject, ...]
    pruned: tuple[Member, ...]
    kept: tuple[Member, ...]
    problems: tuple[ApplicationProblem, ...]
    modified: Mapping[MemberKey, tuple[FieldDifference, ...]] = {}
    pruned_later: tuple[Member, ...] = ()
    warnings: tuple[ObjectWarning, ...] = ()

    @property
    def changes_objects(self) -> bool:
        """Whether the apply writes or deletes an object."""
        return bool(self.pruned) or any(each.action != "unchanged" for each in self.objects)

    @property
    def last_step(self) -> int:
        """The last step of objects of the documents."""
        return max((each.place.step for each in self.objects), default=0)


async def planned(
    read: ReadDocuments, present: Present, choice: ApplyChoice, may: May, namespace: str
) -> ApplicationPlan:
    """Returns the plan of an apply of the documents."""
    problems, objects = list(read.problems), list[ComparedObject]()
    modified = dict[MemberKey, tuple[FieldDifference, ...]]()
    ordered = sorted(read.wanted, key=lambda each: (writing_order(each), each.key.kind, each.key))
    places = placed((each, phase_of(each.order, present.application, choice)) for each in ordered)
    warnings = list[ObjectWarning]()
    async for wanted in cooperatively(ordered):
        place, member = places[wanted.key], present.members.get(wanted.key)
        if place.skipped:
            if member is None or member.waiting or wanted.key not in present.stored:
                warnings.append(_left_out(wanted, present, choice))
            else:
                objects.append(ComparedObject(wanted, "unchanged", place=place))
            continue
        if choice.name and (problem := _membership_problem(wanted, present, choice)) is not None:
            problems.append(problem)
        found, others = _compared(wanted, present, choice, member)
        found = _with_run(msgspec.structs.replace(found, place=place), present, member)
        if others:
            modified[wanted.key] = others
        problems += found.problems
        problems += [
            _denied(wanted, permission, namespace)
            for permission in _permissions(found)
            if not may(permission)
        ]
        objects.append(found)
    left, kept, pruned = _fates(_left_members(places, present), present, choice)
    objects += [ComparedObject(_of_member(each), "unchanged", place=left_in_place(each)) for each in left]
    for member in pruned:
        permission = f"{PERMISSIONS[member.key.noun]}.delete"
        if not may(permission):
            problems.append(_denied(_of_member(member), permission, namespace))
    plan = ApplicationPlan(
        tuple(objects), tuple(pruned), tuple(kept), tuple(problems), modified, (), tuple(warnings)
    )
    if plan.last_step == 0:
        return plan
    return msgspec.structs.replace(
        plan,
        pruned=tuple(each for each in pruned if each.hook),
        pruned_later=tuple(each for each in pruned if not each.hook),
    )


def _fates(
    members: Sequence[Member], present: Present, choice: ApplyChoice
) -> tuple[list[Member], list[Member], list[Member]]:
    """Returns three lists: members that stay although they take no part, members that leave, and members to delete."""
    left, kept, pruned = list[Member](), list[Member](), list[Member]()
    for member in members:
        is_hook = member.hook and not choice.delete_hooks
        if member.key in choice.left or (is_hook and not member.waiting):
            left.append(member)
        elif is_claim(member.key, present.stored) and not choice.delete_claims:
            kept.append(member)
        else:
            (pruned if choice.prune or is_hook else kept).append(member)
    return left, kept, pruned


def _left_members(places: Mapping[MemberKey, MemberPlace], present: Present) -> list[Member]:
    """Returns the members that take no part any more, in the order in which they are deleted."""
    order = {noun: number for number, noun in enumerate(NOUNS)}
    # A hook that is skipped before its step has begun would otherwise run as soon as somebody changes it.
    taking_part = {key for key, place in places.items() if not (place.skipped and _is_waiting(present, key))}
    left = (each for each in present.members.values() if each.key not in taking_part)
    there = [each for each in left if each.key in present.stored]
    return sorted(there, key=lambda each: (-order[each.key.noun], each.key.kind, each.key))


def _is_waiting(present: Present, key: MemberKey) -> bool:
    member = present.members.get(key)
    return member is not None and member.waiting


def _with_run(found: ComparedObject, present: Present, member: Member | None) -> ComparedObject:
    """Returns the effect on an object; for the Job of a hook, with a new run. A hook that still waits runs anyway."""
    value = found.wanted.value
    if not found.place.hook or not isinstance(value, Container) or not has_runs(value):
        return found
    if found.action == "create" or found.problems or (member is not None and member.waiting):
        return found
    return msgspec.structs.replace(found, action="run")


def _permissions(found: ComparedObject) -> list[str]:
    """Returns the permissions that the caller needs for the effect on an object."""
    asked = [found.permission]
    if found.action == "run" and found.merge is not None:
        asked.append("container.update")
    if found.place.delete_on:
        asked.append(f"{PERMISSIONS[found.wanted.key.noun]}.delete")
    return [each for each in dict.fromkeys(asked) if each]


def _left_out(wanted: WantedObject, present: Present, choice: ApplyChoice) -> ObjectWarning:
    """Returns the warning about a hook that takes no part in an apply."""
    if not choice.runs_hooks:
        why = "a rollback runs no hooks unless rerun_jobs is set"
    elif wanted.order.upgrade is None:
        why = "it runs at the first apply only, and the application has been applied before"
    else:
        why = "it does not run at the first apply"
    subject = f"{wanted.kind}/{wanted.key.name}"
    return ObjectWarning("HOOK_LEFT_OUT", subject, f"the hook is left out: {why}")


def is_claim(key: MemberKey, stored: Stored) -> bool:
    """Returns whether a member is a volume with data of its own (a claim)."""
    return key.noun == "volume" and key in stored and bool(stored[key].is_claim)


def _compared(
    wanted: WantedObject, present: Present, choice: ApplyChoice, member: Member | None
) -> tuple[ComparedObject, tuple[FieldDifference, ...]]:
    """Returns the effect of the apply on an object, and the fields that others changed and that stay changed.

    If others changed the object, only the fields that differ between the newest revision and this one are written.
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
