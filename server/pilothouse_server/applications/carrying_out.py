"""Carries out a plan: writes its objects, those that others need first.

Containers that change, and new objects of a noun that can create several by few statements, are written together, and
if one of them is refused, one by one. An apply stops at the first object that a noun refuses. A trial (`validate_only`,
and the search for all problems after such a refusal) then writes each object by itself and continues, and its
transaction is rolled back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Final

import msgspec

from pilothouse_server.applications.comparison import ComparedObject
from pilothouse_server.applications.documents import problems_of
from pilothouse_server.applications.model import ApplicationProblem, ApplyChoice, Member
from pilothouse_server.applications.plan import ApplicationPlan, Present
from pilothouse_server.applications.writing import CREATED_TOGETHER, ObjectWriter, WrittenObject
from pilothouse_server.containers.workloads import has_runs
from pilothouse_server.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PilothouseError,
    ResourceExhausted,
)

# Errors about one object; others, such as a database that is away, end the call.
_REFUSALS: Final = (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
ProblemsOf = Callable[[PilothouseError], list[ApplicationProblem]]


class WriteRefused(Exception):
    """An object was refused while it was written; a trial finds all of them."""


async def carried_out(
    writer: ObjectWriter, plan: ApplicationPlan, present: Present, choice: ApplyChoice, *, collecting: bool
) -> tuple[list[WrittenObject], list[ApplicationProblem]]:
    """Writes the objects of a plan; while `collecting` each by itself, with the problems of those that are refused."""
    written: list[WrittenObject] = []
    problems: list[ApplicationProblem] = []

    async def attempt(writing: Callable[[], Awaitable[WrittenObject]], found: ProblemsOf) -> None:
        try:
            if not collecting:
                written.append(await writing())
                return
            async with writer.attempt():
                written.append(await writing())
        except _REFUSALS as error:
            if not collecting:
                raise WriteRefused from error
            problems.extend(found(error))

    to_write = [each for each in plan.objects if each.action != "unchanged" and not each.problems]
    for way, group in groupby(to_write, key=partial(_way, choice=choice)):
        objects = list(group)
        if way and len(objects) > 1 and (together := await _together(writer, objects, present)) is not None:
            written += together
            continue
        for each in objects:
            await attempt(
                partial(_written, writer, each, present, choice), partial(problems_of, wanted=each.wanted)
            )
    for member in plan.pruned:
        await attempt(
            partial(writer.delete, member.key, present.stored[member.key]), partial(_of_prune, member=member)
        )
    return written, problems


def _way(each: ComparedObject, choice: ApplyChoice) -> str:
    """Returns the same for objects that may be written together; nothing for one that is written by itself."""
    noun = each.wanted.key.noun
    if each.action == "create":
        return f"create {noun}" if noun in CREATED_TOGETHER else ""
    # A Job that runs again is changed twice.
    return "change" if noun == "container" and each.action != "run" and not choice.rerun_jobs else ""


async def _together(
    writer: ObjectWriter, objects: Sequence[ComparedObject], present: Present
) -> list[WrittenObject] | None:
    """Creates objects of one noun, or changes containers, by few statements; None if one is refused, and nothing is
    written.
    """
    try:
        async with writer.attempt():
            if objects[0].action == "create":
                return await writer.create_many([each.wanted for each in objects])
            return await writer.update_containers(objects, present.stored)
    except (*_REFUSALS, Aborted):
        return None


async def _written(
    writer: ObjectWriter, each: ComparedObject, present: Present, choice: ApplyChoice
) -> WrittenObject:
    key = each.wanted.key
    if each.action == "create":
        return await writer.create(each.wanted)
    stored = present.stored[key]
    if each.action == "run" and each.merge is None:
        return WrittenObject(key, "update", await writer.run(key, replacing=True), stored)
    updated = await writer.update(each, stored)
    if each.action == "run":
        return msgspec.structs.replace(updated, after=await writer.run(key, replacing=True))
    if choice.rerun_jobs and key.noun == "container" and has_runs(updated.after) and not each.place.hook:
        updated = msgspec.structs.replace(updated, after=await writer.run(key))
    return updated


def _of_prune(error: PilothouseError, member: Member) -> list[ApplicationProblem]:
    return [
        ApplicationProblem(
            document=-1,
            reason=error.reason,
            message=f"cannot be deleted: {error.message}",
            kind=member.kind,
            name=member.name,
            permission=error.metadata.get("permission", ""),
        )
    ]
