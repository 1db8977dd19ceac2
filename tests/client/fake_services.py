"""The services of the fake server: a minimum of lists, changes and watches that behave as in the product."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.audit.v1 import audit_pb2
from pilothouse.container.v1 import container_pb2 as containers
from pilothouse.metrics.v1 import metrics_pb2 as metrics
from pilothouse.namespace.v1 import namespace_pb2 as namespaces
from pilothouse.network.v1 import network_pb2 as network
from pilothouse.options.v1 import options_pb2
from pilothouse.resource.v1 import resource_pb2

if TYPE_CHECKING:
    from tests.client.fake_server import FakeServer


_VERBS = ("Get", "List", "Create", "Update", "Delete", "Watch")
# The fields that identify a resource, both in a request and in the resource itself.
_NAMED_BY = ("namespace", "name", "username", "operation_id")


def _key(message: Any) -> Any:
    """Returns the key of a resource in its table."""
    fields = message.DESCRIPTOR.fields_by_name
    values = (
        getattr(message, name) for name in _NAMED_BY if name in fields and not fields[name].message_type
    )
    found = [value for value in values if value]
    return found[0] if len(found) == 1 else tuple(found)


def _handler(method: MethodDescriptor, behavior: Callable[..., Any]) -> grpc.RpcMethodHandler[Any, Any]:
    request: Any = GetMessageClass(method.input_type)
    kinds = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    make: Callable[..., grpc.RpcMethodHandler[Any, Any]] = kinds[
        bool(method.client_streaming), bool(method.server_streaming)
    ]
    return make(
        behavior,
        request_deserializer=request.FromString,
        response_serializer=lambda each: each.SerializeToString(),
    )


def timestamp(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromNanoseconds(int(seconds * 1e9))
    return made


class Service:
    """One service: the methods of its class, and default behaviour for the other methods, chosen by their names.

    Get, List, Create, Update, Delete and Watch of a resource in `tables` work on the table of the fake server. Other
    methods return an empty response.
    """

    # The stored resource types, by their names in the audit log.
    tables: frozenset[str] = frozenset()

    def __init__(self, fake: FakeServer) -> None:
        self.fake = fake

    def handlers(self, service: ServiceDescriptor) -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
        """Returns the handlers by method name. Methods with a request stream need an implementation in the class."""
        return {
            method.name: _handler(method, getattr(self, method.name, None) or self._default(method))
            for method in service.methods
            if hasattr(self, method.name) or not method.client_streaming
        }

    def _default(self, method: MethodDescriptor) -> Callable[..., Any]:
        response: Any = GetMessageClass(method.output_type)
        table = method.GetOptions().Extensions[options_pb2.method].resource_type
        verb = next((verb for verb in _VERBS if method.name.startswith(verb)), "")
        if verb == "Watch":
            return self._watching(table, response)

        async def empty(_request: Any, _context: Any) -> Any:
            return response()

        if table not in self.tables or not verb:
            return empty
        field = next((each.name for each in method.output_type.fields if each.message_type is not None), "")

        async def page(request: Any, _context: Any) -> Any:
            return self.page(request, self.fake.tables[table].values(), response(), field)

        async def answer(request: Any, context: Any) -> Any:
            row = await make(request, context, table, field)
            return response(**{field: row}) if field else response()

        if verb == "List":
            return page
        make: Callable[..., Any] = getattr(self, f"_{verb.lower()}")
        return answer

    async def _get(self, request: Any, context: Any, table: str, _field: str) -> Any:
        return await self.row(context, table, _key(request))

    async def _create(self, request: Any, _context: Any, table: str, field: str) -> Any:
        row = getattr(request, field)
        await self.fake.commit(table, _key(row), row)
        return row

    async def _update(self, request: Any, context: Any, table: str, field: str) -> Any:
        row = await self.row(context, table, _key(request))
        request.update_mask.MergeMessage(getattr(request, field), row, True, True)
        await self.fake.commit(table, _key(request), row)
        return row

    async def _delete(self, request: Any, context: Any, table: str, _field: str) -> Any:
        row = await self.row(context, table, _key(request))
        await self.fake.commit(table, _key(request), None)
        return row

    def _watching(self, table: str, response: Any) -> Callable[..., AsyncIterator[Any]]:
        async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
            await self.check_token(context, request)

            def make(kind: Any, row: Any, revision: int, token: str) -> Any:
                answer = response(
                    change_type=kind, revision=revision, resume_token=token, **({table: row} if row else {})
                )
                if token:
                    answer.server_time.FromDatetime(self.fake.server_time())
                return answer

            async for answer in self.watch(table, request, make):
                yield answer
            await self.cut(context)

        return answers

    def page(self, request: Any, rows: Iterable[Any], response: Any, field: str) -> Any:
        """Returns one page. The page token is the offset, which suffices without concurrent writes.

        The only supported filter is `name = "…"`.
        """
        everything = list(rows)
        if named := re.fullmatch(r'name = "(.*)"', getattr(request, "filter", "")):
            everything = [each for each in everything if each.name == named[1]]
        start = int(request.page_token or 0)
        end = start + (request.page_size or 50)
        getattr(response, field).extend(everything[start:end])
        if end < len(everything):
            response.next_page_token = str(end)
        return response

    async def row(self, context: Any, table: str, key: Any) -> Any:
        found = self.fake.tables[table].get(key)
        if found is None:
            name = key if isinstance(key, str) else "/".join(key)
            message = f"there is no {table} {name}"
            await self.fake.abort(
                context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND", message, metadata={"name": name}
            )
        return found

    async def watch(self, table: str, request: Any, make: Callable[..., Any]) -> AsyncIterator[Any]:
        """Follows the contract of a watch: state, SYNCED, changes, bookmarks. Ends when the test cuts watches."""
        fake = self.fake
        generation = fake.generation_of_watches
        if request.resume_token:
            position = int(request.resume_token)
        else:
            position = fake.revision
            for row in list(fake.tables[table].values()):
                yield make(resource_pb2.CHANGE_TYPE_ADDED, row, 0, "")
            yield make(resource_pb2.CHANGE_TYPE_SYNCED, None, position, str(position))
        while fake.generation_of_watches == generation:
            for revision, of_table, kind, row in fake.history[position:]:
                position = revision
                if of_table == table:
                    yield make(kind, row, revision, str(revision))
            if not await fake.next_change(position, fake.bookmark_period):
                yield make(resource_pb2.CHANGE_TYPE_BOOKMARK, None, position, str(position))

    async def check_token(self, context: Any, request: Any) -> None:
        if request.resume_token and int(request.resume_token) + 1 < self.fake.oldest_revision:
            await self.fake.abort(
                context,
                grpc.StatusCode.OUT_OF_RANGE,
                "WATCH_HORIZON",
                "the token is too old",
                metadata={"oldest_revision": str(self.fake.oldest_revision)},
            )

    async def cut(self, context: Any) -> None:
        await self.fake.abort(
            context, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "resume on another replica"
        )


class Namespaces(Service):
    tables = frozenset({"namespace", "cluster"})

    async def GetQuotaUsage(self, request: Any, context: Any) -> Any:
        row = await self.row(context, "namespace", request.name)
        used = namespaces.ResourceQuota(
            containers=len(self.fake.tables["container"]), cpu="500m", memory="64Mi"
        )
        return namespaces.GetQuotaUsageResponse(quota=row.resource_quota, used=used)


class Containers(Service):
    tables = frozenset({"container"})

    async def CreateContainer(self, request: Any, context: Any) -> Any:
        key = (request.namespace, request.container.name)
        if key in self.fake.tables["container"]:
            await self.fake.abort(
                context, grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN", f"container {key[1]} exists already"
            )
        row = containers.Container()
        row.CopyFrom(request.container)
        row.namespace, row.uid, row.generation = request.namespace, str(uuid.uuid4()), 1
        row.status = containers.CONTAINER_STATUS_PENDING
        row.reconciling = True
        if not request.validate_only:
            await self.fake.commit("container", key, row)
        return containers.CreateContainerResponse(container=row)

    async def GetContainer(self, request: Any, context: Any) -> Any:
        row = await self.row(context, "container", (request.namespace, request.name))
        return containers.GetContainerResponse(
            container=row, events=self.fake.events, events_unavailable=self.fake.events_unavailable
        )

    async def ListContainers(self, request: Any, context: Any) -> Any:
        rows = [
            row
            for (namespace, _), row in sorted(self.fake.tables["container"].items())
            if request.namespace in ("", namespace)
        ]
        return self.page(request, rows, containers.ListContainersResponse(), "containers")

    async def UpdateContainer(self, request: Any, context: Any) -> Any:
        row = await self.row(context, "container", (request.namespace, request.name))
        changed = containers.Container()
        changed.CopyFrom(row)
        request.update_mask.MergeMessage(request.container, changed, True, True)
        changed.generation += 1
        if not request.validate_only:
            await self.fake.commit("container", (request.namespace, request.name), changed)
        return containers.UpdateContainerResponse(container=changed)

    async def _act(self, request: Any, context: Any, status: Any) -> Any:
        row = await self.row(context, "container", (request.namespace, request.name))
        changed = containers.Container()
        changed.CopyFrom(row)
        changed.status, changed.reconciling = status, False
        changed.generation = changed.observed_generation = row.generation + 1
        await self.fake.commit("container", (request.namespace, request.name), changed)
        return changed

    async def StartContainer(self, request: Any, context: Any) -> Any:
        return containers.StartContainerResponse(
            container=await self._act(request, context, containers.CONTAINER_STATUS_RUNNING)
        )

    async def StopContainer(self, request: Any, context: Any) -> Any:
        return containers.StopContainerResponse(
            container=await self._act(request, context, containers.CONTAINER_STATUS_STOPPED)
        )

    async def PauseContainer(self, request: Any, context: Any) -> Any:
        row = await self._act(request, context, containers.CONTAINER_STATUS_PAUSED)
        return containers.PauseContainerResponse(container=row, losses=["pod address", "memory"])

    async def ResumeContainer(self, request: Any, context: Any) -> Any:
        return containers.ResumeContainerResponse(
            container=await self._act(request, context, containers.CONTAINER_STATUS_RUNNING)
        )

    async def RestartContainer(self, request: Any, context: Any) -> Any:
        return containers.RestartContainerResponse(
            container=await self._act(request, context, containers.CONTAINER_STATUS_RUNNING)
        )

    async def StreamLogs(self, request: Any, context: Any) -> AsyncIterator[Any]:
        entries = [
            containers.LogEntry(container=request.name, pod=pod, line=line) for pod, line in self.fake.log
        ]
        yield containers.StreamLogsResponse(entries=entries)

    async def ListStatusHistory(self, request: Any, context: Any) -> Any:
        await self.row(context, "container", (request.namespace, request.name))
        change = containers.StatusChange(
            current_status=containers.CONTAINER_STATUS_RUNNING, reason="Ready", triggered_by="kubernetes"
        )
        return self.page(request, [change], containers.ListStatusHistoryResponse(), "status_changes")

    async def GetImage(self, request: Any, context: Any) -> Any:
        return containers.GetImageResponse(
            image=containers.Image(image=request.image, status=containers.IMAGE_STATUS_AVAILABLE)
        )

    async def ListImages(self, request: Any, context: Any) -> Any:
        image = containers.Image(
            image="nginx:1.27",
            name="nginx",
            tag="1.27",
            status=containers.IMAGE_STATUS_AVAILABLE,
            container_count=1,
        )
        return self.page(request, [image], containers.ListImagesResponse(), "images")


class Resources(Service):
    """Resources that need no behaviour of their own."""

    tables = frozenset({"config_map", "secret", "volume", "object", "application"})


class Network(Service):
    tables = frozenset({"service"})

    async def CreateService(self, request: Any, context: Any) -> Any:
        row = network.Service()
        row.CopyFrom(request.service)
        row.namespace = request.namespace
        if not request.validate_only:
            await self.fake.commit("service", (row.namespace, row.name), row)
        return network.CreateServiceResponse(service=row)

    async def UpdateService(self, request: Any, context: Any) -> Any:
        key = (request.namespace, request.name)
        changed = network.Service()
        changed.CopyFrom(await self.row(context, "service", key))
        request.update_mask.MergeMessage(request.service, changed, True, True)
        if not request.validate_only:
            await self.fake.commit("service", key, changed)
        return network.UpdateServiceResponse(service=changed)


class Audit(Service):
    tables = frozenset({"operation"})

    async def GetUserOperationStats(self, request: Any, context: Any) -> Any:
        stats = audit_pb2.UserOperationStats(username="admin", total_operations=3, successful_operations=2)
        return self.page(request, [stats], audit_pb2.GetUserOperationStatsResponse(), "user_operation_stats")

    async def CreateAuditSink(self, request: Any, context: Any) -> Any:
        return audit_pb2.CreateAuditSinkResponse(audit_sink=request.audit_sink)

    async def ListAuditSinks(self, request: Any, context: Any) -> Any:
        sinks = [audit_pb2.AuditSink(name="siem", kind=audit_pb2.AUDIT_SINK_KIND_HTTP, lag_records=7)]
        return self.page(request, sinks, audit_pb2.ListAuditSinksResponse(), "audit_sinks")

    async def GetAuditHead(self, request: Any, context: Any) -> Any:
        return audit_pb2.GetAuditHeadResponse(head=audit_pb2.AuditHead(origin="example.com/log", size=1))

    async def GetAuditTile(self, request: Any, context: Any) -> Any:
        return audit_pb2.GetAuditTileResponse(tile=bytes(32))

    async def ProveOperation(self, request: Any, context: Any) -> Any:
        return audit_pb2.ProveOperationResponse(sequence=1, leaf_index=1)

    async def ProveConsistency(self, request: Any, context: Any) -> Any:
        return audit_pb2.ProveConsistencyResponse(first_size=1)

    async def VerifyAuditLog(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield audit_pb2.VerifyAuditLogResponse(done=True, intact=True)

    async def ExportAuditLog(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield audit_pb2.ExportAuditLogResponse(head=audit_pb2.AuditHead(size=1))
        yield audit_pb2.ExportAuditLogResponse(done=True)


class Metrics(Service):
    def _sample(self, request: Any) -> Any:
        return metrics.UsageSample(
            namespace=request.namespace or "shop",
            container="web",
            cpu_cores_used=0.25,
            memory_bytes_used=64 << 20,
        )

    async def QueryUsage(self, request: Any, context: Any) -> Any:
        point = metrics.UsagePoint(timestamp=timestamp(1_700_000_000), samples=4, cpu_cores_avg=0.25)
        series = metrics.UsageSeries(namespace=request.namespace, container="web", points=[point])
        return self.page(request, [series], metrics.QueryUsageResponse(), "series")

    async def WatchUsage(self, request: Any, context: Any) -> AsyncIterator[Any]:
        generation = self.fake.generation_of_watches
        while self.fake.generation_of_watches == generation:
            yield metrics.WatchUsageResponse(samples=[self._sample(request)])
            await self.fake.next_change(self.fake.revision, 10.0)
        await self.cut(context)

    async def RecordUsage(self, requests: Any, context: Any) -> Any:
        return metrics.RecordUsageResponse(accepted_count=sum([len(each.samples) async for each in requests]))

    async def GetDatabaseStats(self, request: Any, context: Any) -> Any:
        return metrics.GetDatabaseStatsResponse(server_version="18.6")

    async def GetTableSizes(self, request: Any, context: Any) -> Any:
        return metrics.GetTableSizesResponse(table_sizes=[metrics.TableSize(table_name="users")])

    async def GetContainerDetails(self, request: Any, context: Any) -> Any:
        details = metrics.ContainerDetails(name=request.name, namespace_name=request.namespace)
        return metrics.GetContainerDetailsResponse(container_details=details)

    async def GetNamespaceSummary(self, request: Any, context: Any) -> Any:
        summary = metrics.NamespaceSummary(namespace_name="shop", total_containers=1)
        return self.page(request, [summary], metrics.GetNamespaceSummaryResponse(), "namespace_summaries")

    async def ListTopContainers(self, request: Any, context: Any) -> Any:
        return metrics.ListTopContainersResponse(samples=[self._sample(request)])
