"""Applications; `pilothouse.application.v1.ApplicationService` describes each call and its errors."""

from __future__ import annotations

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.rpc import NounClient, Pages, Unary, Watch, whole
from pilothouse_client.transport import TransportT


class Applications(NounClient[TransportT]):
    """`client.applications`."""

    apply = Unary(pb.ApplyApplicationRequest, pb.ApplyApplicationResponse, whole)
    get = Unary(pb.GetApplicationRequest, pb.GetApplicationResponse, lambda answer: answer.application)
    list = Pages(pb.ListApplicationsRequest, pb.ListApplicationsResponse, lambda answer: answer.applications)
    delete = Unary(pb.DeleteApplicationRequest, pb.DeleteApplicationResponse, whole)
    watch = Watch(
        pb.WatchApplicationsRequest, pb.WatchApplicationsResponse, lambda answer: answer.application
    )
    pause = Unary(pb.PauseApplicationRequest, pb.PauseApplicationResponse, whole)
    resume = Unary(pb.ResumeApplicationRequest, pb.ResumeApplicationResponse, whole)
    list_revisions = Pages(pb.ListRevisionsRequest, pb.ListRevisionsResponse, lambda answer: answer.revisions)
    get_revision = Unary(pb.GetRevisionRequest, pb.GetRevisionResponse, lambda answer: answer.revision)
    diff_revisions = Unary(pb.DiffRevisionsRequest, pb.DiffRevisionsResponse, whole)
    rollback = Unary(pb.RollbackApplicationRequest, pb.RollbackApplicationResponse, whole)
    export = Unary(pb.ExportApplicationRequest, pb.ExportApplicationResponse, whole)
