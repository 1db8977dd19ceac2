"""The gRPC server: options, services, health, reflection.

The options avoid known weaknesses of a `grpc.aio` server. Streams per connection are bounded (otherwise 2,000 rapid
resets slow down other callers), and so are messages and metadata. Connections that do not finish their handshake, or
have no call, are closed. Silent connections are pinged, and old ones are asked to reconnect. A port is never shared
by accident (a second server would bind it silently): servers that share it on purpose reserve it for themselves
(`rpc.port`). They are the listener shards of one process (`rpc.listener_shards`), or of several processes. The kernel
distributes connections among processes, not calls, so with several processes clients are asked to reconnect more
often.

gRPC's own limit of concurrent calls is not used, because it counts all calls before any handler runs, those of the
health service included: see `flowcontrol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pilothouse_server.flowcontrol.admission import CallAdmission
from pilothouse_server.flowcontrol.classes import CallLimits
from pilothouse_server.rpc import headers, longest, method_rules, receiving, reflection
from pilothouse_server.rpc.declarations import DeclarationError, check_declared
from pilothouse_server.rpc.health import NOT_SERVING, SERVING, Health
from pilothouse_server.rpc.listener_shards import ListenerShards, shard_count
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.pipeline import Pipeline
from pilothouse_server.rpc.tls.serving import Serving
from pilothouse_server.rpc.transport import check_transport
from pilothouse_server.settings.model import Settings, address_refused
from pilothouse_server.values.listening import unix_problem

# With several processes: the time for which new calls of a connection go to the same process.
_SPREAD_SECONDS = 300
# The number of calls of one listener shard that wait to be accepted. Each takes 16 KB, or 60 KB with the received part
# of a large request. One address fills one shard; a caller with many addresses fills all, and each full shard takes
# half a gigabyte, or almost two.
_MOST_PENDING, _MOST_PENDING_EVER = 25_000, 30_000
# The health service, which reflection lists, too.
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class GrpcServer:
    """A server with every service of the product, healthy once `serving` is called.

    `tls` is its TLS certificate; the process runs `tls.run` as a task. None if the server serves plain text.
    """

    def __init__(
        self,
        shards: ListenerShards,
        health: Health,
        services: Iterable[str],
        settings: Settings,
        admission: CallAdmission,
        tls: Serving | None = None,
    ) -> None:
        self.tls = tls
        self.asking_port: int | None = None
        self._lines = shards
        self._admission = admission
        self._health = health
        self._services = ("", *services)
        self._settings = settings

    def bind(self) -> int:
        """Binds the address and returns its port, which is useful if 0 was requested.

        Connections wait for `start`.

        If a second address requests client certificates, it is bound, too; its port is `asking_port`.

        Raises:
            SettingsError: the address is in use, not an address of this machine, or no address at all.
        """
        settings = self._settings
        if self.tls is not None and settings.tls_client_listen:
            self.asking_port = self._take(settings.tls_client_listen, "TLS_CLIENT_LISTEN", asking=True)
        asking = settings.tls_client_ca_file is not None and not settings.tls_client_listen
        return self._take(settings.listen, "LISTEN", asking=asking)

    def _take(self, address: str, name: str, *, asking: bool) -> int:
        if unix_problem(address):
            raise address_refused(address, name)
        tls = self.tls

        def add(server: grpc.aio.Server, address: str) -> int:
            if tls is None:
                return int(server.add_insecure_port(address))
            return int(server.add_secure_port(address, tls.credentials(asking=asking)))

        try:
            return self._lines.bind(address, name, add)
        except RuntimeError:
            raise address_refused(address, name) from None

    async def start(self) -> None:
        """Starts to accept connections."""
        await self._lines.start()

    async def serving(self, healthy: bool) -> None:
        """Reports through the health service whether calls are accepted, overall and for each service."""
        status = SERVING if healthy else NOT_SERVING
        for service in self._services:
            await self._health.set(service, status)

    async def stop(self, grace_seconds: float) -> None:
        """Reports NOT_SERVING, drains (`CallAdmission.drain`), waits for calls in flight; `grace_seconds` in all."""
        loop = asyncio.get_running_loop()
        end = loop.time() + grace_seconds
        await self._health.drain()
        await self._admission.drain(grace_seconds)
        await self._lines.stop(max(0.0, end - loop.time()))


def rules_and_handlers(
    services: Mapping[ServiceDescriptor, Sequence[object]], most_message_bytes: int = 4 * 1024 * 1024
) -> tuple[dict[str, Rule], dict[str, Callable[..., Any]]]:
    """Returns the rule and the handler of each method.

    A received message may have up to `most_message_bytes`.

    A service is served by one object or by several, each with some of its methods.

    Raises:
        DeclarationError: a method has no complete rule, a field that could hold a credential is not declared, or a
            declared RPC has no handler, or has two.
    """
    check_declared(services)
    rules = method_rules.load(services)
    handlers: dict[str, Callable[..., Any]] = {}
    missing = []
    for descriptor, servicers in services.items():
        for method in descriptor.methods:
            rule = rules[f"/{descriptor.full_name}/{method.name}"]
            if rule.mutates and rule.streams:
                missing.append(
                    f"{method.full_name} is a stream, which cannot be one transaction: declare it DURABLE"
                )
            found = [getattr(each, method.name) for each in servicers if hasattr(each, method.name)]
            if len(found) != 1:
                how = "not served" if not found else "served by more than one object"
                missing.append(f"{method.full_name} is declared but {how}")
            else:
                handler = found[0]
                handlers[rule.method] = handler
                rules[rule.method] = replace(
                    rule,
                    waits_outside=getattr(handler, "waits_outside", False),
                    writes_many=getattr(handler, "writes_many", False),
                    rows_of=getattr(handler, "rows_of", rule.rows_of),
                    most_bytes=min(
                        most_message_bytes,
                        receiving.MOST_OF_STRANGERS_BYTES
                        if rule.public
                        else longest.most_bytes_of(method.input_type),
                    ),
                )
    if missing:
        raise DeclarationError(missing)
    return rules, handlers


def options(settings: Settings, limits: CallLimits) -> tuple[tuple[str, int], ...]:
    """Returns the gRPC options that differ from their defaults.

    gRPC silently ignores names of options that it does not have.
    """
    age = limits.max_connection_age_seconds
    # A connection gets no new calls after the first time. Its streams are cut after both times.
    calls_seconds = age if settings.processes == 1 else min(age, _SPREAD_SECONDS)
    streams_seconds = age - calls_seconds + 60
    return (
        ("grpc.so_reuseport", int(settings.processes > 1 or shard_count(settings) > 1)),
        ("grpc.max_concurrent_streams", limits.max_calls_per_connection),
        ("grpc.max_receive_message_length", limits.max_message_bytes + receiving.TRANSPORT_MARGIN_BYTES),
        # gRPC would decompress a request on the event loop, however large the result is (`rpc.decompression`).
        ("grpc.per_message_decompression", 0),
        ("grpc.max_send_message_length", 4 * limits.max_message_bytes),
        ("grpc.max_metadata_size", headers.SOFT_BYTES),
        ("grpc.absolute_max_metadata_size", headers.MOST_BYTES),
        # Also applies to the first frame of a connection without TLS; the default is two minutes.
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_seconds * 1000)),
        ("grpc.max_connection_idle_ms", int(limits.max_connection_idle_seconds * 1000)),
        # Calls of one listener shard that wait to be accepted, which happens one by one (`rpc.listener_shards`).
        # Beyond the default of a thousand, gRPC drops any of them at random, also of other callers (the caller gets
        # CANCELLED). Calls that were reset while they waited count, too. The number of calls of one caller is bounded
        # elsewhere.
        ("grpc.server.max_pending_requests", _MOST_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", _MOST_PENDING_EVER),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A program or a log may be silent for a long time, and clients send pings to check that the connection
        # is alive.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.max_connection_age_ms", calls_seconds * 1000),
        ("grpc.max_connection_age_grace_ms", streams_seconds * 1000),
    )


def build(
    settings: Settings,
    pipeline: Pipeline,
    rules: Mapping[str, Rule],
    services: Iterable[ServiceDescriptor],
    tls: Serving | None = None,
) -> GrpcServer:
    """Returns the server, which has no address yet; `tls` is that of the settings.

    Raises:
        SettingsError: the address or its protection is not safe, or the TLS files cannot be used.
    """
    check_transport(settings)
    names = sorted(descriptor.full_name for descriptor in services)
    handlers = tuple(_placeholder(name, rules) for name in names)
    health = Health()

    def made() -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=(pipeline,), options=options(settings, pipeline.admission.limits)
        )
        server.add_generic_rpc_handlers(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if settings.reflection:
            reflection.enable((*names, HEALTH_SERVICE), server)
        return server

    shards = ListenerShards([made() for _ in range(shard_count(settings))], settings.processes)
    return GrpcServer(shards, health, names, settings, pipeline.admission, tls)


def _placeholder(service: str, rules: Mapping[str, Rule]) -> grpc.GenericRpcHandler:
    """Returns handlers that make the methods known to gRPC; the pipeline serves each call in their place."""

    async def unreachable(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(grpc.StatusCode.INTERNAL, "the pipeline was bypassed")

    return grpc.method_handlers_generic_handler(
        service,
        {
            rule.name: grpc.unary_unary_rpc_method_handler(unreachable)
            for rule in rules.values()
            if rule.service == service
        },
    )
