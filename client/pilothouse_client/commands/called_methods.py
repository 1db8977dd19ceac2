"""The names that people use for RPCs: a verb and a noun, as in `delete container`.

Each RPC declares an action and a resource type for the audit log (`pilothouse.options.v1`). These words name it here,
and so do the commands' words if they differ. A new RPC therefore needs no line in this module.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules

import pilothouse
from pilothouse.options.v1 import options_pb2 as options
from pilothouse_client.commands.failures import CommandError

_WRONG_COMMAND_LINE = 2
# The commands' words for resources -> the audit log's words, if they differ.
_RESOURCES = {
    "config": "config_map",
    "grant": "role_grant",
    "key": "api_key",
    "sink": "audit_sink",
    "audit": "operation",
    "history": "status_history",
}
_VERBS = {"remove": "delete", "rm": "delete", "show": "get", "ls": "list", "log": "logs"}
# Verbs on resource types -> the audit log's words for these actions.
_ACTIONS = {
    ("create", "role_grant"): "grant",
    ("delete", "role_grant"): "revoke",
    ("create", "cluster"): "register",
    ("delete", "cluster"): "deregister",
    ("delete", "session"): "revoke",
    ("delete", "api_key"): "revoke",
}


@dataclass(frozen=True, slots=True)
class CalledMethod:
    """An RPC. `in_namespace`: its request may name a namespace; `needs_namespace`: the request must name one.

    `by_name`: the request's name is that of the resource itself.
    """

    full_name: str
    name: str
    permission: str
    action: str
    resource_type: str
    in_namespace: bool
    needs_namespace: bool
    by_name: bool


def find(verb: str, noun: str) -> CalledMethod:
    """Returns the RPC for a `verb` on a `noun`, such as `delete` on a `container`.

    Raises:
        CommandError: there is none; the text names similar ones.
    """
    methods = _methods()
    types = {each.resource_type for each in methods}
    resources = _resources(noun, types)
    if not resources:
        raise _unknown("thing", noun, {*(each.replace("_", "-") for each in types), *_RESOURCES})
    word = verb.lower()
    word = _VERBS.get(word, word)
    wanted = {(_ACTIONS.get((word, each), word), each) for each in resources}
    found = [each for each in methods if (each.action, each.resource_type) in wanted]
    if not found:
        known = {each.action for each in methods if each.resource_type in resources}
        raise CommandError(f"no {verb!r} of {noun!r}; known: {', '.join(sorted(known))}", _WRONG_COMMAND_LINE)
    # Of several RPCs, the one with that name is chosen, else one that needs a permission.
    plain = {f"{action}{resource}".replace("_", "") for action, resource in wanted}
    return min(
        found,
        key=lambda each: (each.name.lower().removesuffix("s") not in plain, not each.permission, each.name),
    )


def _resources(noun: str, types: set[str]) -> list[str]:
    """Returns the types that a noun may mean: `config` means a config map, but is also the type of watches."""
    word = noun.lower().replace("-", "_")
    meant = [word, word.removesuffix("s")]
    meant += [_RESOURCES[each] for each in meant if each in _RESOURCES]
    return [each for each in dict.fromkeys(meant) if each in types]


def _unknown(what: str, word: str, known: set[str]) -> CommandError:
    near = difflib.get_close_matches(word[:64], sorted(known), n=3)
    meant = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(sorted(known))}"
    return CommandError(f"unknown {what} {word!r}; {meant}", _WRONG_COMMAND_LINE)


def _methods() -> list[CalledMethod]:
    return [
        _called(method)
        for noun in sorted(each.name for each in iter_modules(pilothouse.__path__))
        for service in import_module(f"pilothouse.{noun}.v1.{noun}_pb2").DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def _called(method: object) -> CalledMethod:
    from google.protobuf.descriptor import MethodDescriptor

    assert isinstance(method, MethodDescriptor)
    rule = method.GetOptions().Extensions[options.method]
    return CalledMethod(
        method.full_name,
        method.name,
        rule.permission,
        rule.action,
        rule.resource_type,
        bool(rule.namespace_field),
        rule.scope == options.SCOPE_NAMESPACE,
        rule.resource_type == "namespace" and rule.namespace_field == "name",
    )
