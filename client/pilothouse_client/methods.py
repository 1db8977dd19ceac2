"""The facts about each RPC, read from the service descriptors.

Every RPC has a request message of its own, so the request's class alone names the RPC. Its declarations
(`pilothouse.options.v1`) and its fields determine how to call it: whether it needs a token, may be repeated and carries
a `request_id`, and how long it may take. None of this is written by hand for a single RPC.
"""

from __future__ import annotations

import enum
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pilothouse.options.v1 import options_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

Request = TypeVar("Request", bound="Message")
Response = TypeVar("Response", bound="Message")


class Pace(enum.Enum):
    """How long a call may take by default; `CallOptions.deadlines` has the seconds."""

    READ = "read"
    MUTATION = "mutation"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """One RPC. `path` is `/package.Service/Method`; `repeatable` means that sending the same message twice
    does no harm: a read, or a mutation that the server recognises by its `request_id`."""

    path: str
    request: type[Request]
    response: type[Response]
    public: bool
    repeatable: bool
    read_only: bool
    has_request_id: bool
    has_validate_only: bool

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def pace(self, request: Request) -> Pace:
        """Returns how long a call may take.

        `validate_only` waits for a cluster, which may be slow."""
        if self.has_validate_only and getattr(request, "validate_only", False):
            return Pace.CLUSTER
        return Pace.READ if self.read_only else Pace.MUTATION

    def request_id_of(self, request: Request) -> str:
        """Returns the request's `request_id`; empty if the call has none."""
        return str(getattr(request, "request_id", "")) if self.has_request_id else ""

    def prepared(self, request: Request) -> Request:
        """Returns a copy that may be sent repeatedly: a mutation without `request_id` gets a new UUID."""
        prepared = self.request()
        prepared.CopyFrom(request)
        if self.has_request_id and not getattr(prepared, "request_id", ""):
            import uuid

            setattr(prepared, "request_id", str(uuid.uuid4()))  # noqa: B010 - not a field of every message
        return prepared


def _services_beside(file: Any) -> list[Any]:  # FileDescriptor has two types, one an implementation's
    """Returns the services of a file; if it has none, that of its noun (`pilothouse.<noun>.v1`), which imports it."""
    if file.services_by_name:
        return list(file.services_by_name.values())
    noun = "".join(file.package.split(".")[-2:-1]).capitalize()
    return [file.pool.FindServiceByName(f"{file.package}.{noun}Service")]


def _descriptor(request: type[Message]) -> Any:  # MethodDescriptor has two types, one an implementation's
    wanted = request.DESCRIPTOR.full_name
    for service in _services_beside(request.DESCRIPTOR.file):
        for method in service.methods:
            if method.input_type.full_name == wanted:
                return method
    raise TypeError(f"{wanted} is not the request of any RPC of {request.DESCRIPTOR.file.package}")


def _services(file: Any) -> list[Any]:
    """Returns the services of a file, and those of its package in other files."""
    found = list(file.services_by_name.values())
    _, _, rest = file.package.partition(".")
    with suppress(KeyError):
        found.append(file.pool.FindServiceByName(f"{file.package}.{rest.partition('.')[0].title()}Service"))
    return found


def method_of(request: type[Request], response: type[Response]) -> Method[Request, Response]:
    """Returns the RPC that takes `request`.

    Raises TypeError if there is none, or if it does not return `response`."""
    descriptor = _descriptor(request)
    if descriptor.output_type.full_name != response.DESCRIPTOR.full_name:
        raise TypeError(f"{descriptor.full_name} returns {descriptor.output_type.full_name}")
    rule = descriptor.GetOptions().Extensions[options_pb2.method]
    fields = request.DESCRIPTOR.fields_by_name
    has_request_id = "request_id" in fields
    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        request=request,
        response=response,
        public=rule.access == options_pb2.ACCESS_PUBLIC,
        # A public call changes at most a session. Logging in twice leaves a spare session, but a refresh token or a
        # challenge works only once.
        repeatable=rule.audit == options_pb2.AUDIT_LEVEL_READ
        or has_request_id
        or (rule.access == options_pb2.ACCESS_PUBLIC and not {"refresh_token", "challenge"} & set(fields)),
        read_only=rule.audit == options_pb2.AUDIT_LEVEL_READ,
        has_request_id=has_request_id,
        has_validate_only="validate_only" in fields,
    )
