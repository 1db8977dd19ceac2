"""Carries out a plan: writes its objects, dependencies first.

The objects of a noun whose operations work on many rows per statement are written together. If the noun refuses one of
them, each half is retried, and so on down to the refused objects (500 containers of which a quota refuses 499: 1.4 s;
no refusal: 1.2 s). An apply stops at the first object that a noun refuses. A trial (`validate_only`, and the search for
all problems after such a refusal) continues, and its transaction is rolled back.

The Job of a hook may still be being deleted by the hook's deletion policy, which the caller cannot see. The call then
fails with UNAVAILABLE, which clients retry.
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
from pilothouse_server.applications.writing import TOGETHER, ObjectWriter, WrittenObject
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
    Unavailable,
)

# Errors that concern one object. Any other error, such as an unreachable database, ends the call.
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
    """A noun refused an object with this error; a trial finds all refused objects."""

    def __init__(self, error: PilothouseError) -> None:
        super().__init__(error.reason)
        self.error = error


async def carried_out(
    writer: ObjectWriter, plan: ApplicationPlan, present: Present, choice: ApplyChoice, *, collecting: bool
) -> tuple[list[WrittenObject], list[ApplicationProblem]]:
    """Writes the objects of a plan. If `collecting`, also returns the problems of all refused objects."""
    carrying = _Carrying(writer, present, choice, collecting=collecting)
    to_write = [each for each in plan.objects if each.action != "unchanged" and not each.problems]
    for way, group in groupby(to_write, key=partial(_way, choice=choice)):
        await carrying.write(list(group), together=bool(way))
    for together, members in groupby(plan.pruned, key=_deletion):
        await carrying.prune(list(members), together=bool(together))
    return carrying.written, carrying.problems


class _Carrying:
    """Collects the objects that were written, and the problems of those that were refused."""

    def __init__(
        self, writer: ObjectWriter, present: Present, choice: ApplyChoice, *, collecting: bool
    ) -> None:
        self._writer = writer
        self._present = present
        self._choice = choice
        self._collecting = collecting
        self.written: list[WrittenObject] = []
        self.problems: list[ApplicationProblem] = []

    async def write(self, objects: Sequence[ComparedObject], *, together: bool) -> None:
        """Writes objects for which `_way` returns the same value."""
        if not together or len(objects) == 1:
            for each in objects:
                await self._attempt(
                    partial(_written, self._writer, each, self._present, self._choice),
                    partial(_of_object, each),
                )
            return
        try:
            self.written += await _together(self._writer, objects, self._present)
        except _REFUSALS:
            middle = len(objects) // 2
            await self.write(objects[:middle], together=True)
            await self.write(objects[middle:], together=True)
        except Aborted:
            # The deciding facts were outdated. The operations for single objects read them again and retry.
            await self.write(objects, together=False)

    async def prune(self, members: Sequence[Member], *, together: bool) -> None:
        """Deletes members for which `_deletion` returns the same value."""
        stored = self._present.stored
        if together and len(members) > 1:
            try:
                async with self._writer.attempt():
                    self.written += await self._writer.delete_many([each.key for each in members], stored)
            except _REFUSALS:
                middle = len(members) // 2
                await self.prune(members[:middle], together=True)
                await self.prune(members[middle:], together=True)
            return
        for each in members:
            await self._attempt(
                partial(self._writer.delete, each.key, stored[each.key]), partial(_of_prune, member=each)
            )

    async def _attempt(self, writing: Callable[[], Awaitable[WrittenObject]], found: ProblemsOf) -> None:
        try:
            if not self._collecting:
                self.written.append(await writing())
                return
            async with self._writer.attempt():
                self.written.append(await writing())
        except _REFUSALS as error:
            problems = found(error)
            if not self._collecting:
                raise WriteRefused(error) from error
            self.problems += problems


def _way(each: ComparedObject, choice: ApplyChoice) -> str:
    """Returns a key that is equal for objects that may be written together; empty for an object written alone."""
    key = each.wanted.key
    # Kinds of carried objects are written one after the other, so that a RoleBinding finds its Role.
    of_noun = f"{key.noun} {key.kind}"
    if each.action == "create":
        return f"create {of_noun}"
    # A Job that runs again is written twice.
    runs = each.action == "run" or (choice.rerun_jobs and key.noun == "container")
    return f"change {of_noun}" if key.noun in TOGETHER and not runs else ""


def _deletion(member: Member) -> str:
    """Returns a key that is equal for members that may be deleted together; empty for a member deleted alone."""
    key = member.key
    return f"{key.noun} {key.kind}" if key.noun in TOGETHER else ""


async def _together(
    writer: ObjectWriter, objects: Sequence[ComparedObject], present: Present
) -> list[WrittenObject]:
    """Creates or changes objects of one noun with few statements; if one is refused, none is written."""
    async with writer.attempt():
        if objects[0].action == "create":
            return await writer.create_many([each.wanted for each in objects])
        return await writer.update_many(objects, present.stored)


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


def _of_object(each: ComparedObject, error: PilothouseError) -> list[ApplicationProblem]:
    """Returns the problems with an object.

    Raises Unavailable for a hook whose previous object is still being deleted.
    """
    if each.place.hook and error.metadata.get("being_deleted"):
        name = each.wanted.key.name
        raise Unavailable(
            f"hook {name}: an earlier object of this name is still being deleted; retry when it is gone",
            reason="HOOK_BEING_DELETED",
            metadata={"name": name},
            retry_after_seconds=1.0,
        ) from error
    return problems_of(error, each.wanted)


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
