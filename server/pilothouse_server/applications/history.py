"""The revisions of an application, with the texts of their documents."""

from __future__ import annotations

from collections.abc import Sequence

from pilothouse_server.applications import repository
from pilothouse_server.applications.model import ApplicationChange, ApplicationResource, RevisionState
from pilothouse_server.applications.revisions import RevisionText
from pilothouse_server.encryption.envelopes import Envelopes
from pilothouse_server.errors import not_found
from pilothouse_server.revisions.model import RevisedResource, Revision
from pilothouse_server.revisions.operations import kept_values, list_revisions
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction


def revised(application: ApplicationResource) -> RevisedResource:
    """Returns the reference by which the revisions of an application are stored."""
    return RevisedResource("application", application.id, application.uid, application.namespace_id)


async def list_revisions_of(
    transaction: ReadTransaction, application: ApplicationResource, page: PageRequest, number: int = 0
) -> tuple[Sequence[Revision[RevisionState]], NextPage]:
    """Returns one page of the revisions of an application, newest first, and where the next page begins."""
    return await list_revisions(transaction, revised(application), RevisionState, page, number)


async def revision_of(
    transaction: ReadTransaction, application: ApplicationResource, number: int
) -> Revision[RevisionState]:
    """Returns one revision of an application. Raises NotFound for a revision that is no longer stored."""
    page = PageRequest(key=b"", page_size=1)
    found, _ = await list_revisions_of(transaction, application, page, number) if number > 0 else ((), None)
    if not found:
        raise not_found("revision", str(number))
    return found[0]


async def texts_of(
    transaction: ReadTransaction,
    application: ApplicationResource,
    revision: Revision[RevisionState],
    envelopes: Envelopes,
) -> list[RevisionText]:
    """Returns the documents of a revision with their texts, in the order in which they were applied.

    Raises:
        Unavailable: no key provider of this server has the key of a Secret.
    """
    documents = revision.desired.documents
    digests = {each.digest for each in documents if not each.secret}
    texts = await repository.read_documents(transaction, application.id, digests)
    of = revised(application)
    found = []
    for each in documents:
        text = texts.get(each.digest)
        if each.secret:
            kept = await kept_values(transaction, of, revision.number, each.secret, envelopes)
            is_there = kept is not None and kept[0] == revision.number and kept[1] is not None
            text = kept[1].decode() if is_there and kept is not None and kept[1] is not None else None
        found.append(RevisionText(each, text))
    return found


def not_restored(
    changes: Sequence[ApplicationChange], purged: Sequence[RevisionText], *, rerun_jobs: bool
) -> list[str]:
    """Returns the parts that a rollback leaves as they are, in words for the caller."""
    found = [f"values of secret {each.document.name}: they were purged" for each in purged]
    for each in changes:
        if each.kind == "PersistentVolumeClaim" and each.action != "prune":
            gone = ": it is created again, and empty" if each.action == "create" else ""
            found.append(f"data of volume {each.name}{gone}")
        if each.kind == "Job" and each.action in ("create", "update") and not rerun_jobs:
            found.append(f"job {each.name}: it does not run again")
    return found
