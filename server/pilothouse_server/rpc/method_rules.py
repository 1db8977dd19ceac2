"""The rules that the proto files declare for each method, read once from the descriptors.

A server that lacks the rule of a method must not start: `declarations.check_declared` refuses an incomplete
rule, and an undeclared field that could contain a credential, before the rules are read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Literal

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.authorization.denials import PermissionScope

# Resource types of methods that name a namespace but change nothing on its cluster.
_OF_THE_PLATFORM = ("namespace", "role_grant")
_page_size: Callable[[Any], int] = attrgetter("page_size")
# Actions that are recorded before the response is sent, although they only read.
_READING = ("logs", "export")
Shape = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule of one method.

    `namespace_of` and `name_of` read the request; they return '' if it names none.
    """

    method: str
    service: str
    name: str
    shape: Shape
    access: int
    permission: str
    scope: int
    audit: int
    action: str
    resource_type: str
    namespace_field: str
    namespace_of: Callable[[Message], str]
    name_of: Callable[[Message], str]
    request_class: type[Message]
    response_class: type[Message]
    has_request_id: bool
    has_validate_only: bool
    has_page_size: bool
    name_field: str = ""
    # Whether the caller must have logged in with a session: no key, no certificate.
    session_only: bool = False
    # Whether its handler waits for a cluster before it writes, or writes as the system: see `rpc.call.waits_outside`.
    waits_outside: bool = False
    # The number of rows as which a page of a list counts: see `rpc.call.counts_as`.
    rows_of: Callable[[Any], int] = _page_size
    # Whether the handler writes many objects: see `rpc.call.writes_many`.
    writes_many: bool = False
    # The most bytes of one request.
    most_bytes: int = 4 * 1024 * 1024
    # The following fields are derived from the others once, because every call needs them. Whether the method
    # needs no log-in.
    public: bool = field(init=False)
    # Whether the record belongs to the transaction of the change.
    mutates: bool = field(init=False)
    # Whether either side is a stream, and which.
    streams: bool = field(init=False)
    takes_stream: bool = field(init=False)
    answers_stream: bool = field(init=False)
    # Whether a request must name a namespace.
    in_one_namespace: bool = field(init=False)

    def __post_init__(self) -> None:
        for name, value in (
            ("public", self.access == options.ACCESS_PUBLIC),
            ("mutates", self.audit == options.AUDIT_LEVEL_MUTATION),
            ("streams", self.shape != "unary_unary"),
            ("takes_stream", self.shape in ("stream_unary", "stream_stream")),
            ("answers_stream", self.shape in ("unary_stream", "stream_stream")),
            ("in_one_namespace", self.scope == options.SCOPE_NAMESPACE),
        ):
            object.__setattr__(self, name, value)

    @property
    def only_reads(self) -> bool:
        """Whether the method changes nothing, reveals no secret and runs nothing.

        A read-only key may call only such methods, and those that end keys.
        """
        return self.audit == options.AUDIT_LEVEL_READ or self.action in _READING

    @property
    def ends_keys(self) -> bool:
        """Whether the method ends an API key. Any key may end itself."""
        return (self.action, self.resource_type) == ("revoke", "api_key")

    @property
    def needs_permission(self) -> bool:
        """Whether a grant must allow the method: it is neither public nor open to every user."""
        return self.access == options.ACCESS_PERMISSION

    @property
    def of_platform(self) -> bool:
        """Whether only a grant over all namespaces allows the method."""
        return self.scope == options.SCOPE_PLATFORM

    def permission_scope(self, namespace: str) -> PermissionScope:
        """Returns the scope that the permission must have for a request that names `namespace`, or none ('')."""
        if self.in_one_namespace or namespace:
            return "there"
        # A change that names no namespace affects all of them.
        return "everywhere" if self.of_platform or self.mutates else "somewhere"

    @property
    def acts_in_namespace(self) -> bool:
        """Whether the method changes, or accesses, the namespace's contents on its cluster.

        Such a method is refused if the Kubernetes namespace belongs to another owner. This does not include the
        platform's own resources: the namespace itself, which the method takes over or gives up, and grants.
        """
        return (
            bool(self.namespace_field)
            and self.audit != options.AUDIT_LEVEL_READ
            and self.resource_type not in _OF_THE_PLATFORM
        )


# The rule of a call whose method does not exist. Its shape fits all calls, which end before their first message.
UNKNOWN_METHOD = Rule(
    method="unknown",
    service="unknown",
    name="unknown",
    shape="unary_stream",
    access=options.ACCESS_PUBLIC,
    permission="",
    scope=options.SCOPE_PLATFORM,
    audit=options.AUDIT_LEVEL_READ,
    action="other",
    resource_type="unknown",
    namespace_field="",
    namespace_of=lambda _message: "",
    name_of=lambda _message: "",
    request_class=Empty,
    response_class=Empty,
    has_request_id=False,
    has_validate_only=False,
    has_page_size=False,
)


def load(services: Iterable[ServiceDescriptor]) -> dict[str, Rule]:
    """Returns the rules of all methods, by full method (`/package.Service/Method`)."""
    return {
        rule.method: rule
        for service in services
        for method in service.methods
        for rule in [_rule(service, method)]
    }


def permissions(services: Iterable[ServiceDescriptor]) -> frozenset[str]:
    """Returns every permission that a method requires."""
    declared = (_declared(method).permission for service in services for method in service.methods)
    return frozenset(permission for permission in declared if permission)


# The rules are loaded twice at start.
@functools.cache
def _rule(service: ServiceDescriptor, method: MethodDescriptor) -> Rule:
    declared = _declared(method)
    request_class = _message_class(method.input_type)
    return Rule(
        method=f"/{service.full_name}/{method.name}",
        service=service.full_name,
        name=method.name,
        shape=_shape(method),
        access=declared.access,
        permission=declared.permission,
        scope=declared.scope,
        audit=declared.audit,
        action=declared.action,
        resource_type=declared.resource_type,
        namespace_field=declared.namespace_field,
        namespace_of=_reader(declared.namespace_field),
        name_of=_reader(declared.name_field),
        request_class=request_class,
        response_class=_message_class(method.output_type),
        has_request_id="request_id" in method.input_type.fields_by_name,
        has_validate_only="validate_only" in method.input_type.fields_by_name,
        has_page_size="page_size" in method.input_type.fields_by_name,
        name_field=declared.name_field,
        session_only=declared.session_only,
    )


def _declared(method: MethodDescriptor) -> options.MethodRule:
    rule: options.MethodRule = method.GetOptions().Extensions[options.method]
    return rule


def _reader(path: str) -> Callable[[Message], str]:
    if not path:
        return lambda _message: ""
    read: Callable[[Message], object] = attrgetter(path)
    return lambda message: str(read(message))


def _message_class(descriptor: Descriptor) -> type[Message]:
    return GetMessageClass(descriptor)


def _shape(method: MethodDescriptor) -> Shape:
    if method.client_streaming:
        return "stream_stream" if method.server_streaming else "stream_unary"
    return "unary_stream" if method.server_streaming else "unary_unary"
