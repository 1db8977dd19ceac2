"""Applications: value ↔ protobuf; and the records of the objects that an apply writes (`records`)."""

from __future__ import annotations

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.applications.model import (
    ApplicationChange,
    ApplicationProblem,
    ApplicationResource,
    ApplicationStatus,
    FieldDifference,
    GivenDocument,
    Member,
    RevisionState,
)
from pilothouse_server.revisions.model import Revision
from pilothouse_server.rpc.converter import AnswerConverter, Differences, EnumWords
from pilothouse_server.store.rendered import Rendered

STATUS: EnumWords[ApplicationStatus] = EnumWords(ApplicationStatus, pb.ApplicationStatus.DESCRIPTOR)
_FIELD = AnswerConverter(FieldDifference, resource_pb2.FieldChange)
_MEMBER = AnswerConverter(
    Member,
    pb.ApplicationMember,
    Differences(
        struct_only=(
            *("key", "generation", "fails_at", "place", "pruned", "running", "waiting", "resource_id"),
            *("outcome", "outcome_reason", "outcome_message"),
        )
    ),
)
APPLICATION: AnswerConverter[ApplicationResource, pb.Application] = AnswerConverter(
    ApplicationResource,
    pb.Application,
    Differences(struct_only=("id", "namespace_ref", "row_version", "step", "installed")),
    parts=(_MEMBER,),
)
CHANGE = AnswerConverter(ApplicationChange, pb.ApplicationChange, parts=(_FIELD,))
PROBLEM = AnswerConverter(ApplicationProblem, pb.ApplicationProblem)


def rendered(application: ApplicationResource) -> Rendered:
    """Returns an application as events carry it. No message is cached with its row: members change without the row."""
    return Rendered(APPLICATION.to_proto(application).SerializeToString())


def given_documents(request: pb.ApplyApplicationRequest) -> list[GivenDocument]:
    """Returns the documents of a request."""
    return [GivenDocument(each.json, each.source) for each in request.documents]


def revision_to_proto(revision: Revision[RevisionState]) -> resource_pb2.Revision:
    """Returns a revision without its documents."""
    message = resource_pb2.Revision(
        number=revision.number,
        created_by=revision.created_by,
        operation_id=revision.operation_id,
        origin=revision.origin or 0,
        failed_revision=revision.desired.failed_revision,
        reason=revision.desired.reason,
    )
    message.create_time.FromDatetime(revision.created_at)
    return message
