"""Calls that reach into pods: logs and programs. A part of ContainerService."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.clusters.refusals import Connect
from pilothouse_server.containers import guarding, messages, operations
from pilothouse_server.containers.log_positions import position_token, positions_of
from pilothouse_server.containers.logs import MOST_CONTAINERS, LogStream
from pilothouse_server.containers.model import Container, Pod
from pilothouse_server.containers.pod_log_reader import LogQuery, caller_error
from pilothouse_server.containers.program_status import program_names
from pilothouse_server.errors import invalid, not_found
from pilothouse_server.guard.model import Keys
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.exec import program
from pilothouse_server.namespaces.messages import named_namespace
from pilothouse_server.rpc import redaction, wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.store.unit_of_work import ReadTransaction


class PodCalls:
    """The handlers of calls that reach into pods."""

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
        )
        stream = LogStream(self._connect, find_pods, query, positions)
        choice = _choice(request, pods)
        several = query.several_programs or bool(request.label_selector) or wanted_pods > 1
        if request.follow or choice or several:
            # It may be long until there is a line, and a caller wants to know that the stream is there.
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
        async with call.read() as transaction:
            found = await operations.locate(transaction, start.namespace, start.name)
            pods = await operations.list_pods(transaction, found.id)
        describe(call, found)
        call.describe(command=redaction.arguments(start.command))
        if start.program and not any(each.name == start.program for _, each in found.programs()):
            # A program of others may have rights that nobody was allowed.
            own = ", ".join(each.name for _, each in found.programs())
            raise invalid(
                "start.program",
                f'container "{found.name}" has no program "{start.program}": it has {own}',
            )

        def check_power() -> None:
            """A program has the rights of its container."""
            guarding.refuse_power(found, self._keys.guarded, call.may(start.namespace))

        check_power()
        call.on_renewed = check_power
        pod = operations.ready_pod(pods, start.pod, start.name)
        call.describe(pod=pod.name)
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
                    # Before all else, or the program would begin without.
                    await opened.resize(start.terminal_size.width, start.terminal_size.height)
                yield pb.ExecResponse(started=pb.ExecStarted(pod=pod.name))
                async with contextlib.aclosing(
                    messages.exec_answers(call, start, requests, opened)
                ) as outputs:
                    async for output in outputs:
                        yield output
        except ClusterError as error:
            raise caller_error(error, found.cluster_name) from None


def describe(call: Call, container: Container) -> None:
    """Names the container in the audit record."""
    call.describe(resource_id=container.id, resource_uid=container.uid, namespace_id=container.namespace_id)


def _programs(request: pb.StreamLogsRequest) -> tuple[str, ...]:
    """Returns the programs that a request names; raises InvalidArgument where it names them in several ways."""
    given = {
        "program": (request.program,) if request.program else (),
        "init_container": (request.init_container,) if request.init_container else (),
        "programs": tuple(dict.fromkeys(request.programs)),
        "all_programs": ("",) if request.all_programs else (),
    }
    ways = [name for name, value in given.items() if value]
    if len(ways) > 1:
        raise invalid(ways[0], f"does not go with {ways[1]}: give one of them")
    return () if request.all_programs else next((value for value in given.values() if value), ())


def _choice(request: pb.StreamLogsRequest, pods: Sequence[tuple[Container, Pod]]) -> list[str]:
    """Returns the programs that a log could be of, the one that is read first; empty if there is no choice."""
    if not pods or not request.name or request.all_programs or _programs(request):
        return []
    names = program_names(pods[0][0])
    return names if len(names) > 1 else []


async def _pods_of(
    transaction: ReadTransaction, found: Sequence[Container], run: int
) -> Sequence[tuple[Container, Pod]]:
    """The pods of containers, of a run alone if it is not 0. Raises NotFound if none has such a run."""
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
    """The containers whose logs are asked for."""
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
