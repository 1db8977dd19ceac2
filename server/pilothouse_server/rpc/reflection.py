"""The reflection service, as `grpc.reflection.v1` and as the older `v1alpha`.

grpcio-reflection ships `v1alpha` only, and newer clients ask for `v1` first. Both have the same messages under another
package name, so they are equal on the wire: the descriptor of `v1` is derived from the one of `v1alpha`, and the
library's handler serves both.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection as v1alpha
from grpc_reflection.v1alpha import reflection_pb2

V1ALPHA_SERVICE: Final = v1alpha.SERVICE_NAME
V1_SERVICE: Final = "grpc.reflection.v1.ServerReflection"
_METHOD: Final = "ServerReflectionInfo"
_OLD_PACKAGE, _NEW_PACKAGE = "grpc.reflection.v1alpha", "grpc.reflection.v1"


def enable(services: Iterable[str], server: grpc.aio.Server) -> None:
    """Adds both versions to a server; they list `services` and themselves."""
    _describe_v1()
    names = (*services, V1_SERVICE, V1ALPHA_SERVICE)
    v1alpha.enable_server_reflection(names, server)
    servicer: Any = v1alpha.aio.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(V1_SERVICE, {_METHOD: handler}),))


@cache
def _describe_v1() -> None:
    """Adds the descriptor of `v1` to the pool that reflection reads, once in a process."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = file.name.replace("v1alpha", "v1")
    file.package = _NEW_PACKAGE
    old, new = f".{_OLD_PACKAGE}.", f".{_NEW_PACKAGE}."
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(old, new)
    for service in file.service:
        for method in service.method:
            method.input_type = method.input_type.replace(old, new)
            method.output_type = method.output_type.replace(old, new)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
