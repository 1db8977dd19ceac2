"""The declarations in the proto files without which the server may not start.

A field that could contain a credential and does not declare whether it does would end up in logs and audit records. A
method without a rule would be open to everybody or to nobody. Methods whose action or resource type the audit log does
not have could not be found there. This module detects all of these at start, from the descriptors. It also detects a
response of a watch whose fields have other numbers than those that `rpc.watch_answers` writes by hand: clients would
read one field as another.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.rpc.field_checks import RuleError, is_map, is_secret_by_name, map_fields, rule_of
from pilothouse_server.rpc.validation import compile_rules
from pilothouse_server.values.audit_words import ACTIONS, RESOURCE_TYPES
from pilothouse_server.values.names import permission_problem

CREDENTIAL_WORD = re.compile(
    r"(?:^|_)(?:pass(?:word|wd|phrase|code)?|token|secret|key|credential|kubeconfig|auth|authorization|cookie|jwt|bearer"
    r"|private|pin|otp|nonce|verifier|dsn|cert|certificate)s?(?:$|_)"
)
_FOREIGN_PREFIX = "google."
# The fields of a watch's response as `rpc.watch_answers` writes them: number, name ('' for the noun's own), type.
WATCH_ANSWER = (
    (1, "change_type", "pilothouse.resource.v1.ChangeType"),
    (2, "", "message"),
    (3, "revision", "int64"),
    (4, "resume_token", "string"),
    (5, "server_time", "google.protobuf.Timestamp"),
)
_TYPE_NAMES = {
    FieldDescriptor.TYPE_MESSAGE: "message",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
}


class DeclarationError(RuntimeError):
    """The proto files lack declarations; `faults` lists all of them."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("the proto files leave open: " + "; ".join(self.faults))


def check_declared(services: Iterable[ServiceDescriptor]) -> None:
    """Checks all methods of `services`, and every message that they receive or return.

    Raises:
        DeclarationError: with all faults.
    """
    if faults := _faults(tuple(services)):
        raise DeclarationError(faults)


@functools.cache
def _faults(services: tuple[ServiceDescriptor, ...]) -> tuple[str, ...]:
    """Returns all missing declarations.

    Descriptors do not change, so they are checked once.
    """
    faults: list[str] = []
    seen: set[str] = set()
    for service in services:
        for method in service.methods:
            faults += (f"{method.full_name} {fault}" for fault in _method_faults(method))
            faults += _message_faults(method.input_type, seen)
            faults += _message_faults(method.output_type, seen)
            faults += _watch_answer_faults(method)
            try:
                compile_rules(method.input_type)
            except RuleError as error:
                faults.append(str(error))
    return tuple(faults)


def could_hold_credential(field: FieldDescriptor) -> bool:
    """Returns whether the name or the type of a field suggests that it may contain a credential.

    Numbers, booleans, enums and messages themselves cannot; the fields of a message are checked individually.
    """
    held = map_fields(field)[1].type if is_map(field) else field.type
    if held == FieldDescriptor.TYPE_BYTES:
        return True
    return held == FieldDescriptor.TYPE_STRING and CREDENTIAL_WORD.search(field.name) is not None


def _message_faults(descriptor: Descriptor, seen: set[str]) -> Iterator[str]:
    if descriptor.full_name in seen or descriptor.full_name.startswith(_FOREIGN_PREFIX):
        return
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        undeclared = rule_of(field).sensitivity == options.SENSITIVITY_UNSPECIFIED
        if undeclared and could_hold_credential(field):
            yield f"{field.full_name} could hold a credential and declares no sensitivity"
        if is_secret_by_name(field) and not field.is_repeated and "name" not in descriptor.fields_by_name:
            yield f"{field.full_name} declares that its name decides, but there is no field `name` next to it"
        held = map_fields(field)[1].message_type if is_map(field) else field.message_type
        if held is not None:
            yield from _message_faults(held, seen)


def _method_faults(method: MethodDescriptor) -> Iterator[str]:
    rule = method.GetOptions().Extensions[options.method]
    for declared, what in (
        (rule.access, "access"),
        (rule.audit, "audit level"),
        (rule.action, "action"),
        (rule.resource_type, "resource_type"),
    ):
        if not declared:
            yield f"declares no {what}"
    for word, known, what in (
        (rule.action, ACTIONS, "action"),
        (rule.resource_type, RESOURCE_TYPES, "resource_type"),
    ):
        if word and word not in known:
            yield f"declares the {what} {word!r}, which is not a word of the log: add it to values/audit_words.py"
    yield from _scope_faults(rule)
    for path in (rule.namespace_field, rule.name_field):
        if path and not _names_text(method.input_type, path):
            yield f"declares the path {path}, which is not a string field of its request"


def _scope_faults(rule: options.MethodRule) -> Iterator[str]:
    if rule.access == options.ACCESS_PERMISSION:
        if permission_problem(rule.permission):
            yield "declares no permission of the form <noun>.<verb>"
        if rule.scope == options.SCOPE_UNSPECIFIED:
            yield "declares no scope"
    elif rule.permission or rule.scope:
        yield "declares a permission or a scope that its access does not use"
    scoped = rule.scope in (options.SCOPE_NAMESPACE, options.SCOPE_NAMESPACE_OR_VISIBLE)
    if scoped and not rule.namespace_field:
        yield "declares no namespace_field for its scope"


def _watch_answer_faults(method: MethodDescriptor) -> Iterator[str]:
    """Yields the reasons why `rpc.watch_answers` cannot write the responses of a watch, recognised by ChangeType."""
    answer = method.output_type
    (_, _, change_type), *_ = WATCH_ANSWER
    if not method.server_streaming or all(_type_name(field) != change_type for field in answer.fields):
        return
    for number, name, kind in WATCH_ANSWER:
        field = answer.fields_by_number.get(number)
        if field is None or field.is_repeated or _type_name(field) != kind or name not in ("", field.name):
            wanted = f"{name or 'the resource'} ({kind})"
            yield f"{answer.full_name} must have {wanted} as field {number}, as rpc.watch writes it"


def _type_name(field: FieldDescriptor) -> str:
    if field.enum_type is not None:
        return field.enum_type.full_name
    if field.message_type is not None and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name:
        return field.message_type.full_name
    return _TYPE_NAMES.get(field.type, "")


def _names_text(descriptor: Descriptor | None, path: str) -> bool:
    field: FieldDescriptor | None = None
    for name in path.split("."):
        field = descriptor.fields_by_name.get(name) if descriptor is not None else None
        if field is None or field.is_repeated:
            return False
        descriptor = field.message_type
    return field is not None and field.type == FieldDescriptor.TYPE_STRING
