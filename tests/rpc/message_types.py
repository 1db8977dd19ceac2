"""Message types for tests, declared in Python, with shapes that the product's own messages lack."""

from __future__ import annotations

from itertools import count
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import Message

from pilothouse.options.v1 import options_pb2 as options
from pilothouse.resource.v1 import resource_pb2 as resource

_numbers = count(1)

STRING = FieldDescriptorProto.TYPE_STRING
BYTES = FieldDescriptorProto.TYPE_BYTES
DOUBLE = FieldDescriptorProto.TYPE_DOUBLE
INT64 = FieldDescriptorProto.TYPE_INT64
BOOL = FieldDescriptorProto.TYPE_BOOL
TIMESTAMP = ".google.protobuf.Timestamp"
CHANGE_TYPE = ".pilothouse.resource.v1.ChangeType"
SECRET = options.SENSITIVITY_SECRET
PUBLIC = options.SENSITIVITY_PUBLIC


class ProtoFile:
    """A proto file under construction.

    `load` makes its types known. Each file has its own package.
    """

    def __init__(self) -> None:
        self.package = f"tests.generated{next(_numbers)}"
        self._file = descriptor_pb2.FileDescriptorProto(
            name=f"{self.package}.proto",
            package=self.package,
            syntax="proto3",
            dependency=[
                options.DESCRIPTOR.name,
                resource.DESCRIPTOR.name,
                "google/protobuf/timestamp.proto",
                "google/protobuf/duration.proto",
                "google/protobuf/field_mask.proto",
            ],
        )

    def message(self, name: str) -> MessageBuilder:
        """Adds a message type."""
        return MessageBuilder(self.package, self._file.message_type.add(name=name))

    def method(
        self, request: str, response: str, rule: options.MethodRule | None, *, stream: bool = False
    ) -> None:
        """Adds a method to the file's only service `Service`, which is created with its first method."""
        service = self._file.service[0] if self._file.service else self._file.service.add(name="Service")
        method = service.method.add(
            name=f"Method{len(service.method)}",
            input_type=f".{self.package}.{request}",
            output_type=f".{self.package}.{response}",
            server_streaming=stream,
        )
        if rule is not None:
            method.options.Extensions[options.method].CopyFrom(rule)

    def load(self) -> FileDescriptor:
        """Adds the file to the descriptor pool."""
        descriptor_pool.Default().AddSerializedFile(self._file.SerializeToString())
        found: FileDescriptor = descriptor_pool.Default().FindFileByName(self._file.name)
        return found

    def types(self) -> dict[str, type[Message]]:
        """Loads the file and returns its message classes by name."""
        return {
            name: message_factory.GetMessageClass(descriptor)
            for name, descriptor in self.load().message_types_by_name.items()
        }


class MessageBuilder:
    """One message type under construction.

    The methods return the builder, so that calls can be chained.
    """

    def __init__(self, package: str, message: descriptor_pb2.DescriptorProto) -> None:
        self._package = package
        self._message = message

    def field(
        self, name: str, kind: int | str, *, repeated: bool = False, optional: bool = False, **rule: Any
    ) -> MessageBuilder:
        """Adds a field of a scalar type, of a message type, or of the enum `CHANGE_TYPE`.

        `kind` names a message type of this file, or another one by its full name.
        """
        field = self._message.field.add(name=name, number=len(self._message.field) + 1)
        field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if isinstance(kind, str):
            is_enum = kind == CHANGE_TYPE
            field.type = FieldDescriptorProto.TYPE_ENUM if is_enum else FieldDescriptorProto.TYPE_MESSAGE
            field.type_name = kind if kind.startswith(".") else f".{self._package}.{kind}"
        else:
            field.type = FieldDescriptorProto.Type.ValueType(kind)
        if optional:
            field.proto3_optional = True
            field.oneof_index = len(self._message.oneof_decl)
            self._message.oneof_decl.add(name=f"_{name}")
        if rule:
            field.options.Extensions[options.field].CopyFrom(options.FieldRule(**rule))
        return self

    def map(self, name: str, value: int | str, **rule: Any) -> MessageBuilder:
        """Adds a map whose keys are strings."""
        entry_name = f"{name.title().replace('_', '')}Entry"
        entry = self._message.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        MessageBuilder(self._package, entry).field("key", STRING).field("value", value)
        return self.field(name, f"{self._message.name}.{entry_name}", repeated=True, **rule)
