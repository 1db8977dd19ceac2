"""ContainerService: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.clusters import events
from pilothouse_server.clusters.messages import KUBERNETES_EVENT
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.containers import messages, operations
from pilothouse_server.containers.changes import refuse_without_runs, starting_run
from pilothouse_server.containers.dry_run import check_on_cluster
from pilothouse_server.containers.events import subjects_of
from pilothouse_server.containers.facts_cache import FactsCache
from pilothouse_server.containers.job_status import newest_run
from pilothouse_server.containers.manifests import replaces_pods
from pilothouse_server.containers.messages import watched_pods
from pilothouse_server.containers.messages.image_watch import WATCH_IMAGES
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.operations import PauseMode
from pilothouse_server.containers.owned_volumes import ClaimsFate, fate_of_change, fate_of_deletion
from pilothouse_server.containers.pods.service import PodCalls, describe
from pilothouse_server.containers.revisions import DesiredFields, RollbackChoice, not_restored, revised
from pilothouse_server.containers.workload_rules import replacing, scaled
from pilothouse_server.errors import missing, not_found
from pilothouse_server.guard.model import Keys
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.revisions.operations import list_revisions
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.cached_reads import CachedReads
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.rpc.encoding import AnswerField, ListAnswer
from pilothouse_server.rpc.validation import check_update_mask, goes_last
from pilothouse_server.rpc.watch import watch
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.runtime.event_loop import Share, others_first
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.resources import ObjectWarning

_PAUSE_MODE: dict[int, PauseMode] = {
    pb.PAUSE_MODE_UNSPECIFIED: "suspend",
    pb.PAUSE_MODE_SUSPEND: "suspend",
    pb.PAUSE_MODE_HOLD_ROLLOUT: "hold_rollout",
    pb.PAUSE_MODE_FREEZE: "freeze",
}


async def _runs(transaction: ReadTransaction, wanted: WatchFilter, call: Call) -> AsyncIterator[pb.Run]:
    async for run in operations.stream_runs(
        transaction,
        namespace_id=wanted.namespace_id,
        name=wanted.name,
        status=wanted.status,
        selector=wanted.selector,
        visible=wanted.visible,
    ):
        yield messages.RUN.to_proto(run)


_READS = CachedReads(
    operations.CACHED,
    messages.CACHE,
    AnswerField(pb.GetContainerResponse, "container"),
    ListAnswer(pb.ListContainersResponse, "containers"),
)
_WATCHED_RUNS = Watched("run", _runs, message=pb.Run, statuses=messages.STATUS.word)
_WATCHED = Watched("container", _READS.first_state, statuses=messages.STATUS.word, message=pb.Container)
WATCH = NounWatch.of(_WATCHED, pb.DESCRIPTOR.services_by_name["ContainerService"], "WatchContainers")
WATCH_RUNS = NounWatch.of(_WATCHED_RUNS, pb.DESCRIPTOR.services_by_name["ContainerService"], "WatchRuns")

# An import also creates rows of other nouns, so it is implemented in `importing`, which may depend on all of them.
ImportContainers = Callable[[pb.ImportContainersRequest, Call], Awaitable[pb.ImportContainersResponse]]

_PODS = ListAnswer(pb.ListPodsResponse, "pods")
_HISTORY = ListAnswer(pb.ListStatusHistoryResponse, "status_changes")
_REVISIONS = ListAnswer(pb.ListContainerRevisionsResponse, "revisions")
_RUNS = ListAnswer(pb.ListRunsResponse, "runs")
_IMAGES = ListAnswer(pb.ListImagesResponse, "images")


class ContainerService(PodCalls):
    """Serves `pilothouse.container.v1.ContainerService`."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["ContainerService"]

    def __init__(
        self,
        watches: WatchServer,
        page_key: bytes,
        connect: Connect,
        import_containers: ImportContainers,
        keys: Keys,
    ) -> None:
        super().__init__(page_key, connect, keys)
        self._watches = watches
        self._listed = WatchedList(watches, WATCH)
        self._listed_runs = WatchedList(watches, WATCH_RUNS)
        self._listed_images = WatchedList(watches, WATCH_IMAGES)
        self._import_containers = import_containers
        self._facts = FactsCache()

    async def CreateContainer(
        self, request: pb.CreateContainerRequest, call: Call
    ) -> pb.CreateContainerResponse:
        """Creates a container."""
        share = Share(last=goes_last(request))
        wanted, may = messages.CONTAINER.from_proto(request.container), call.may(request.namespace)
        await share.used()
        keys, collected = self._keys, list[ObjectWarning]()
        if call.validate_only:
            transaction = await call.transaction()
            created = await operations.create(
                transaction, request.namespace, wanted, keys=keys, may=may, collected=collected
            )
        else:
            created = await operations.draft_creation(
                call.draft(),
                self._facts,
                request.namespace,
                wanted,
                keys=keys,
                may=may,
                share=share,
                collected=collected,
            )
            await share.used()
        return pb.CreateContainerResponse(
            container=await self._answer(call, created, collected),
            warnings=map(wire.WARNING.to_proto, collected),
        )

    async def GetContainer(
        self, request: pb.GetContainerRequest, call: Call
    ) -> pb.GetContainerResponse | bytes:
        """Returns one container; reads its Kubernetes Events after the transaction has ended."""
        if not request.include_events:
            stored = await _READS.get(request, call)
            if stored is not None:
                return stored
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
            pods = await operations.list_pods(transaction, found.id) if request.include_events else ()
        response = pb.GetContainerResponse(container=_described(call, found))
        if request.include_events:
            found_events = await events.read(self._connect, found.namespace_ref, subjects_of(found, pods))
            response.events.extend(map(KUBERNETES_EVENT.to_proto, found_events.events))
            response.events_unavailable = found_events.unavailable
        return response

    async def ListContainers(self, request: pb.ListContainersRequest, call: Call) -> bytes:
        """Lists containers."""
        return await _READS.list(request, call, self._page_key, self._listed)

    async def UpdateContainer(
        self, request: pb.UpdateContainerRequest, call: Call
    ) -> pb.UpdateContainerResponse:
        """Changes the desired state of a container."""
        paths = check_update_mask(pb.Container, request.update_mask, messages.CONTAINER.updatable)
        if not paths and not request.replace:
            raise missing("update_mask")
        collected: list[ObjectWarning] = []
        seen: list[Container] = []
        merge = messages.CONTAINER.merger(request.container, paths)
        changed = await operations.change(
            await _target(call),
            request.namespace,
            request.name,
            replacing(
                starting_run(merge) if request.run else merge,
                replace=request.replace,
                again=request.replace and not paths,
                scales="replicas" in request.update_mask.paths or request.container.HasField("replicas"),
            ),
            _check(call, request.etag or request.container.etag, seen),
            keys=self._keys,
            may=call.may(request.namespace),
            collected=collected,
        )
        fate, shows = fate_of_change(seen[-1], changed), request.include_changes
        return pb.UpdateContainerResponse(
            container=await self._answer(call, changed, collected),
            warnings=map(wire.WARNING.to_proto, collected),
            kept_claims=fate.kept,
            deleted_claims=fate.deleted,
            changes=messages.changes_between(seen[-1], changed) if shows else (),
            rolls_out=shows and replaces_pods(seen[-1], changed),
        )

    async def DeleteContainer(
        self, request: pb.DeleteContainerRequest, call: Call
    ) -> pb.DeleteContainerResponse:
        """Marks a container for deletion."""
        marked = await operations.delete(
            await _target(call), request.namespace, request.name, wire.etag_check(request.etag)
        )
        fate = fate_of_deletion(marked)
        if fate != ClaimsFate():
            call.describe(claims="deleted" if fate.deleted else "kept")
        return pb.DeleteContainerResponse(
            container=await self._answer(call, marked), kept_claims=fate.kept, deleted_claims=fate.deleted
        )

    @waits_outside
    async def ImportContainers(
        self, request: pb.ImportContainersRequest, call: Call
    ) -> pb.ImportContainersResponse:
        """Takes existing Deployments over."""
        return await self._import_containers(request, call)

    async def StartContainer(
        self, request: pb.StartContainerRequest, call: Call
    ) -> pb.StartContainerResponse:
        """Starts a container."""
        moved = await operations.start(await _target(call), request.namespace, request.name)
        return pb.StartContainerResponse(container=await self._answer(call, moved))

    async def StopContainer(self, request: pb.StopContainerRequest, call: Call) -> pb.StopContainerResponse:
        """Stops a container."""
        moved = await operations.stop(await _target(call), request.namespace, request.name)
        return pb.StopContainerResponse(container=await self._answer(call, moved))

    async def PauseContainer(
        self, request: pb.PauseContainerRequest, call: Call
    ) -> pb.PauseContainerResponse:
        """Pauses a container."""
        moved, losses = await operations.pause(
            await _target(call), request.namespace, request.name, _PAUSE_MODE[request.mode]
        )
        return pb.PauseContainerResponse(container=await self._answer(call, moved), losses=losses)

    async def ResumeContainer(
        self, request: pb.ResumeContainerRequest, call: Call
    ) -> pb.ResumeContainerResponse:
        """Resumes a container."""
        moved = await operations.resume(await _target(call), request.namespace, request.name)
        return pb.ResumeContainerResponse(container=await self._answer(call, moved))

    async def RestartContainer(
        self, request: pb.RestartContainerRequest, call: Call
    ) -> pb.RestartContainerResponse:
        """Restarts a container."""
        moved = await operations.restart(await _target(call), request.namespace, request.name)
        return pb.RestartContainerResponse(container=await self._answer(call, moved))

    async def ScaleContainer(
        self, request: pb.ScaleContainerRequest, call: Call
    ) -> pb.ScaleContainerResponse:
        """Sets the number of a container's pods."""
        collected: list[ObjectWarning] = []
        seen: list[Container] = []
        changed = await operations.change(
            await _target(call),
            request.namespace,
            request.name,
            scaled(request.replicas),
            _check(call, request.etag, seen),
            keys=self._keys,
            may=call.may(request.namespace),
            collected=collected,
        )
        fate = fate_of_change(seen[-1], changed)
        return pb.ScaleContainerResponse(
            container=await self._answer(call, changed, collected),
            warnings=map(wire.WARNING.to_proto, collected),
            kept_claims=fate.kept,
            deleted_claims=fate.deleted,
        )

    async def RunContainer(self, request: pb.RunContainerRequest, call: Call) -> pb.RunContainerResponse:
        """Starts a new run of a Job or CronJob."""
        moved = await operations.run(await _target(call), request.namespace, request.name)
        return pb.RunContainerResponse(
            container=await self._answer(call, moved), run=messages.RUN.to_proto(newest_run(moved))
        )

    async def ListRuns(self, request: pb.ListRunsRequest, call: Call) -> bytes:
        """Lists the runs of a Job or CronJob."""
        mask = read_mask.of_request(request, pb.Run)
        listed = self._listed_runs.begin()
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
            describe(call, found)
            refuse_without_runs(found)
            page = wire.page_request(call, self._page_key, found.uid)
            runs, next_page = await operations.list_runs(transaction, found, page)
            token = await listed.token(call, transaction, found.namespace_id)
        return await _RUNS.rendered(runs, messages.RUN.to_proto, next_page, token, mask)

    async def ListPods(self, request: pb.ListPodsRequest, call: Call) -> bytes:
        """Lists the pods of a container."""
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
            describe(call, found)
            page = wire.page_request(call, self._page_key, found.uid)
            pods, next_page = await operations.list_observed_pods(transaction, found.id, page)
        return await _PODS.rendered(pods, messages.pod_to_proto(found), next_page)

    async def ListContainerRevisions(self, request: pb.ListContainerRevisionsRequest, call: Call) -> bytes:
        """Lists the revisions of a container."""
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
            describe(call, found)
            page = wire.page_request(call, self._page_key, found.uid, str(request.number))
            revisions, next_page = await list_revisions(
                transaction, revised(found), DesiredFields, page, request.number
            )
        if request.number and not revisions:
            raise not_found("revision", str(request.number))
        to_proto = messages.revision_to_proto(found, whole=request.number > 0)
        return await _REVISIONS.rendered(revisions, to_proto, next_page)

    async def RollbackContainer(
        self, request: pb.RollbackContainerRequest, call: Call
    ) -> pb.RollbackContainerResponse:
        """Restores a revision of a container."""
        collected: list[ObjectWarning] = []
        done = await operations.rollback(
            await _target(call),
            request.namespace,
            request.name,
            RollbackChoice(request.revision, request.rerun_jobs, request.replace),
            call.noting(wire.etag_check(request.etag), messages.CONTAINER.to_proto),
            keys=self._keys,
            may=call.may(request.namespace),
            collected=collected,
        )
        call.describe(revision=done.origin)
        return pb.RollbackContainerResponse(
            container=await self._answer(call, done.container, collected),
            revision=done.origin,
            not_restored=not_restored(done.container),
            warnings=map(wire.WARNING.to_proto, collected),
            changes=messages.changes_between(done.before, done.container),
            rolls_out=replaces_pods(done.before, done.container),
        )

    def WatchRuns(self, _request: pb.WatchRunsRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches the runs of Jobs and CronJobs."""
        return watch(self._watches, call, _WATCHED_RUNS)

    def WatchContainers(self, request: pb.WatchContainersRequest, call: Call) -> AsyncIterator[bytes]:
        """Watches containers."""
        changes = watch(self._watches, call, _WATCHED)
        return watched_pods.with_pods(call, changes) if request.pods else changes

    async def ListStatusHistory(self, request: pb.ListStatusHistoryRequest, call: Call) -> bytes:
        """Lists the history of a container's status."""
        async with call.read() as transaction:
            found = await operations.locate(transaction, request.namespace, request.name)
            describe(call, found)
            page = wire.page_request(call, self._page_key, found.uid)
            changes, next_page = await operations.list_history(transaction, found.id, page)
        return await _HISTORY.rendered(changes, messages.STATUS_CHANGE.to_proto, next_page)

    async def _answer(
        self, call: Call, container: Container, collected: list[ObjectWarning] | None = None
    ) -> pb.Container:
        """Returns the container for the response to a mutation.

        For a dry run, it first ends the transaction, which releases its locks, and sends the container to its cluster.
        The cluster's warnings are added to `collected`.
        """
        if container.is_long:
            await others_first()
        shown = _described(call, container)
        if call.validate_only:
            await call.leave_transaction()
            warnings = await check_on_cluster(self._connect, container)
            if collected is not None:
                collected += warnings
        return shown

    async def GetImage(self, request: pb.GetImageRequest, call: Call) -> pb.GetImageResponse:
        """Returns one image."""
        async with call.read() as transaction:
            found = await operations.locate_image(transaction, request.image, call.visible_namespaces())
        call.describe(resource_id=found.id)
        return pb.GetImageResponse(image=messages.IMAGE.to_proto(found))

    async def ListImages(self, request: pb.ListImagesRequest, call: Call) -> bytes:
        """Lists images."""
        mask = read_mask.of_request(request, pb.Image)
        page = wire.page_request(call, self._page_key, request.namespace)
        listed = self._listed_images.begin()
        async with call.read() as transaction:
            namespace_id = await named_namespace(call, transaction, request.namespace)
            found, next_page = await operations.list_images(
                transaction, page, namespace_id=namespace_id, visible=call.visible_namespaces()
            )
            token = await listed.token(call, transaction, namespace_id)
        return await _IMAGES.rendered(found, messages.IMAGE.to_proto, next_page, token, mask)

    async def DeleteImage(self, request: pb.DeleteImageRequest, call: Call) -> pb.DeleteImageResponse:
        """Deletes the row of an image."""
        found = await operations.delete_image(await call.transaction(), request.image)
        call.describe(resource_id=found.id)
        return pb.DeleteImageResponse()


def _check(call: Call, etag: str, seen: list[Container]) -> operations.Check:
    """Returns the check of an etag; it adds each container that is to be changed to `seen`."""
    check = call.noting(wire.etag_check(etag), messages.CONTAINER.to_proto)

    def check_seen(stored: Container) -> None:
        seen.append(stored)
        check(stored)

    return check_seen


async def _target(call: Call) -> operations.Target:
    """Returns the target of a call's change: a draft, or for a dry run a transaction that is rolled back."""
    return await call.transaction() if call.validate_only else call.draft()


def _described(call: Call, container: Container) -> pb.Container:
    describe(call, container)
    return messages.CACHE.rendered_message(container)
