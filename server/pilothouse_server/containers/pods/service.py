"""The part of ContainerService for pods: logs, programs, ports and files."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.containers import guarding, messages, operations
from pilothouse_server.containers.log_positions import position_token, positions_of
from pilothouse_server.containers.logs import MOST_CONTAINERS, LogStream
from pilothouse_server.containers.model import Container, Pod
from pilothouse_server.containers.pod_log_reader import MOST_LINES_BEFORE, LogQuery, caller_error
from pilothouse_server.containers.pods.archives import packed, packing, unpacked, unpacking
from pilothouse_server.containers.program_status import program_names
from pilothouse_server.errors import invalid, not_found
from pilothouse_server.guard.model import Keys
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.exec import RunningProgram, program
from pilothouse_server.kubernetes.port_forward import forwarded_port
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.rpc import redaction, wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.store.unit_of_work import ReadTransaction

# Requests that name a pod of a container.
PlaceInPod = pb.ExecStart | pb.PortForwardStart | pb.CopyFromRequest | pb.CopyToStart


class PodCalls:
    """The handlers of calls that access pods."""

    def __init__(self, page_key: bytes, connect: Connect, keys: Keys) -> None:
        self._page_key = page_key
        self._connect = connect
        self._keys = keys

    async def StreamLogs(
        self, request: pb.StreamLogsRequest, call: Call
    ) -> AsyncIterator[pb.StreamLogsResponse]:
        """Streams the logs of one container or of several."""
        if bool(request.name) == bool(request.label_selector):
            raise invalid("name", "exactly one of name and label_selector must be set", reason="REQUIRED")
        if request.previous and request.follow:
            raise invalid("previous", "is not allowed with follow: that log has ended")
        _check_end(request)
        programs = _programs(request)
        bound_to = "\x00".join(
            (
                str(call.user_id),
                request.namespace,
                request.name,
                request.label_selector,
                request.pod,
                "\x01".join(programs),
                str(request.previous),
                *([str(request.run)] if request.run else []),
                *(["every program"] if request.all_programs else []),
                *([request.end_time.ToJsonString()] if request.HasField("end_time") else []),
            )
        )
        positions = positions_of(self._page_key, bound_to, request.resume_token)

        wanted_pods = 0

        async def find_pods() -> Sequence[tuple[Container, Pod]]:
            nonlocal wanted_pods
            async with call.read() as transaction:
                found = await _containers_of(call, transaction, request)
                if len(found) == 1:
                    describe(call, found[0])
                pairs = await _pods_of(transaction, found, request.run)
            wanted_pods = 1 if request.pod else sum(each.wanted_replicas for each in found)
            return [pair for pair in pairs if request.pod in ("", pair[1].name)]

        pods = await find_pods()
        if request.pod and not pods:
            raise not_found("pod", request.pod)
        query = LogQuery(
            programs=programs,
            every_program=request.all_programs,
            follow=request.follow,
            previous=request.previous,
            since=wire.moment(request.since_time) if request.HasField("since_time") else None,
            tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
            end_nanoseconds=request.end_time.ToNanoseconds() if request.HasField("end_time") else None,
        )
        stream = LogStream(self._connect, find_pods, query, positions)
        choice = _choice(request, pods)
        several = query.several_programs or bool(request.label_selector) or wanted_pods > 1
        if request.follow or choice or several:
            # The first line may come late, but the caller must know that the stream is open.
            call.resume_token = position_token(self._page_key, bound_to, positions)
            yield messages.log_answer(
                (), pods=len(pods), resume_token=call.resume_token, several=several, programs=choice
            )
        async with contextlib.aclosing(stream.batches()) as batches:
            async for batch in batches:
                call.resume_token = position_token(self._page_key, bound_to, stream.positions)
                yield messages.log_answer(
                    batch, pods=stream.pods, resume_token=call.resume_token, several=several
                )

    async def Exec(
        self, requests: AsyncIterator[pb.ExecRequest], call: Call
    ) -> AsyncIterator[pb.ExecResponse]:
        """Runs a program in a container."""
        start: pb.ExecStart = call.request.start
        messages.check_start(start)
        found, pod = await self._chosen(call, start)
        call.describe(command=redaction.arguments(start.command), pod=pod.name)
        try:
            running = program(
                await self._connect(found.cluster_name),
                found.kubernetes_namespace,
                pod.name,
                container=start.program or found.spec.pod_container_name,
                command=list(start.command),
                stdin=start.stdin,
                tty=start.tty,
            )
            async with running as opened:
                if start.HasField("terminal_size"):
                    # Sent first, so that the program starts with this size.
                    await opened.resize(start.terminal_size.width, start.terminal_size.height)
                yield pb.ExecResponse(started=pb.ExecStarted(pod=pod.name))
                async with contextlib.aclosing(
                    messages.exec_answers(call, start, requests, opened)
                ) as outputs:
                    async for output in outputs:
                        yield output
        except ClusterError as error:
            raise caller_error(error, found.cluster_name) from None

    async def PortForward(
        self, requests: AsyncIterator[pb.PortForwardRequest], call: Call
    ) -> AsyncIterator[pb.PortForwardResponse]:
        """Forwards a connection to a port of a pod."""
        start: pb.PortForwardStart = call.request.start
        call.describe(port=start.port)
        found, pod = await self._chosen(call, start)
        call.describe(pod=pod.name)
        try:
            client = await self._connect(found.cluster_name)
            async with forwarded_port(client, found.kubernetes_namespace, pod.name, start.port) as opened:
                yield pb.PortForwardResponse(started=pb.PortForwardStarted(pod=pod.name))
                async with contextlib.aclosing(messages.forwarded_bytes(call, requests, opened)) as outputs:
                    async for data in outputs:
                        yield pb.PortForwardResponse(data=data)
        except ClusterError as error:
            raise caller_error(error, found.cluster_name) from None

    async def CopyFrom(self, request: pb.CopyFromRequest, call: Call) -> AsyncIterator[pb.CopyFromResponse]:
        """Copies a file or folder out of a pod."""
        call.describe(path=request.path, direction="from")
        found, pod = await self._chosen(call, request)
        call.describe(pod=pod.name)
        try:
            running = self._tar(
                await self._connect(found.cluster_name), found, pod, request, packing(request.path)
            )
            async with running as opened:
                yield pb.CopyFromResponse(started=pb.CopyStarted(pod=pod.name))
                async with contextlib.aclosing(packed(call, opened)) as outputs:
                    async for data in outputs:
                        yield pb.CopyFromResponse(data=data)
        except ClusterError as error:
            raise caller_error(error, found.cluster_name) from None

    async def CopyTo(self, requests: AsyncIterator[pb.CopyToRequest], call: Call) -> pb.CopyToResponse:
        """Copies an archive into a folder of a pod."""
        start: pb.CopyToStart = call.request.start
        call.describe(path=start.path, direction="to")
        found, pod = await self._chosen(call, start)
        call.describe(pod=pod.name)
        try:
            running = self._tar(
                await self._connect(found.cluster_name), found, pod, start, unpacking(start.path), stdin=True
            )
            async with running as opened:
                size = await unpacked(call, messages.archive_parts(requests), opened)
        except ClusterError as error:
            raise caller_error(error, found.cluster_name) from None
        return pb.CopyToResponse(pod=pod.name, bytes=size)

    async def _chosen(self, call: Call, place: PlaceInPod) -> tuple[Container, Pod]:
        """Returns the container and the pod of a call that accesses a pod.

        The caller needs the permission to give the container its rights, because a program, a file or a port in it may
        give the caller the same rights. That is checked again whenever the caller's permissions change.
        """
        async with call.read() as transaction:
            found = await operations.locate(transaction, place.namespace, place.name)
            pods = await operations.list_pods(transaction, found.id)
        describe(call, found)
        chosen = getattr(place, "program", "")
        if chosen and not any(each.name == chosen for _, each in found.programs()):
            # A program that others added may have rights that no caller was allowed to give.
            own = ", ".join(each.name for _, each in found.programs())
            field = "program" if isinstance(place, pb.CopyFromRequest) else "start.program"
            raise invalid(field, f'container "{found.name}" has no program "{chosen}": it has {own}')

        def check_power() -> None:
            guarding.refuse_power(found, self._keys.guarded, call.may(place.namespace))

        check_power()
        call.on_renewed = check_power
        return found, operations.ready_pod(pods, place.pod, place.name)

    def _tar(
        self,
        client: ClusterClient,
        found: Container,
        pod: Pod,
        place: pb.CopyFromRequest | pb.CopyToStart,
        command: Sequence[str],
        *,
        stdin: bool = False,
    ) -> AbstractAsyncContextManager[RunningProgram]:
        return program(
            client,
            found.kubernetes_namespace,
            pod.name,
            container=place.program or found.spec.pod_container_name,
            command=command,
            stdin=stdin,
            tty=False,
        )


def describe(call: Call, container: Container) -> None:
    """Names the container in the audit record."""
    call.describe(resource_id=container.id, resource_uid=container.uid, namespace_id=container.namespace_id)


def _check_end(request: pb.StreamLogsRequest) -> None:
    if not request.HasField("end_time"):
        return
    if request.follow:
        raise invalid("end_time", "is not allowed with follow, which has no end")
    if request.tail_lines > MOST_LINES_BEFORE:
        raise invalid("tail_lines", f"must be at most {MOST_LINES_BEFORE} with end_time")


def _programs(request: pb.StreamLogsRequest) -> tuple[str, ...]:
    """Returns the programs that a request names; raises InvalidArgument if it names them in several ways."""
    given = {
        "program": (request.program,) if request.program else (),
        "init_container": (request.init_container,) if request.init_container else (),
        "programs": tuple(dict.fromkeys(request.programs)),
        "all_programs": ("",) if request.all_programs else (),
    }
    ways = [name for name, value in given.items() if value]
    if len(ways) > 1:
        raise invalid(ways[0], f"is not allowed with {ways[1]}: give one of them")
    return () if request.all_programs else next((value for value in given.values() if value), ())


def _choice(request: pb.StreamLogsRequest, pods: Sequence[tuple[Container, Pod]]) -> list[str]:
    """Returns the programs that have a log, first the one that is read; empty if there is no choice."""
    if not pods or not request.name or request.all_programs or _programs(request):
        return []
    names = program_names(pods[0][0])
    return names if len(names) > 1 else []


async def _pods_of(
    transaction: ReadTransaction, found: Sequence[Container], run: int
) -> Sequence[tuple[Container, Pod]]:
    """Returns the pods of containers, only those of `run` if it is not 0. Raises NotFound if none has that run."""
    pairs = [(item, pod) for item in found for pod in await operations.list_pods(transaction, item.id)]
    if not run:
        return pairs
    names = {item.id: await operations.find_run_name(transaction, item, run) for item in found}
    if not any(names.values()):
        raise not_found("run", str(run))
    return [(item, pod) for item, pod in pairs if pod.revision == names[item.id]]


async def _containers_of(
    call: Call, transaction: ReadTransaction, request: pb.StreamLogsRequest
) -> Sequence[Container]:
    """Returns the containers whose logs are requested."""
    if request.name:
        return [await operations.locate(transaction, request.namespace, request.name)]
    namespace_id = await named_namespace(call, transaction, request.namespace)
    found: list[Container] = []
    async for item in operations.stream(
        transaction, namespace_id=namespace_id, selector=wire.label_selector(request.label_selector)
    ):
        found.append(item)
        if len(found) > MOST_CONTAINERS:
            raise invalid("label_selector", f"selects over {MOST_CONTAINERS} containers: select fewer")
    return found
