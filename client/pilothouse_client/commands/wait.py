"""`pilothouse wait NOUN NAME … --for=…`: watches until resources are in a state.

A state counts only once the cluster has the newest generation, so that a wait right after a change does not end with
the state before the change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Annotated, Any

from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import WAIT_FAILED, CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.name_completion import complete_any, complete_kind
from pilothouse_client.commands.options import Namespace, namespace_or_default
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.commands.values import enum_label, enum_words

_WRONG_COMMAND_LINE, _NOT_FOUND = 2, 6
_DELETED, _CREATED = "deleted", "created"
# kubectl's words -> this command's words.
_AS_KUBECTL = {"delete": _DELETED, "create": _CREATED}


@dataclass(frozen=True, slots=True)
class WaitedState:
    """The state to wait for: of a condition, a status, or whether the resource exists."""

    kind: str
    name: str = ""
    value: str = ""

    def is_met(self, resource: Any) -> bool:
        """Returns whether an existing resource is in this state."""
        if self.kind == _CREATED:
            return True
        if self.kind == _DELETED or not _is_applied(resource):
            return False
        if self.kind == "status":
            return enum_label(resource, "status").lower() == self.value
        return any(
            each.type.lower() == self.name.lower() and enum_label(each, "status").lower() == self.value
            for each in getattr(resource, "conditions", ())
        )


def _is_applied(resource: Any) -> bool:
    # An application has no observed generation: its status is always that of its newest revision.
    return "observed_generation" not in resource.DESCRIPTOR.fields_by_name or bool(
        resource.observed_generation >= resource.generation
    )


def wish_of(text: str) -> WaitedState:
    """Returns the state that `--for` names; raises CommandError for another form."""
    text = _AS_KUBECTL.get(text, text)
    kind, equals, rest = text.partition("=")
    if text in (_DELETED, _CREATED):
        return WaitedState(text)
    if kind == "condition" and rest:
        name, _, value = rest.partition("=")
        return WaitedState("condition", name, value.lower() or "true")
    if kind == "status" and rest:
        return WaitedState("status", value=rest.lower().replace("-", "_"))
    if text and not equals:
        return WaitedState("status", value=text.lower().replace("-", "_"))
    raise CommandError(
        f"--for takes status=STATUS, condition=TYPE, condition=TYPE=false, created or deleted, not {text!r}",
        _WRONG_COMMAND_LINE,
    )


# Opens the watch of one resource, by client, namespace (if the noun has one) and name.
Watches = Callable[[Any, str, str], Any]
_WATCHES: dict[str, Watches] = {
    "applications": lambda client, where, name: client.applications.watch(namespace=where, name=name),
    "containers": lambda client, where, name: client.containers.watch(namespace=where, name=name),
    "services": lambda client, where, name: client.network.watch_services(namespace=where, name=name),
    "volumes": lambda client, where, name: client.storage.watch_volumes(namespace=where, name=name),
    "configs": lambda client, where, name: client.config.watch_configs(namespace=where, name=name),
    "secrets": lambda client, where, name: client.config.watch_configs(namespace=where, name=name),
    "namespaces": lambda client, _where, name: client.namespaces.watch(name=name),
}
# The field of a change that contains the resource, if the watch has changes of two kinds.
_PARTS = {"configs": "config_map", "secrets": "secret"}


def wait(
    noun: Annotated[
        str,
        verbs.Argument(
            help="Such as container, application, service, ingress.",
            metavar="NOUN",
            complete=lambda context, text: [
                *(each.removesuffix("s") for each in _WATCHES),
                *complete_kind(context, text),
            ],
        ),
    ],
    names: Annotated[list[str], verbs.Argument(help="Names.", metavar="NAME...", complete=complete_any)],
    wished: Annotated[
        str,
        verbs.Option(
            "--for",
            metavar="STATE",
            help="status=running, condition=RolledOut, condition=Drifted=false, created or deleted.",
        ),
    ],
    namespace: Namespace = "",
    timeout: Annotated[
        float, verbs.Option("--wait-timeout", min=0.1, help="Seconds to wait for all of them.")
    ] = 300.0,
) -> None:
    """Wait until resources are in a state; exits with 10 if they are not in time."""
    wish = wish_of(wished)
    word = noun.lower()
    found = next((each for each in (word, f"{word}s", verbs.SYNONYMS.get(word)) if each in _WATCHES), None)
    watches = _WATCHES[found] if found is not None else _of_objects(noun)
    where = "" if found == "namespaces" else namespace_or_default(namespace)
    end = monotonic() + timeout
    with connect() as client:
        for name in names:
            left = max(0.1, end - monotonic())
            label = f"{(found or word).removesuffix('s')}/{name}"
            with watches(client.with_options(timeout=left), where, name) as watch:
                _follow(watch, wish, _PARTS.get(found or "", ""), label, (wished, timeout))
            say(f"{label}: {wished}")


def _of_objects(noun: str) -> Watches:
    from pilothouse_client.commands.object_kinds import kind_of

    try:
        version, kind = kind_of(noun)
    except CommandError as error:
        known = ", ".join(_WATCHES)
        raise CommandError(
            f"cannot wait for {noun!r}: give one of {known}, or the KIND of an object", _WRONG_COMMAND_LINE
        ) from error
    return lambda client, where, name: client.objects.watch(
        namespace=where, name=name, api_version=version, kind=kind
    )


def _follow(watch: Any, wish: WaitedState, part: str, label: str, given: tuple[str, float]) -> None:
    """Waits until the resource is in the state.

    Raises CommandError if it cannot be, or is not in time."""
    from pilothouse_client.errors import DeadlineExceededError
    from pilothouse_client.streams import ChangeKind

    last: Any = None
    try:
        for change in watch:
            if change.kind is ChangeKind.RESTARTED:
                last = None
            elif change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED):
                resource = _part(change.resource, part)
                if resource is not None:
                    last = None if change.kind is ChangeKind.DELETED else resource
            if last is not None:
                if wish.is_met(last):
                    return
                _check_word(wish, last, given[0])
            elif change.resume_token and _without(wish, label):
                return
    except DeadlineExceededError:
        detail = "" if last is None else f": it is {_state(last)}{_conditions(wish, last)}"
        raise CommandError(f"{label} is not {given[0]} after {given[1]:g} s{detail}", WAIT_FAILED) from None
    raise CommandError(f"{label}: the watch was closed", WAIT_FAILED)


def _part(resource: Any, part: str) -> Any:
    if not part:
        return resource
    return getattr(resource, part) if resource.HasField(part) else None


def _without(wish: WaitedState, label: str) -> bool:
    """Returns whether the state is met by a missing resource.

    Raises CommandError if it never will be."""
    if wish.kind in (_CREATED, _DELETED):
        return wish.kind == _DELETED
    raise CommandError(f"there is no {label}", _NOT_FOUND)


def _check_word(wish: WaitedState, resource: Any, given: str) -> None:
    """Raises CommandError for a status that the resource cannot have."""
    if wish.kind != "status":
        return
    field = resource.DESCRIPTOR.fields_by_name.get("status")
    known = {} if field is None else enum_words(field.enum_type)
    if wish.value not in known:
        states = f"one of {', '.join(known)}" if known else "a condition, because the resource has no status"
        raise CommandError(f"--for {given}: give {states}", _WRONG_COMMAND_LINE)


def _conditions(wish: WaitedState, resource: Any) -> str:
    """Returns a text with the conditions of a resource, because the wait may name a condition that it lacks."""
    if wish.kind != "condition":
        return ""
    found = [
        f"{each.type}={enum_label(each, 'status').lower()}" for each in getattr(resource, "conditions", ())
    ]
    return f"; its conditions: {', '.join(found) or 'none'}"


def _state(resource: Any) -> str:
    words = [enum_label(resource, "status").lower() if "status" in resource.DESCRIPTOR.fields_by_name else ""]
    words += [getattr(resource, "reason", ""), getattr(resource, "message", "")]
    if not _is_applied(resource):
        words.append("not applied to the cluster yet")
    return plain(" ".join(filter(None, words))) or "there"
