"""ApplicationService: request → operation → response."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import msgspec

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_server.applications import history, messages, operations
from pilothouse_server.applications.carrying_out import WriteRefused
from pilothouse_server.applications.comparison import PERMISSIONS
from pilothouse_server.applications.documents import in_order, settled, translated
from pilothouse_server.applications.dry_run import TriedObject, tried_on_cluster
from pilothouse_server.applications.messages.records import cause_of, record_of
from pilothouse_server.applications.model import (
    ApplicationResource,
    ApplyChoice,
    GivenDocument,
    KeyScope,
    MemberKey,
    ReadDocuments,
    RevisionState,
)
from pilothouse_server.applications.operations import (
    AppliedApplication,
    AppliedDocuments,
    ApplyingCaller,
    PreparedPlan,
)
from pilothouse_server.applications.plan import planned
from pilothouse_server.applications.present import for_translation
from pilothouse_server.applications.revisions import (
    KeptDocument,
    RevisionText,
    difference,
    kept_documents,
    noun_of,
    readable,
    summary,
)
from pilothouse_server.applications.rights import NounRights
from pilothouse_server.applications.writing import WrittenObject
from pilothouse_server.authorization.access import REVEAL
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.config.operations.rules import merged
from pilothouse_server.config.operations.secrets import Asked
from pilothouse_server.errors import Aborted
from pilothouse_server.kubernetes.discovery import KindDiscovery
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.objects import facts, masking
from pilothouse_server.revisions.model import Revision
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call, writes_many
from pilothouse_server.rpc.converter import AnswerConverter, MessageT, ValueT
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.watch import watch
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.in_namespaces import Matching
from pilothouse_server.store.unit_of_work import ReadTransaction

_LIST = ListAnswer(pb.ListApplicationsResponse, "applications")
_REVISIONS = ListAnswer(pb.ListRevisionsResponse, "revisions")
_MOST_PROBLEMS = 2000
Check = Callable[[ApplicationResource], None]


class ApplicationService:
    """Serves `pilothouse.application.v1.ApplicationService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["ApplicationService"]

    def __init__(
        self, watches: WatchServer, page_key: bytes, connect: Connect, rights: NounRights, digest_key: bytes
    ) -> None:
        self._watches = watches
        self._listed = WatchedList(watches, WATCH)
        self._page_key = page_key
        self._rights = rights
        self._digest_key = digest_key
        self._connect = connect
        self._discovery = KindDiscovery()

    @writes_many
    async def ApplyApplication(
        self, request: pb.ApplyApplicationRequest, call: Call
    ) -> pb.ApplyApplicationResponse:
        """Applies documents."""
        choice = ApplyChoice(
            name=request.name,
            prune=request.prune,
            take_over=request.take_over,
            replace=request.replace,
            force=request.force,
            delete_claims=request.delete_claims,
            rollback_on_failure=request.rollback_on_failure,
            progress_deadline_seconds=request.progress_deadline_seconds,
            revisions_kept=request.revisions_kept if request.HasField("revisions_kept") else None,
            labels=dict(request.labels),
            key_scope=_key_scope(call),
        )
        given = messages.given_documents(request)
        applied = await self._applied(call, given, choice, wire.etag_check(request.etag))
        response = pb.ApplyApplicationResponse(
            changes=await _messages(messages.CHANGE, applied.changes),
            problems=await _messages(messages.PROBLEM, applied.problems[:_MOST_PROBLEMS]),
            problem_count=len(applied.problems),
            warnings=await _messages(wire.WARNING, applied.warnings),
        )
        if applied.application is not None and not applied.problems:
            response.application.CopyFrom(_described(call, applied.application))
            response.revision = applied.application.revision
        return response

    async def GetApplication(
        self, request: pb.GetApplicationRequest, call: Call
    ) -> pb.GetApplicationResponse:
        """Returns one application."""
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
        return pb.GetApplicationResponse(application=_described(call, found))

    async def ListApplications(self, request: pb.ListApplicationsRequest, call: Call) -> bytes:
        """Lists applications."""
        page = wire.page_request(call, self._page_key, request.namespace, request.label_selector)
        mask = read_mask.of_request(request, pb.Application)
        listed = self._listed.begin()
        async with call.read() as transaction:
            namespace_id = await named_namespace(call, transaction, request.namespace)
            found, next_page = await operations.list_page(
                transaction,
                page,
                namespace_id=namespace_id,
                selector=wire.label_selector(request.label_selector),
                visible=call.visible_namespaces(),
            )
            token = await listed.token(call, transaction, namespace_id)
        return await _LIST.rendered(found, messages.APPLICATION.to_proto, next_page, token, mask)

    @writes_many
    async def DeleteApplication(
        self, request: pb.DeleteApplicationRequest, call: Call
    ) -> pb.DeleteApplicationResponse:
        """Deletes an application with its objects."""
        applied, kept = await operations.delete(
            await call.transaction(),
            request.namespace,
            request.name,
            wire.etag_check(request.etag),
            self._caller(call),
            delete_claims=request.delete_claims,
        )
        assert applied.application is not None
        await self._record(call, applied.written)
        return pb.DeleteApplicationResponse(
            application=_described(call, applied.application),
            changes=await _messages(messages.CHANGE, applied.changes),
            kept_claims=kept,
        )

    async def PauseApplication(
        self, request: pb.PauseApplicationRequest, call: Call
    ) -> pb.PauseApplicationResponse:
        """Pauses the containers of an application."""
        paused, written = await operations.pause(
            await call.transaction(), request.namespace, request.name, self._caller(call)
        )
        await self._record(call, written)
        return pb.PauseApplicationResponse(
            application=_described(call, paused), containers=[each.key.name for each in written]
        )

    async def ResumeApplication(
        self, request: pb.ResumeApplicationRequest, call: Call
    ) -> pb.ResumeApplicationResponse:
        """Resumes the containers of an application."""
        resumed, written = await operations.resume(
            await call.transaction(), request.namespace, request.name, self._caller(call)
        )
        await self._record(call, written)
        return pb.ResumeApplicationResponse(
            application=_described(call, resumed), containers=[each.key.name for each in written]
        )

    async def ListRevisions(self, request: pb.ListRevisionsRequest, call: Call) -> bytes:
        """Lists the revisions of an application."""
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
            _describe(call, found)
            page = wire.page_request(call, self._page_key, found.uid)
            revisions, next_page = await history.list_revisions_of(transaction, found, page)
        return await _REVISIONS.rendered(revisions, messages.revision_to_proto, next_page)

    async def GetRevision(self, request: pb.GetRevisionRequest, call: Call) -> pb.GetRevisionResponse:
        """Returns one revision with its documents."""
        found, revision, texts = await self._revision(call, request.name, request.revision)
        _describe(call, found)
        may, shown = call.may(request.namespace), messages.revision_to_proto(revision)
        shown.documents.extend(json.dumps(each.shown(may)) for each in texts)
        return pb.GetRevisionResponse(revision=shown)

    async def DiffRevisions(self, request: pb.DiffRevisionsRequest, call: Call) -> pb.DiffRevisionsResponse:
        """Compares two revisions."""
        found, after, new = await self._revision(call, request.name, request.after)
        _, before, old = await self._revision(call, request.name, request.before or after.number - 1)
        _describe(call, found)
        changes = difference(old, new, call.may(request.namespace))
        return pb.DiffRevisionsResponse(
            before=before.number, after=after.number, changes=map(messages.CHANGE.to_proto, changes)
        )

    @writes_many
    async def RollbackApplication(
        self, request: pb.RollbackApplicationRequest, call: Call
    ) -> pb.RollbackApplicationResponse:
        """Restores an earlier revision."""
        found, revision, texts = await self._revision(call, request.name, request.revision, former=True)
        purged = [each for each in texts if each.text is None]
        given = [GivenDocument(each.text, each.document.source) for each in texts if each.text is not None]
        choice = ApplyChoice(
            name=found.name,
            prune=True,
            take_over=True,
            replace=request.replace,
            force=True,
            origin=revision.number,
            rerun_jobs=request.rerun_jobs,
            key_scope=_key_scope(call),
            left=frozenset(MemberKey("secret", each.document.name) for each in purged),
        )
        check = _unchanged(found, 0 if request.revision else found.revision, wire.etag_check(request.etag))
        applied = await self._applied(call, given, choice, check)
        response = pb.RollbackApplicationResponse(
            origin=revision.number,
            changes=await _messages(messages.CHANGE, applied.changes),
            not_restored=history.not_restored(applied.changes, purged, rerun_jobs=request.rerun_jobs),
            problems=await _messages(messages.PROBLEM, applied.problems[:_MOST_PROBLEMS]),
            problem_count=len(applied.problems),
            warnings=await _messages(wire.WARNING, applied.warnings),
        )
        if applied.application is not None and not applied.problems:
            response.application.CopyFrom(_described(call, applied.application))
            response.revision = applied.application.revision
        return response

    async def ExportApplication(
        self, request: pb.ExportApplicationRequest, call: Call
    ) -> pb.ExportApplicationResponse:
        """Returns the documents of an application."""
        found, revision, texts = await self._revision(call, request.name, request.revision)
        _describe(call, found)
        may = call.may(request.namespace)
        response = pb.ExportApplicationResponse(revision=revision.number)
        for each in texts:
            is_visible = may(f"{PERMISSIONS[noun_of(each.document.kind)]}.get")
            if (
                each.text is None
                or not is_visible
                or (each.document.secret and not may(REVEAL))
                or each.masked
            ):
                response.left_out.append(f"{each.document.kind} {each.document.name}")
                continue
            response.documents.add(json=each.text, source=each.document.source)
        return response

    def WatchApplications(self, _request: pb.WatchApplicationsRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches applications."""
        return watch(self._watches, call, _WATCHED)

    def _caller(self, call: Call) -> ApplyingCaller:
        return ApplyingCaller(self._rights, call.may(call.namespace))

    async def _revision(
        self, call: Call, name: str, number: int, *, former: bool = False
    ) -> tuple[ApplicationResource, Revision[RevisionState], list[RevisionText]]:
        """Returns an application with a revision of it, as the caller may see it; 0 is the newest one.

        A `former` revision is to be applied again: 0 is then the one before the newest, and no value is masked.
        """
        async with call.read() as transaction:
            found = await operations.locate(transaction, call.namespace, name)
            wanted = number or found.revision - (1 if former else 0)
            revision = await history.revision_of(transaction, found, wanted)
            texts = await history.texts_of(transaction, found, revision, self._rights.envelopes)
            if not former:
                mask = await masking.of_clusters(transaction, call.may)
                texts = [readable(each, mask, found.namespace, found.cluster_name) for each in texts]
        return found, revision, texts

    async def _applied(
        self, call: Call, given: Sequence[GivenDocument], choice: ApplyChoice, check: Check
    ) -> AppliedApplication:
        """Applies documents in one transaction; documents are read before it begins.

        If an object is refused while it is written, a trial collects all problems, and the call fails with these.
        """
        kept = await kept_documents(given, self._digest_key)
        call.describe(documents=summary(kept))
        documents = await self._documents(call, given, kept, choice)
        if call.validate_only:
            tried = await self._apply(call, documents, choice, check, collecting=True)
            await call.leave_transaction()
            return await self._tried_on_cluster(tried, documents.read)
        try:
            applied = await self._apply(call, documents, choice, check, collecting=False)
        except WriteRefused:
            await call.leave_transaction()
            tried = await self._apply(call, documents, choice, check, collecting=True)
            raise operations.refused(tried.problems) from None
        await self._record(call, applied.written)
        return applied

    async def _tried_on_cluster(self, tried: AppliedApplication, read: ReadDocuments) -> AppliedApplication:
        """Returns a trial's result with the cluster's problems and warnings; no lock is held during the dry runs."""
        wanted = {each.key: each for each in read.wanted}
        objects = [
            TriedObject(wanted[each.key], each.after, _values(wanted[each.key].value))
            for each in tried.written
            if each.action != "delete"
        ]
        found = await tried_on_cluster(self._connect, self._discovery, tried.cluster, objects)
        return msgspec.structs.replace(
            tried,
            problems=in_order((*tried.problems, *found.problems)),
            warnings=(*tried.warnings, *found.warnings),
        )

    async def _apply(
        self, call: Call, documents: AppliedDocuments, choice: ApplyChoice, check: Check, *, collecting: bool
    ) -> AppliedApplication:
        return await operations.apply(
            await call.transaction(),
            call.namespace,
            documents,
            choice,
            check,
            self._caller(call),
            collecting=collecting,
        )

    async def _documents(
        self, call: Call, given: Sequence[GivenDocument], kept: Sequence[KeptDocument], choice: ApplyChoice
    ) -> AppliedDocuments:
        """Returns the objects of the documents; also those of the newest revision if others changed a member since."""
        base: Sequence[GivenDocument] = ()
        async with call.read() as transaction:
            namespace = await locate_namespace(transaction, call.namespace)
            settings = await facts.of_cluster(transaction, namespace.cluster_name)
            found = (
                await operations.find(transaction, call.namespace, choice.name)
                if choice.name and not choice.force
                else None
            )
            if found is not None and any(each.modified for each in found.members):
                newest = await history.revision_of(transaction, found, found.revision)
                texts = await history.texts_of(transaction, found, newest, self._rights.envelopes)
                base = [GivenDocument(each.text) for each in texts if each.text is not None]
        call.describe(namespace_id=namespace.id)
        opened = {(each.api_version, each.kind) for each in settings.object_kinds}
        ordered = bool(choice.name)
        read = await self._read(call, namespace, given, opened, ordered=ordered)
        former = ReadDocuments()
        if base:
            former = await self._read(call, namespace, base, opened, ordered=ordered)
        documents = AppliedDocuments(read, tuple(kept), {each.key: each for each in former.wanted})
        return await self._planned(call, namespace, documents, choice)

    async def _planned(
        self, call: Call, namespace: Namespace, documents: AppliedDocuments, choice: ApplyChoice
    ) -> AppliedDocuments:
        """Returns the documents with their plan, which is made before the write transaction begins."""
        caller = self._caller(call)
        async with call.read(snapshot=True) as transaction:
            present, mark = await operations.read_for_plan(transaction, namespace, documents, choice, caller)
        plan = await planned(documents.read, present, choice, caller.may, namespace.name)
        return msgspec.structs.replace(documents, prepared=PreparedPlan(plan, present, mark))

    async def _read(
        self,
        call: Call,
        namespace: Namespace,
        given: Sequence[GivenDocument],
        opened: Collection[tuple[str, str]],
        *,
        ordered: bool,
    ) -> ReadDocuments:
        understood = await translated(given, namespace.name, opened, ordered=ordered)
        async with call.read() as transaction:
            present = await for_translation(transaction, namespace, understood)
        return await settled(understood, present)

    async def _record(self, call: Call, written: Sequence[WrittenObject]) -> None:
        """Adds an audit record for each object, in the form of its own noun, to the call's record."""
        if call.validate_only:
            return
        transaction = await call.transaction()
        cause = cause_of(call)
        transaction.records += [record_of(cause, each) async for each in cooperatively(written)]


def _unchanged(read: ApplicationResource, newest: int, check: Check) -> Check:
    """Returns a check that the application is still the one that was read, and that `newest` is its newest revision.

    A `newest` of 0 allows any revision. Without this check, the second of two concurrent rollbacks to the revision
    before the newest one would undo nothing.
    """

    def checked(stored: ApplicationResource) -> None:
        check(stored)
        if stored.uid != read.uid or newest not in (0, stored.revision):
            raise Aborted(
                "another call has changed the application since its revision was read; read it again, then retry",
                reason="APPLICATION_CHANGED",
            )

    return checked


def _key_scope(call: Call) -> KeyScope | None:
    """Returns the limits of the API key of a call; None for other credentials and for keys without limits."""
    limits = call.caller.credential.limits
    if limits is None or (limits.permissions is None and limits.namespaces is None):
        return None
    permissions = None if limits.permissions is None else tuple(sorted(limits.permissions))
    return KeyScope(permissions, limits.namespaces is not None)


def _values(wanted: Any) -> dict[str, bytes] | None:
    """Returns the values of a secret that a document asks for; None for another object."""
    return merged(wanted.data, wanted.string_data) if isinstance(wanted, Asked) else None


async def _resources(transaction: ReadTransaction, wanted: WatchFilter, call: Call) -> AsyncIterator[bytes]:
    matching = Matching(wanted.namespace_id, wanted.selector, wanted.visible, wanted.name, wanted.status)
    async for each in operations.stream(transaction, matching):
        yield messages.APPLICATION.to_proto(each).SerializeToString()


_WATCHED = Watched("application", _resources, message=pb.Application, statuses=messages.STATUS.word)
WATCH = NounWatch.of(_WATCHED, pb.DESCRIPTOR.services_by_name["ApplicationService"], "WatchApplications")


async def _messages(converter: AnswerConverter[ValueT, MessageT], values: Sequence[ValueT]) -> list[MessageT]:
    return [converter.to_proto(each) async for each in cooperatively(values)]


def _describe(call: Call, application: ApplicationResource) -> None:
    call.describe(
        resource_id=application.id, resource_uid=application.uid, namespace_id=application.namespace_id
    )


def _described(call: Call, application: ApplicationResource) -> pb.Application:
    _describe(call, application)
    return messages.APPLICATION.to_proto(application)
