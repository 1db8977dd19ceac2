"""Containers and their images; `pilothouse.container.v1.ContainerService` documents each call and its errors."""

from __future__ import annotations

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.rpc import Exchange, NounClient, Pages, Stream, Unary, Upload, Watch, nothing, whole
from pilothouse_client.transport import TransportT


class Containers(NounClient[TransportT]):
    """`client.containers`."""

    create = Unary(pb.CreateContainerRequest, pb.CreateContainerResponse, lambda answer: answer.container)
    get = Unary(pb.GetContainerRequest, pb.GetContainerResponse, lambda answer: answer.container)
    list = Pages(pb.ListContainersRequest, pb.ListContainersResponse, lambda answer: answer.containers)
    update = Unary(pb.UpdateContainerRequest, pb.UpdateContainerResponse, lambda answer: answer.container)
    delete = Unary(pb.DeleteContainerRequest, pb.DeleteContainerResponse, lambda answer: answer.container)
    # The response contains the result for each Deployment.
    import_ = Unary(pb.ImportContainersRequest, pb.ImportContainersResponse, whole)
    start = Unary(pb.StartContainerRequest, pb.StartContainerResponse, lambda answer: answer.container)
    stop = Unary(pb.StopContainerRequest, pb.StopContainerResponse, lambda answer: answer.container)
    # The response also names what a pause loses.
    pause = Unary(pb.PauseContainerRequest, pb.PauseContainerResponse, whole)
    resume = Unary(pb.ResumeContainerRequest, pb.ResumeContainerResponse, lambda answer: answer.container)
    restart = Unary(pb.RestartContainerRequest, pb.RestartContainerResponse, lambda answer: answer.container)
    scale = Unary(pb.ScaleContainerRequest, pb.ScaleContainerResponse, lambda answer: answer.container)
    # The response contains the run, too.
    run = Unary(pb.RunContainerRequest, pb.RunContainerResponse, whole)
    list_runs = Pages(pb.ListRunsRequest, pb.ListRunsResponse, lambda answer: answer.runs)
    list_pods = Pages(pb.ListPodsRequest, pb.ListPodsResponse, lambda answer: answer.pods)
    list_revisions = Pages(
        pb.ListContainerRevisionsRequest,
        pb.ListContainerRevisionsResponse,
        lambda answer: answer.revisions,
    )
    # The response also names the differences, and what the rollback does not restore.
    rollback = Unary(pb.RollbackContainerRequest, pb.RollbackContainerResponse, whole)
    watch_runs = Watch(pb.WatchRunsRequest, pb.WatchRunsResponse, lambda answer: answer.run)
    watch = Watch(pb.WatchContainersRequest, pb.WatchContainersResponse, lambda answer: answer.container)
    list_status_history = Pages(
        pb.ListStatusHistoryRequest, pb.ListStatusHistoryResponse, lambda answer: answer.status_changes
    )
    # Takes an iterable of requests, the first of which contains `start`.
    exec = Exchange(pb.ExecRequest, pb.ExecResponse)
    # Takes an iterable of requests, the first of which contains `start`; one call is one connection.
    port_forward = Exchange(pb.PortForwardRequest, pb.PortForwardResponse)
    # The bytes of a tar archive; a cut is an error.
    copy_from = Stream(pb.CopyFromRequest, pb.CopyFromResponse)
    # Takes an iterable of requests, the first of which contains `start`.
    copy_to = Upload(pb.CopyToRequest, pb.CopyToResponse, whole)
    stream_logs = Stream(pb.StreamLogsRequest, pb.StreamLogsResponse, resuming=True)
    get_image = Unary(pb.GetImageRequest, pb.GetImageResponse, lambda answer: answer.image)
    list_images = Pages(pb.ListImagesRequest, pb.ListImagesResponse, lambda answer: answer.images)
    delete_image = Unary(pb.DeleteImageRequest, pb.DeleteImageResponse, nothing)
