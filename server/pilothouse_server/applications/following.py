"""Writes the statuses of applications as their members change, and rolls back revisions that fail.

For each member that changes, a trigger adds a row that names its application. A server reads these rows within a second
after a commit of its own, and every five seconds in any case. It then writes the statuses of the applications in a
short transaction, and skips applications that another server has locked. So a change of a member costs one row, and
each server emits at most one event per second for an application, however many members change.

A revision with rollback on failure has a deadline in the application's row until it has been healthy for 10 s. If the
revision fails, or is not healthy in time, one transaction restores the previous revision. It acts as the user who
applied the failed one, with that user's permissions and within the limits of the API key of that call. The same
transaction removes the deadline: if a server dies before the commit, nothing has changed, and another server finds the
deadline. If the rollback is refused, the reason is stored and the rollback is not retried.

The transaction that writes a status also begins the next step of a revision once all earlier steps are healthy, and
stores the outcomes of its hooks (`steps`). A separate transaction then deletes the members that are to be deleted, as
the user who applied the revision and with that user's permissions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from uuid import uuid4

import msgspec
import structlog

from pilothouse_server.applications import history, operations, removing, repository
from pilothouse_server.applications.carrying_out import WriteRefused
from pilothouse_server.applications.documents import settled, translated
from pilothouse_server.applications.health import FollowedHealth, followed_health
from pilothouse_server.applications.messages.records import RecordCause, record_of
from pilothouse_server.applications.model import (
    ApplicationResource,
    ApplyChoice,
    FollowedApplication,
    GivenDocument,
    KeyScope,
    Member,
    MemberKey,
    UserRef,
)
from pilothouse_server.applications.operations import (
    AppliedApplication,
    AppliedDocuments,
    ApplyingCaller,
)
from pilothouse_server.applications.present import for_translation
from pilothouse_server.applications.revisions import kept_documents
from pilothouse_server.applications.rights import NounRights
from pilothouse_server.authorization.access import KeyLimits, KeyNamespace, May, Principal, within
from pilothouse_server.encryption.token_keys import KeyNotAtHand
from pilothouse_server.errors import (
    Aborted,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    PilothouseError,
    Unavailable,
)
from pilothouse_server.identity.access.operations.grants import held_by_user
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.objects import facts
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.audit_records import AuditRecord
from pilothouse_server.store.unit_of_work import Actor, ReadTransaction, Store, Transaction

log = structlog.get_logger(__name__)

# The pause between two passes, and the longest wait after it while this server commits nothing.
_LOOK_SECONDS = 1.0
_POLL_SECONDS = 4.0
_BATCH = 20
_APPLY_PATH = "/pilothouse.application.v1.ApplicationService/ApplyApplication"
_PATH = "/pilothouse.application.v1.ApplicationService/RollbackApplication"
# A rollback applies the documents of an earlier revision, so it needs this permission.
_PERMISSION = "application.apply"
# Retried: another server is working on the application, the database is unreachable, or a key is not loaded.
_PASSING = (Aborted, Unavailable)


class ApplicationFollower:
    """Writes statuses and rolls back failed revisions; several servers run it in parallel."""

    def __init__(self, store: Store, rights: NounRights, digest_key: bytes) -> None:
        self._store = store
        self._rights = rights
        self._digest_key = digest_key
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            try:
                while await self.follow():
                    pass
            except PilothouseError as error:
                log.warning("statuses of applications are written later", reason=error.reason)
            await asyncio.sleep(_LOOK_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._wanted.wait()
            self._wanted.clear()

    def wake(self) -> None:
        """Wakes the loop after a commit of this server."""
        self._wanted.set()

    async def follow(self) -> int:
        """Writes the statuses of some applications, and rolls back failed ones; returns the number of statuses."""
        async with self._store.system_look() as look:
            if not await repository.has_status_work(look):
                return 0
        async with self._store.system_write() as transaction:
            now = await transaction.moment()
            taken = await repository.take_status_work(transaction, _BATCH)
            found = [followed_health(each, now) async for each in cooperatively(taken)]
            for before, after in zip(taken, found, strict=True):
                await _write(transaction, before, after)
        for each in found:
            if each.next.removed:
                await self._remove(each.followed, each.next.removed)
            if each.failure:
                await self._roll_back(each.followed, each.failure)
        return len(found)

    async def _remove(self, followed: FollowedApplication, members: Sequence[Member]) -> None:
        """Deletes members and writes their audit records in one transaction; refused deletions are retried later."""
        application, user = followed.application, followed.applied_by
        if user is None:
            return
        actor = Actor(user.id, user.name)
        unit = self._store.unit_of_work(actor, uuid4(), _APPLY_PATH)
        try:
            async with self._store.system_read() as read:
                revision = await history.revision_of(read, application, application.revision)
                may = await _rights_of(read, user, application, revision.desired.key_scope)
            caller = ApplyingCaller(self._rights, may)
            check = _same_revision(application)
            transaction = await unit.begin()
            deleted, refusals = await removing.remove(transaction, application, members, check, caller)
            cause = RecordCause(str(revision.operation_id), actor, "", self._store.clock.now())
            await unit.commit(audit=[record_of(cause, each) async for each in cooperatively(deleted)])
        except PilothouseError as error:
            await unit.rollback()
            log.info("members are deleted later", application=application.name, reason=error.reason)
            return
        except BaseException:
            await unit.rollback()
            raise
        for each in refusals:
            log.warning("a member cannot be deleted yet", application=application.name, reason=each.reason)

    async def _roll_back(self, failed: FollowedApplication, why: str) -> None:
        application = failed.application
        try:
            await self._brought_back(failed, why)
        except KeyNotAtHand as missing:
            await missing.bring()
            return
        except _PASSING as error:
            log.info("a rollback is tried again", application=application.name, reason=error.reason)
            return
        except WriteRefused as refused:
            words = refused.error.message
        except InvalidArgument as refused:
            words = refused.violations[0].description if refused.violations else refused.message
        except PilothouseError as refused:
            words = refused.message
        else:
            return
        await self._note_refusal(failed, words)

    async def _brought_back(self, failed: FollowedApplication, why: str) -> None:
        """Restores the revision before the failed one, as the user who applied the failed one."""
        application, user = failed.application, failed.applied_by
        if user is None:
            raise NotFound("the user who applied it is not known", reason="USER_NOT_FOUND")
        if application.revision < 2:
            raise NotFound("there is no revision before it", reason="REVISION_NOT_FOUND")
        origin = application.revision - 1
        async with self._store.system_read() as transaction:
            failing = await history.revision_of(transaction, application, application.revision)
            key_scope = failing.desired.key_scope
            may = await _rights_of(transaction, user, application, key_scope)
            if not may(_PERMISSION):
                whose = "the API key of" if key_scope is not None else ""
                raise PermissionDenied(
                    f'{whose} user "{user.name}", who applied it, has no permission {_PERMISSION} any more'.strip(),
                    reason="PERMISSION_DENIED",
                )
            revision = await history.revision_of(transaction, application, origin)
            texts = await history.texts_of(transaction, application, revision, self._rights.envelopes)
        purged = [each.document.name for each in texts if each.text is None]
        given = [GivenDocument(each.text, each.document.source) for each in texts if each.text is not None]
        choice = ApplyChoice(
            name=application.name,
            prune=True,
            take_over=True,
            replace=True,
            force=True,
            origin=origin,
            failed_revision=application.revision,
            reason=why[:1000],
            key_scope=key_scope,
            left=frozenset(MemberKey("secret", name) for name in purged),
        )
        documents = await self._documents(application, given)
        caller = ApplyingCaller(self._rights, may)
        await self._write_back(failed, Actor(user.id, user.name), documents, choice, caller)
        log.info("a revision has failed and was rolled back", application=application.name, revision=origin)

    async def _documents(
        self, application: ApplicationResource, given: Sequence[GivenDocument]
    ) -> AppliedDocuments:
        async with self._store.system_read() as transaction:
            namespace = await locate_namespace(transaction, application.namespace)
            settings = await facts.of_cluster(transaction, namespace.cluster_name)
        opened = {(each.api_version, each.kind) for each in settings.object_kinds}
        understood = await translated(given, namespace.name, opened, ordered=True)
        async with self._store.system_read() as transaction:
            present = await for_translation(transaction, namespace, understood)
        read = await settled(understood, present)
        return AppliedDocuments(read, tuple(await kept_documents(given, self._digest_key)), {})

    async def _write_back(
        self,
        failed: FollowedApplication,
        actor: Actor,
        documents: AppliedDocuments,
        choice: ApplyChoice,
        caller: ApplyingCaller,
    ) -> None:
        """Applies the documents and writes the audit records in one transaction."""

        unit = self._store.unit_of_work(actor, uuid4(), _PATH)
        try:
            transaction = await unit.begin()
            applied = await operations.apply(
                transaction,
                failed.application.namespace,
                documents,
                choice,
                _same_revision(failed.application),
                caller,
                collecting=False,
            )
            now = self._store.clock.now()
            cause = RecordCause(str(transaction.operation_id), actor, "", now)
            records = [record_of(cause, each) async for each in cooperatively(applied.written)]
            await unit.commit(audit=[_record(transaction, actor, applied, choice, cause), *records])
        except BaseException:
            await unit.rollback()
            raise

    async def _note_refusal(self, failed: FollowedApplication, words: str) -> None:
        name = failed.application.name
        log.warning("a revision has failed and cannot be rolled back", application=name, why=words)
        async with self._store.system_write() as transaction:
            await repository.lock_application(transaction, failed.application.id)
            stored = await repository.find_followed(transaction, failed.application.id)
            if stored is None or stored.application.revision != failed.application.revision:
                return
            noted = msgspec.structs.replace(stored, deadline_at=None, not_rolled_back=words)
            after = followed_health(noted, await transaction.moment())
            await _write(transaction, stored, after)


async def _rights_of(
    transaction: ReadTransaction, user: UserRef, application: ApplicationResource, scope: KeyScope | None
) -> May:
    """Returns the user's current permissions, within the limits of the API key that applied a revision."""
    grants = await held_by_user(transaction, user.id)
    if scope is not None:
        here = KeyNamespace(application.namespace_id, application.namespace)
        permissions = None if scope.permissions is None else frozenset(scope.permissions)
        grants = within(grants, KeyLimits(permissions, (here,) if scope.in_namespaces else None))
    principal = Principal(user.id, user.name, tuple(grants))
    return lambda permission: principal.allows(permission, application.namespace)


def _same_revision(application: ApplicationResource) -> operations.Check:
    def check(stored: ApplicationResource) -> None:
        if (stored.uid, stored.revision) != (application.uid, application.revision):
            raise Aborted(
                "the application has another revision now; nothing is changed",
                reason="REVISION_CHANGED",
            )

    return check


async def _write(transaction: Transaction, before: FollowedApplication, after: FollowedHealth) -> None:
    was, now = before.application, after.followed.application
    begun = [(each.key.noun, each.resource_id) for each in after.next.begun if each.resource_id is not None]
    await repository.release(transaction, begun)
    await repository.write_outcomes(transaction, now.id, after.next.ended)
    await repository.write_status(transaction, after.followed, after.look_at)
    if (was.status, was.reason, was.message) != (now.status, now.reason, now.message):
        transaction.emit(operations.event(now, "modified", was))


def _record(
    transaction: Transaction,
    actor: Actor,
    applied: AppliedApplication,
    choice: ApplyChoice,
    cause: RecordCause,
) -> AuditRecord:
    application = applied.application
    assert application is not None, "a rollback names an application"
    return AuditRecord(
        operation_id=transaction.operation_id,
        user_id=actor.user_id,
        username=actor.username[:50] or None,
        action="rollback",
        resource_type="application",
        resource_id=application.id,
        resource_name=application.name,
        namespace_id=application.namespace_id,
        request_path=_PATH,
        user_agent="pilothouse server",
        status_code=200,
        duration_ms=0,
        started_at=cause.now,
        completed_at=cause.now,
        metadata={
            "namespace": application.namespace,
            "resource_uid": application.uid,
            "revision": choice.origin,
            "failed_revision": choice.failed_revision,
            "reason": choice.reason,
        },
    )
