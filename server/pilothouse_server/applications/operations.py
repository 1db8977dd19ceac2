"""The rules of applications: apply, prune, roll back, pause, delete.

An apply reads the namespace, plans, and writes every object with the operations of its noun, in one transaction with
one revision. If a noun refuses one object, the whole apply is refused. A namespace has one apply at a time, because two
would change each other's members; a second one fails immediately with ABORTED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from pilothouse_server.applications import repository
from pilothouse_server.applications.carrying_out import WriteRefused, carried_out
from pilothouse_server.applications.comparison import ComparedObject
from pilothouse_server.applications.documents import in_order
from pilothouse_server.applications.model import (
    ApplicationChange,
    ApplicationProblem,
    ApplicationResource,
    ApplyChoice,
    MemberKey,
    ReadDocuments,
    WantedObject,
)
from pilothouse_server.applications.plan import ApplicationPlan, Present, planned
from pilothouse_server.applications.present import secret_values, stored_objects
from pilothouse_server.applications.revising import DonePlan, write_application
from pilothouse_server.applications.revisions import KeptDocument
from pilothouse_server.applications.rights import NounRights
from pilothouse_server.applications.writing import ObjectWriter, WrittenObject
from pilothouse_server.authorization.access import May
from pilothouse_server.containers.job_status import run_end
from pilothouse_server.containers.operations import pause as pause_container
from pilothouse_server.containers.operations import resume as resume_container
from pilothouse_server.containers.workloads import is_ready_at_start
from pilothouse_server.errors import (
    Aborted,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
    Violation,
    not_found,
)
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.objects import facts
from pilothouse_server.store.in_namespaces import Matching
from pilothouse_server.store.unit_of_work import Event, Kind, ReadTransaction, Transaction
from pilothouse_server.values.document_paths import parsed
from pilothouse_server.values.resources import NamespaceId, NamespaceRef, ObjectWarning

Check = Callable[[ApplicationResource], None]

_MOST_APPLICATIONS: Final = 200
_SHOWN_PROBLEMS: Final = 20
list_page = repository.list_applications
stream = repository.stream_applications
find = repository.find


class ApplyingCaller(msgspec.Struct, frozen=True):
    """The rights of the user who applies."""

    rights: NounRights
    may: May


class PreparedPlan(msgspec.Struct, frozen=True):
    """A plan, the state of the namespace that it was made from, and the fingerprint of that state."""

    plan: ApplicationPlan
    present: Present
    mark: str


class AppliedDocuments(msgspec.Struct, frozen=True):
    """The documents of an apply: the objects that they ask for, and the documents as the revision stores them.

    `base`: the objects of the newest revision, if another call has changed a member since. `prepared`: a plan that was
    made before the transaction; it is made again if the namespace has changed.
    """

    read: ReadDocuments
    kept: tuple[KeptDocument, ...] = ()
    base: Mapping[MemberKey, WantedObject] = {}
    prepared: PreparedPlan | None = None


class AppliedApplication(msgspec.Struct, frozen=True):
    """The result of an apply. `application`: None if the request names none, or if problems refuse the apply."""

    application: ApplicationResource | None
    changes: tuple[ApplicationChange, ...]
    problems: tuple[ApplicationProblem, ...] = ()
    warnings: tuple[ObjectWarning, ...] = ()
    written: tuple[WrittenObject, ...] = ()
    cluster: str = ""


async def locate(
    transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False
) -> ApplicationResource:
    """Returns the application of this name.

    Raises:
        NotFound: the namespace or the application; also if the caller may not see it.
    """
    found = await repository.find(transaction, namespace, name, lock=lock)
    if found is None:
        await locate_namespace(transaction, namespace)
        raise not_found("application", name)
    return found


async def apply(
    transaction: Transaction,
    namespace_name: str,
    documents: AppliedDocuments,
    choice: ApplyChoice,
    check: Check,
    caller: ApplyingCaller,
    *,
    collecting: bool,
) -> AppliedApplication:
    """Writes the objects that documents ask for, and the revision of the application.

    `collecting`: finds every problem and returns them all. The caller then rolls the transaction back.

    Raises:
        NotFound: the namespace; for a rollback also the application.
        FailedPrecondition: the namespace is inactive or being deleted.
        Aborted: another apply of the namespace is in progress; from `check`, the etag is not the current one.
        ResourceExhausted: the namespace has reached its limit of applications.
        InvalidArgument: problems with the documents (reason DOCUMENTS_REFUSED), unless `collecting`.
        WriteRefused: a noun refuses an object, unless `collecting`.
    """
    namespace = await begun(transaction, namespace_name)
    if choice.name:
        # The application's row is locked before its objects, in the same order as the status follower locks them.
        await repository.lock_named(transaction, namespace.id, choice.name)
    read, prepared = documents.read, documents.prepared
    if prepared is None or await repository.mark(transaction, namespace.id) != prepared.mark:
        present = await _present(transaction, namespace, documents, choice, caller)
        plan = await planned(read, present, choice, caller.may, namespace.name)
    else:
        present, plan = prepared.present, prepared.plan
    application = present.application
    if application is not None:
        check(application)
    elif choice.origin:
        # The application was deleted after its revision was read.
        raise not_found("application", choice.name)
    elif choice.name:
        await _refuse_exceeded(transaction, namespace)
    if plan.problems and not collecting:
        raise refused(plan.problems)
    writer = ObjectWriter(transaction, namespace.name, caller.rights, caller.may)
    written, problems = await carried_out(writer, plan, present, choice, collecting=collecting)
    changes = _changes(plan, caller.may)
    warnings = (*read.warnings, *plan.warnings, *writer.collected, *_kept_warnings(plan))
    if plan.problems or problems:
        found = in_order((*plan.problems, *problems))
        return AppliedApplication(
            application, changes, found, warnings, tuple(written), namespace.cluster_name
        )
    if choice.name:
        warnings = (*warnings, *_probe_warnings(written))
        done = DonePlan(plan, present, tuple(written))
        envelopes = caller.rights.envelopes
        stored = await write_application(transaction, namespace, done, documents.kept, choice, envelopes)
        if application is None or stored.revision != application.revision:
            transaction.emit(event(stored, "added" if application is None else "modified", application))
        application = stored
    return AppliedApplication(application, changes, (), warnings, tuple(written), namespace.cluster_name)


async def read_for_plan(
    transaction: ReadTransaction,
    namespace: Namespace,
    documents: AppliedDocuments,
    choice: ApplyChoice,
    caller: ApplyingCaller,
) -> tuple[Present, str]:
    """Returns the state of a namespace that a plan is made from, and its fingerprint, both from one snapshot."""
    present = await _present(transaction, namespace, documents, choice, caller)
    return present, await repository.mark(transaction, namespace.id)


async def delete(
    transaction: Transaction,
    namespace_name: str,
    name: str,
    check: Check,
    caller: ApplyingCaller,
    *,
    delete_claims: bool,
) -> tuple[AppliedApplication, tuple[str, ...]]:
    """Deletes an application with its objects; also returns the names of the volumes that stay.

    Raises:
        NotFound: the namespace or the application.
        Aborted: as `apply`.
        PermissionDenied: the caller may not delete one of the objects.
        FailedPrecondition: another object that stays needs one of the objects.
    """
    await locate(transaction, namespace_name, name)
    namespace = await begun(transaction, namespace_name, active=False)
    application = await locate(transaction, namespace_name, name, lock=True)
    check(application)
    choice = ApplyChoice(name, prune=True, delete_claims=delete_claims, delete_hooks=True)
    present = await _present(transaction, namespace, AppliedDocuments(ReadDocuments()), choice, caller)
    plan = await planned(ReadDocuments(), present, choice, caller.may, namespace.name)
    if plan.problems:
        problem = plan.problems[0]
        raise PermissionDenied(
            f"{problem.kind} {problem.name}: {problem.message}",
            reason="PERMISSION_DENIED",
            metadata={"permission": problem.permission, "namespace": namespace.name},
        )
    writer = ObjectWriter(transaction, namespace.name, caller.rights, caller.may)
    try:
        written, _ = await carried_out(writer, plan, present, choice, collecting=False)
    except WriteRefused as refused:
        raise refused.error from None
    await _delete(transaction, application)
    transaction.emit(event(application, "deleted", application))
    kept = tuple(each.name for each in plan.kept)
    return AppliedApplication(application, _changes(plan, caller.may), written=tuple(written)), kept


async def pause(
    transaction: Transaction, namespace: str, name: str, caller: ApplyingCaller
) -> tuple[ApplicationResource, list[WrittenObject]]:
    """Pauses every running container of an application; returns the application and these containers.

    Raises:
        NotFound: the namespace or the application.
        PermissionDenied: the caller may not pause containers.
    """
    return await _moved(transaction, namespace, name, caller, "pause")


async def resume(
    transaction: Transaction, namespace: str, name: str, caller: ApplyingCaller
) -> tuple[ApplicationResource, list[WrittenObject]]:
    """Resumes every paused container of an application. Returns and raises as `pause`."""
    return await _moved(transaction, namespace, name, caller, "resume")


async def delete_all(transaction: Transaction, namespace: NamespaceRef) -> None:
    """Removes every application of a namespace. Their nouns delete the objects."""
    found = [
        each async for each in repository.stream_applications(transaction, Matching(namespace.id, None, None))
    ]
    for each in found:
        await _delete(transaction, each)
        transaction.emit(event(each, "deleted", each))


async def _delete(transaction: Transaction, application: ApplicationResource) -> None:
    """Deletes the row of an application and releases its waiting members, which nothing else would release."""
    waiting = [each for each in application.members if each.waiting]
    await repository.release(
        transaction, [(each.key.noun, each.resource_id) for each in waiting if each.resource_id is not None]
    )
    await repository.delete_application(transaction, application.id)


async def held(transaction: ReadTransaction, namespace_id: NamespaceId) -> Mapping[str, int]:
    """Returns how many applications a namespace contains."""
    return {"applications": await repository.count(transaction, namespace_id)}


def event(application: ApplicationResource, kind: Kind, before: ApplicationResource | None = None) -> Event:
    """Returns the event of a change of an application."""
    return Event(
        resource_type="application",
        resource_id=application.id,
        namespace_id=application.namespace_id,
        name=application.name,
        kind=kind,
        entity=application,
        labels=application.labels,
        status=application.status,
        labels_before=None if before is None else before.labels,
        status_before=None if before is None else before.status,
    )


def refused(problems: Sequence[ApplicationProblem]) -> InvalidArgument:
    """Returns the error of an apply with problems: it names the first 20, and states their number."""
    shown = in_order(problems)[:_SHOWN_PROBLEMS]
    words = "one problem" if len(problems) == 1 else f"{len(problems)} problems"
    return InvalidArgument(
        f"documents: {words}, and nothing is applied; a call with validate_only returns all of them",
        reason="DOCUMENTS_REFUSED",
        metadata={"problems": str(len(problems))},
        violations=[
            Violation(
                f"documents[{each.document}]{'.' if each.path else ''}{each.path}"
                if each.document >= 0
                else "documents",
                each.reason.lower(),
                f"{each.kind} {each.name}: {each.message}" if each.name else each.message,
            )
            for each in shown
        ],
    )


async def begun(transaction: Transaction, namespace_name: str, *, active: bool = True) -> Namespace:
    """Locks a namespace for a call that writes several objects, until the transaction ends; returns it.

    Raises as `apply`.
    """
    namespace = await locate_namespace(transaction, namespace_name)
    if not await repository.take_turn(transaction, namespace.id):
        raise Aborted(
            f'another apply of namespace "{namespace_name}" is in progress; retry when it has ended',
            reason="APPLICATION_BUSY",
            metadata={"namespace": namespace_name},
        )
    namespace = await locate_namespace(transaction, namespace_name, "update")
    transaction.namespaces[namespace_name] = namespace
    transaction.batched_work = []
    if active:
        refuse_inactive_namespace(namespace)
    return namespace


async def _refuse_exceeded(transaction: Transaction, namespace: Namespace) -> None:
    used = await repository.count(transaction, namespace.id)
    if used >= _MOST_APPLICATIONS:
        raise ResourceExhausted(
            f'namespace "{namespace.name}" has {used} applications, and {_MOST_APPLICATIONS} are allowed; delete one',
            reason="TOO_MANY_APPLICATIONS",
            metadata={"limit": str(_MOST_APPLICATIONS), "used": str(used)},
        )


async def _present(
    transaction: ReadTransaction,
    namespace: Namespace,
    documents: AppliedDocuments,
    choice: ApplyChoice,
    caller: ApplyingCaller,
) -> Present:
    read = documents.read
    application = await repository.find(transaction, namespace.name, choice.name) if choice.name else None
    members = () if application is None else application.members
    nouns = {each.key.noun for each in read.wanted} | {each.key.noun for each in members}
    stored = await stored_objects(transaction, namespace, nouns)
    settings = await facts.of_cluster(transaction, namespace.cluster_name)
    return Present(
        stored,
        await repository.owners(transaction, namespace.id),
        application,
        documents.base,
        await secret_values(transaction, read.wanted, stored, caller.rights.envelopes),
        {
            (each.api_version, each.kind): tuple(map(parsed, each.secret_paths))
            for each in settings.object_kinds
        },
    )


def _changes(plan: ApplicationPlan, may: May) -> tuple[ApplicationChange, ...]:
    pruned = (
        ApplicationChange(each.api_version, each.kind, each.name, "prune")
        for each in (*plan.pruned, *plan.pruned_later)
    )
    objects = sorted(plan.objects, key=lambda each: each.place.step)
    return (*(_shown(each, plan, may) for each in objects), *pruned)


def _shown(each: ComparedObject, plan: ApplicationPlan, may: May) -> ApplicationChange:
    change = each.shown(may)
    others = plan.modified.get(each.wanted.key, ())
    return msgspec.structs.replace(change, modified_fields=others) if change.fields or others else change


def _probe_warnings(written: Sequence[WrittenObject]) -> list[ObjectWarning]:
    return [
        ObjectWarning(
            "NO_READINESS_PROBE",
            "",
            f"container {each.after.name} has no readiness probe: it counts as ready, and the application as healthy, "
            "as soon as it starts",
        )
        for each in written
        if each.key.noun == "container" and each.action != "delete" and is_ready_at_start(each.after)
    ]


def _kept_warnings(plan: ApplicationPlan) -> list[ObjectWarning]:
    return [
        ObjectWarning(
            "NOT_PRUNED",
            "",
            f"{each.kind} {each.name} is in no document any more: it stays, and belongs to no application",
        )
        for each in plan.kept
    ]


async def _moved(
    transaction: Transaction, namespace_name: str, name: str, caller: ApplyingCaller, verb: str
) -> tuple[ApplicationResource, list[WrittenObject]]:
    await locate(transaction, namespace_name, name)
    namespace = await begun(transaction, namespace_name)
    application = await locate(transaction, namespace_name, name, lock=True)
    permission = f"container.{verb}"
    if not caller.may(permission):
        raise PermissionDenied(
            f'permission {permission} is needed in namespace "{namespace_name}"',
            reason="PERMISSION_DENIED",
            metadata={"permission": permission, "namespace": namespace_name},
        )
    stored = await stored_objects(transaction, namespace, {"container"})
    moved: list[WrittenObject] = []
    state = "running" if verb == "pause" else "paused"
    keys = [each.key for each in application.members if each.key in stored]
    # All callers lock containers and their queue rows in this order.
    for key in sorted(keys, key=lambda key: stored[key].id):
        container = stored[key]
        # A Job that has ended cannot be paused.
        if container.desired_state != state or run_end(container) is not None:
            continue
        if verb == "pause":
            after, _ = await pause_container(transaction, namespace_name, key.name, "suspend")
        else:
            after = await resume_container(transaction, namespace_name, key.name)
        moved.append(WrittenObject(key, "update", after, container))
    if not moved:
        return application, moved
    generations = {each.key: each.after.generation for each in moved}
    await repository.replace_members(
        transaction,
        application,
        [
            msgspec.structs.replace(each, generation=generations.get(each.key, each.generation))
            for each in application.members
        ],
    )
    await repository.update_application(transaction, application)
    after_move = await repository.get(transaction, application.id)
    transaction.emit(event(after_move, "modified", application))
    return after_move, moved
