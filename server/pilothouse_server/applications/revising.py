"""Writes an application after its objects: its row, its members with their steps, and its revision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from pilothouse_server.applications import repository
from pilothouse_server.applications.comparison import ComparedObject
from pilothouse_server.applications.history import revised
from pilothouse_server.applications.model import (
    ApplicationResource,
    ApplyChoice,
    HookOutcome,
    Member,
    MemberKey,
    MemberPlace,
    RevisionState,
)
from pilothouse_server.applications.plan import ApplicationPlan, Present
from pilothouse_server.applications.revisions import KeptDocument
from pilothouse_server.applications.steps import is_installing
from pilothouse_server.applications.writing import WrittenObject
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.revisions.operations import (
    ValuesToKeep,
    keep_many_values,
    read_revision,
    write_revision,
)
from pilothouse_server.store.unit_of_work import Transaction

_MOST_REVISION_BYTES: Final = 16 * 1024 * 1024


class DonePlan(msgspec.Struct, frozen=True):
    """A plan whose objects have been written."""

    plan: ApplicationPlan
    present: Present
    written: tuple[WrittenObject, ...]

    @property
    def members(self) -> list[Member]:
        """The members of the application after the apply."""
        after = {each.key: each.after.generation for each in self.written}
        later = MemberPlace(step=self.plan.last_step + 1)
        return [
            *(
                Member(
                    each.wanted.key,
                    each.wanted.api_version,
                    each.wanted.kind,
                    after.get(each.wanted.key) or self._unwritten(each.wanted.key),
                    place=each.place,
                    outcome=self._outcome(each),
                )
                for each in self.plan.objects
            ),
            *(msgspec.structs.replace(each, place=later, pruned=True) for each in self.plan.pruned_later),
        ]

    @property
    def held(self) -> list[tuple[str, int]]:
        """Type and id of the written objects that have to wait for their step."""
        places = {each.wanted.key: each.place for each in self.plan.objects}
        return [
            (each.key.noun, each.after.id)
            for each in self.written
            if each.action != "delete" and places[each.key].step > 0
        ]

    @property
    def released(self) -> list[tuple[str, int]]:
        """Type and id of held objects that belong to the first step or leave the application."""
        steps = {each.wanted.key: each.place.step for each in self.plan.objects}
        return [
            (each.key.noun, each.resource_id)
            for each in self.present.members.values()
            if each.waiting and each.resource_id is not None and not steps.get(each.key)
            if each not in self.plan.pruned_later
        ]

    def _outcome(self, each: ComparedObject) -> HookOutcome | None:
        if not each.place.skipped:
            return None
        before = self.present.members.get(each.wanted.key)
        return "succeeded" if before is not None and before.outcome == "succeeded" else "skipped"

    def _unwritten(self, key: MemberKey) -> int:
        """Returns the generation of an object that is not written; one that others changed remains modified."""
        if key in self.plan.modified:
            return self.present.members[key].generation
        return int(self.present.stored[key].generation)


async def write_application(
    transaction: Transaction,
    namespace: Namespace,
    done: DonePlan,
    documents: Sequence[KeptDocument],
    choice: ApplyChoice,
    envelopes: Envelopes,
) -> ApplicationResource:
    """Writes an application and a revision; returns it as stored. If nothing differs, nothing is written."""
    before = done.present.application
    state = RevisionState(
        tuple(each.document for each in documents),
        choice.rollback_on_failure,
        choice.progress_deadline_seconds,
        choice.failed_revision,
        choice.reason,
        choice.key_scope,
    )
    members = done.members
    wanted = _wanted_application(namespace, before, choice, members)
    if before is not None and not done.plan.changes_objects and _is_same(before, wanted, members):
        newest = await read_revision(transaction, revised(before), before.revision, RevisionState)
        if newest is not None and _wanted_state(newest) == _wanted_state(state):
            return before
    if before is None:
        application_id = await repository.insert_application(transaction, wanted)
    else:
        application_id = before.id
        await repository.update_application(transaction, wanted)
    placed = await repository.get(transaction, application_id)
    await repository.replace_members(transaction, placed, members)
    if done.held or done.released:
        # Holding and releasing update queue rows, so the objects' batched rows are written first.
        await transaction.write_batched_work()
        await repository.hold(transaction, done.held)
        await repository.release(transaction, done.released)
    plain = {each.document.digest: each.text for each in documents if not each.document.secret}
    await repository.add_documents(transaction, placed, plain)
    await write_revision(
        transaction,
        revised(placed),
        msgspec.json.encode(state),
        operation_id=transaction.operation_id,
        kept=placed.revisions_kept,
        origin=choice.origin,
    )
    of, number = revised(placed), placed.revision
    secrets = [
        ValuesToKeep(of, number, each.document.secret, each.text.encode())
        for each in documents
        if each.document.secret
    ]
    await keep_many_values(transaction, secrets, envelopes)
    await repository.forget_beyond(transaction, application_id, _MOST_REVISION_BYTES)
    return await repository.get(transaction, application_id)


def _wanted_application(
    namespace: Namespace,
    before: ApplicationResource | None,
    choice: ApplyChoice,
    members: Sequence[Member],
) -> ApplicationResource:
    base = before or ApplicationResource(name=choice.name, namespace_ref=namespace.ref)
    return msgspec.structs.replace(
        base,
        labels=choice.labels or base.labels,
        revision=base.revision + 1,
        revisions_kept=base.revisions_kept if choice.revisions_kept is None else choice.revisions_kept,
        rollback_on_failure=choice.rollback_on_failure,
        progress_deadline_seconds=choice.progress_deadline_seconds,
        status="progressing",
        reason="",
        message="",
        step=0,
        installed=base.installed or not is_installing(members),
    )


def _is_same(before: ApplicationResource, wanted: ApplicationResource, members: Sequence[Member]) -> bool:
    settings = ("labels", "revisions_kept", "rollback_on_failure", "progress_deadline_seconds")

    def described(found: Sequence[Member]) -> dict[MemberKey, object]:
        return {
            each.key: (each.generation, each.phase, each.wave, each.hook, each.place.delete_on)
            for each in found
            if not each.pruned
        }

    return described(members) == described(before.members) and all(
        getattr(before, name) == getattr(wanted, name) for name in settings
    )


def _wanted_state(state: RevisionState) -> RevisionState:
    """Returns a state without the parts that alone make no new revision: sources of documents, and the key's scope."""
    documents = tuple(msgspec.structs.replace(each, source="") for each in state.documents)
    return msgspec.structs.replace(state, documents=documents, key_scope=None)
