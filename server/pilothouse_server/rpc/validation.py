"""Validation of requests by the rules that their fields declare.

Every message type is compiled once, on its first use, into a table from field number to check. A request then
costs one walk over the fields that it has set. Undeclared fields are bounded, too: strings by 1,024
characters, bytes by 1 MiB, repeated fields and maps by 256; NUL, lone surrogates, unknown enum values,
infinite numbers and times that cannot be written are always refused.

All violations are collected (at most 20) and raised together. Fields that only the server sets are cleared
from the request, so that no handler mistakes them for the caller's values.

A request field that names a resource or a namespace (as the method's rule declares) and has no format of its
own must still follow the rules of every name: no `/`, `..`, percent-encoding, control or non-ASCII
characters. Methods that need no log-in are an exception: the log-in itself checks the name that an anonymous
caller types, because it must count the attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from pilothouse.options.v1 import options_pb2 as options
from pilothouse_server.errors import REQUIRED, InvalidArgument, Violation, invalid, missing_field
from pilothouse_server.rpc.field_checks import (
    MOST_VIOLATIONS,
    Check,
    descriptor_of,
    duration_check,
    is_map,
    map_check,
    map_fields,
    repeated_check,
    rule_of,
    scalar_check,
    timestamp_check,
)
from pilothouse_server.rpc.field_count import SHORT_BYTES
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.values.names import resource_name_problem

MOST_MASK_PATHS: Final = 256
# About two hundred items of a list.
_LONG_BYTES: Final = 8 * 1024
# (value, path, violations): a check that yields so that other work can run
Steps = Callable[[Any, str, list[Violation]], Iterator[None]]
# A concurrency token is part of the resource, but it is compared, never written.
_ETAG: Final = "etag"
_WELL_KNOWN: Final[dict[str, Check]] = {
    "google.protobuf.Timestamp": timestamp_check,
    "google.protobuf.Duration": duration_check,
}


class MessageRules:
    """The compiled rules of one message type."""

    __slots__ = ("checks", "output_only", "parts", "required_present", "required_truthy")

    def __init__(self) -> None:
        self.checks: dict[int, tuple[str, Check]] = {}
        # For fields that contain messages: the same check in steps.
        self.parts: dict[int, Steps] = {}
        self.output_only: dict[int, str] = {}
        # Two ways to be required: to be neither empty nor zero, and (messages, `optional`) to be present.
        self.required_truthy: list[str] = []
        self.required_present: list[str] = []

    def check(self, message: Any, prefix: str, violations: list[Violation]) -> None:
        """Appends the violations of `message`; the paths of its fields begin with `prefix`."""
        for field, value in message.ListFields():
            number = field.number
            found = self.checks.get(number)
            if found is not None:
                found[1](value, prefix + found[0], violations)
                if len(violations) >= MOST_VIOLATIONS:
                    return
            elif number in self.output_only:
                message.ClearField(self.output_only[number])
        self._add_missing(message, prefix, violations)

    def steps(self, message: Any, prefix: str, violations: list[Violation]) -> Iterator[None]:
        """Does the work of `check` in steps; each handles one field of a message."""
        for field, value in message.ListFields():
            number = field.number
            found = self.checks.get(number)
            if found is not None:
                if part := self.parts.get(number):
                    yield from part(value, prefix + found[0], violations)
                else:
                    found[1](value, prefix + found[0], violations)
                    yield
                if len(violations) >= MOST_VIOLATIONS:
                    return
            elif number in self.output_only:
                message.ClearField(self.output_only[number])
        self._add_missing(message, prefix, violations)

    def _add_missing(self, message: Any, prefix: str, violations: list[Violation]) -> None:
        missing = [name for name in self.required_truthy if not getattr(message, name)]
        missing += [name for name in self.required_present if not _is_present(message, name)]
        violations += [missing_field(prefix + name) for name in missing]

    def check_nested(self, message: Any, path: str, violations: list[Violation]) -> None:
        """Appends the violations of a message at `path`."""
        self.check(message, path + ".", violations)


_by_type: dict[type[Message], MessageRules] = {}
_by_name: dict[str, MessageRules] = {}


def validate(message: Message) -> None:
    """Checks a request, and clears the fields that only the server sets.

    Raises:
        InvalidArgument: with up to 20 violations; reason INVALID_FIELD.
    """
    violations: list[Violation] = []
    _rules_of(message).check(message, "", violations)
    if violations:
        raise _refusal(violations[:MOST_VIOLATIONS])


def is_long(message: Message) -> bool:
    """Returns whether checking a request may take milliseconds, so that it is better done in steps."""
    return bool(_rules_of(message).parts) and message.ByteSize() > _LONG_BYTES


def goes_last(message: Message) -> bool:
    """Returns whether the work for a request runs after all other work.

    The caller has one such request in progress (`flowcontrol`).
    """
    return message.ByteSize() > SHORT_BYTES


async def validate_in_steps(message: Message) -> None:
    """Checks a request as `validate` does, but in steps between which other work can run.

    Raises the same errors.
    """
    violations: list[Violation] = []
    share = Share(last=goes_last(message))
    for _ in _rules_of(message).steps(message, "", violations):
        await share.used()
    if violations:
        raise _refusal(violations[:MOST_VIOLATIONS])


def _rules_of(message: Message) -> MessageRules:
    rules = _by_type.get(type(message))
    if rules is None:
        rules = _by_type[type(message)] = compile_rules(descriptor_of(message))
    return rules


def problem_of(message: Message) -> str:
    """Returns the fault of an item of a field that is declared `each_by_itself`, '' if there is none.

    Clears the fields that only the server sets.
    """
    violations: list[Violation] = []
    compile_rules(descriptor_of(message)).check(message, "", violations)
    return f"{violations[0].field} {violations[0].description}" if violations else ""


def compile_rules(descriptor: Descriptor) -> MessageRules:
    """Returns the rules of a message type, which include the rules of all types that it contains.

    Raises:
        RuleError: a declaration that cannot apply to its field.
    """
    rules = _by_name.get(descriptor.full_name)
    if rules is not None:
        return rules
    # Stored before it is filled, because a message may contain its own type.
    rules = _by_name[descriptor.full_name] = MessageRules()
    try:
        named = set(_resource_name_fields(descriptor))
        for field in descriptor.fields:
            rule = rule_of(field)
            if rule.output_only:
                rules.output_only[field.number] = field.name
                continue
            if rule.required:
                by_presence = field.has_presence and field.cpp_type != FieldDescriptor.CPPTYPE_STRING
                (rules.required_present if by_presence else rules.required_truthy).append(field.name)
            check = _field_check(field, rule, is_name=field.name in named)
            if check is not None:
                rules.checks[field.number] = (field.name, check)
                if steps := _field_steps(field, rule):
                    rules.parts[field.number] = steps
    except BaseException:
        del _by_name[descriptor.full_name]
        raise
    return rules


def check_update_mask(
    message_type: type[Message] | Descriptor, mask: FieldMask, allowed: Collection[str] | None = None
) -> tuple[str, ...]:
    """Checks an update mask against the resource that it updates; returns its paths once each, in order.

    A path is a field, or a field of a singular message below it (`resources.cpu_limit`). A path below another
    path of the mask is left out. `*` stands for all top-level fields that may be updated.
    `allowed`, if given, lists the only paths that the method updates.

    Raises:
        InvalidArgument: a path is unknown, or only the server sets it, or it never changes; the error names it.
    """
    descriptor = message_type if isinstance(message_type, Descriptor) else descriptor_of(message_type)
    if len(mask.paths) > MOST_MASK_PATHS:
        raise invalid("update_mask", f"must not have more than {MOST_MASK_PATHS} paths")
    paths: dict[str, None] = {}
    for path in mask.paths:
        if path == "*":
            for name in _updatable(descriptor):
                if allowed is None or name in allowed:
                    paths[name] = None
            continue
        if problem := _path_problem(descriptor, path, allowed):
            raise invalid("update_mask", problem, reason="INVALID_UPDATE_MASK")
        paths[path] = None
    return tuple(path for path in paths if not any(path.startswith(f"{other}.") for other in paths))


def _path_problem(descriptor: Descriptor, path: str, allowed: Collection[str] | None) -> str | None:
    shown = path if len(path) <= 100 and path.isascii() and path.isprintable() else "(a malformed path)"
    at: Descriptor | None = descriptor
    for name in path.split("."):
        field = at.fields_by_name.get(name) if at is not None else None
        if field is None:
            known = ", ".join(sorted(allowed if allowed is not None else _updatable(descriptor)))
            return f'unknown path "{shown}"; known: {known}'
        rule = rule_of(field)
        if rule.output_only:
            return f'"{shown}" is set by the server and cannot be updated'
        if rule.immutable:
            return f'"{shown}" never changes once it is given and cannot be updated'
        if name == _ETAG:
            return f'"{shown}" is compared, not updated; leave it out of the mask'
        at = None if field.is_repeated else field.message_type
    if allowed is not None and path not in allowed:
        return f'"{shown}" cannot be updated by this method; updatable: {", ".join(sorted(allowed))}'
    return None


def _updatable(descriptor: Descriptor) -> Iterator[str]:
    for field in descriptor.fields:
        rule = rule_of(field)
        if not rule.output_only and not rule.immutable and field.name != _ETAG:
            yield field.name


def _field_check(field: FieldDescriptor, rule: options.FieldRule, *, is_name: bool) -> Check | None:
    if is_map(field):
        value = map_fields(field)[1].message_type
        return map_check(field, rule, _message_check(value) if value is not None else None)
    item: Check | None
    if field.message_type is not None:
        item = None if rule.each_by_itself else _message_check(field.message_type)
    else:
        item = scalar_check(field, rule, resource_name_problem if is_name and not rule.format else None)
    return repeated_check(rule, item) if field.is_repeated else item


def _field_steps(field: FieldDescriptor, rule: options.FieldRule) -> Steps | None:
    """Returns the check of a field as steps; None if it is done in one piece."""
    held = field.message_type
    if held is None or is_map(field) or rule.each_by_itself or held.full_name in _WELL_KNOWN:
        return None
    item = compile_rules(held)
    if not field.is_repeated:
        return lambda message, path, violations: item.steps(message, path + ".", violations)
    check_number = repeated_check(rule, None)

    def steps(values: Any, path: str, violations: list[Violation]) -> Iterator[None]:
        before = len(violations)
        check_number(values, path, violations)
        if len(violations) > before:
            return
        for index, value in enumerate(values):
            yield from item.steps(value, f"{path}[{index}].", violations)
            if len(violations) >= MOST_VIOLATIONS:
                return

    return steps


def _message_check(descriptor: Descriptor) -> Check:
    return _WELL_KNOWN.get(descriptor.full_name) or compile_rules(descriptor).check_nested


def _resource_name_fields(descriptor: Descriptor) -> Iterator[str]:
    """Yields the fields of a request by which its methods find the resource and the namespace."""
    for service in _services_beside(descriptor):
        for method in service.methods:
            if method.input_type.full_name != descriptor.full_name:
                continue
            rule = method.GetOptions().Extensions[options.method]
            if rule.access != options.ACCESS_PUBLIC:
                yield from (
                    path for path in (rule.namespace_field, rule.name_field) if path and "." not in path
                )


def _services_beside(descriptor: Descriptor) -> Iterator[ServiceDescriptor]:
    """Yields the services of the file or, if it has none, that of the noun that imports it.

    That is the service of `pilothouse.<noun>.v1`.
    """
    file = descriptor.file
    if file.services_by_name:
        yield from file.services_by_name.values()
        return
    noun = file.package.split(".")[-2:-1]
    try:
        yield file.pool.FindServiceByName(f"{file.package}.{''.join(noun).capitalize()}Service")
    except KeyError:
        return


def _is_present(message: Any, name: str) -> bool:
    """Returns whether a field with presence is given; an empty message is not.

    Together with an `update_mask` an empty resource has a meaning: it clears the fields that the mask names.
    """
    if not message.HasField(name):
        return False
    value = getattr(message, name)
    if not isinstance(value, Message) or value.ByteSize() > 0:
        return True
    return not isinstance(value, FieldMask) and "update_mask" in descriptor_of(message).fields_by_name


def _refusal(violations: list[Violation]) -> InvalidArgument:
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return InvalidArgument(
        f"{first.field}: {first.description}{more}",
        reason=REQUIRED if all(each.rule == REQUIRED.lower() for each in violations) else "INVALID_FIELD",
        metadata={"field": first.field},
        violations=violations,
    )
