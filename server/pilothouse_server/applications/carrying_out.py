"""Carries out a plan: writes its objects one after another, those that others need first.

An apply stops at the first object that a noun refuses. A trial (`validate_only`, and the search for all problems after
such a refusal) writes each object by itself and continues, and its transaction is rolled back.
"""

from __future__ import annotations

from typing import Final

import msgspec

from pilothouse_server.applications.comparison import ComparedObject
from pilothouse_server.applications.documents import problems_of
from pilothouse_server.applications.model import ApplicationProblem, ApplyChoice, Member
from pilothouse_server.applications.plan import ApplicationPlan, Present
from pilothouse_server.applications.writing import ObjectWriter, WrittenObject
from pilothouse_server.containers.workloads import has_runs
from pilothouse_server.errors import (
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


class WriteRefused(Exception):
    """An object was refused while it was written; a trial finds all of them."""


async def carried_out(
    writer: ObjectWriter, plan: ApplicationPlan, present: Present, choice: ApplyChoice, *, collecting: bool
) -> tuple[list[WrittenObject], list[ApplicationProblem]]:
    """Writes the objects of a plan; while `collecting` each by itself, with the problems of those that are refused."""
    written: list[WrittenObject] = []
    problems: list[ApplicationProblem] = []
    for each in plan.objects:
        if each.action == "unchanged" or each.problems:
            continue
        if not collecting:
            try:
                written.append(await _written(writer, each, present, choice))
            except _REFUSALS as error:
                raise WriteRefused from error
            continue
        try:
            async with writer.attempt():
                written.append(await _written(writer, each, present, choice))
        except _REFUSALS as error:
            problems += problems_of(error, each.wanted)
    for member in plan.pruned:
        stored = present.stored[member.key]
        if not collecting:
            try:
                written.append(await writer.delete(member.key, stored))
            except _REFUSALS as error:
                raise WriteRefused from error
            continue
        try:
            async with writer.attempt():
                written.append(await writer.delete(member.key, stored))
        except _REFUSALS as error:
            problems.append(_of_prune(error, member))
    return written, problems


async def _written(
    writer: ObjectWriter, each: ComparedObject, present: Present, choice: ApplyChoice
) -> WrittenObject:
    if each.action == "create":
        return await writer.create(each.wanted)
    stored = present.stored[each.wanted.key]
    updated = await writer.update(each, stored)
    if choice.rerun_jobs and each.wanted.key.noun == "container" and has_runs(updated.after):
        updated = msgspec.structs.replace(updated, after=await writer.run(each.wanted.key))
    return updated


def _of_prune(error: PilothouseError, member: Member) -> ApplicationProblem:
    return ApplicationProblem(
        document=-1,
        reason=error.reason,
        message=f"cannot be deleted: {error.message}",
        kind=member.kind,
        name=member.name,
        permission=error.metadata.get("permission", ""),
    )
