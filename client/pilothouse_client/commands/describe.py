"""`pilothouse describe NOUN NAME …`, and `describe` of each noun: all about a resource on one page, for people.

The page ends with the last calls that changed the resource, from the audit log, if the caller may read it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse_client.commands import verbs
from pilothouse_client.commands.access_description import (
    describe_access,
    describe_api_key,
    describe_grants,
    describe_service_account,
    not_found,
)
from pilothouse_client.commands.description import (
    APART,
    Description,
    describe_conditions,
    describe_events,
    describe_message,
    describe_state,
    if_permitted,
    shortened,
    yaml_lines,
)
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.name_completion import complete_any, complete_kind, complete_noun
from pilothouse_client.commands.options import Namespace, namespace_or_default
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.values import age, enum_label, quoted

if TYPE_CHECKING:
    from pilothouse_client import Client

_WRONG_COMMAND_LINE = 2
_MOST_CHANGES, _MOST_REVISIONS, _MOST_PODS = 3, 5, 1000
# Actions that change nothing; the list of last changes omits them.
_READING = ("get", "list", "watch", "logs", "exec", "query", "reveal")
DOES = "Show details: desired and observed state, conditions, events, changes."
_Names = Annotated[list[str], verbs.Argument(help="Names.", metavar="NAME...", complete=complete_any)]


@dataclass(frozen=True, slots=True)
class _Noun:
    """A noun that `describe` can show.

    `describe` adds the page of a resource by its namespace (for keys: their user) and its name. It returns the uid by
    which the audit log identifies the resource; None: by name. `resource_type`: the audit log's word for the noun."""

    describe: Callable[[Client, Description, str, str], str | None]
    resource_type: str
    in_namespace: bool = True


def _container(client: Client, page: Description, namespace: str, name: str) -> None:
    from pilothouse.container.v1 import container_pb2 as pb
    from pilothouse_client.commands.container_description import describe_container
    from pilothouse_client.commands.container_revisions import summary

    answer = client.containers.get.send(
        pb.GetContainerRequest(namespace=namespace, name=name, include_events=True)
    )
    pods = list(islice(client.containers.list_pods(namespace=namespace, name=name), _MOST_PODS))
    describe_container(page, answer.container, pods)
    describe_events(page, answer)
    _describe_revisions(
        page,
        client.containers.list_revisions(namespace=namespace, name=name, page_size=_MOST_REVISIONS),
        lambda revision: summary(revision) or "the first",
    )


def _describe_revisions(page: Description, revisions: Iterable[Any], words: Callable[[Any], str]) -> None:
    page.block(
        "Revisions",
        (
            (1, f"{each.number:<4} {age(each.create_time):<5} {each.created_by}  {words(each)}".rstrip())
            for each in islice(revisions, _MOST_REVISIONS)
        ),
    )


def _application(client: Client, page: Description, namespace: str, name: str) -> None:
    found = client.applications.get(namespace=namespace, name=name)
    _plain(page, found, "members")
    lines: list[tuple[int, str]] = []
    for each in found.members:
        changed = f", changed by {each.modified_by or 'another call'}" if each.modified else ""
        state = enum_label(each, "status").lower()
        lines.append((1, f"{each.kind:<24} {each.name}  {state} {each.reason}".rstrip() + changed))
        if each.message:
            lines.append((3, each.message))
    page.block("Objects", lines)
    _describe_revisions(
        page,
        client.applications.list_revisions(namespace=namespace, name=name, page_size=_MOST_REVISIONS),
        lambda revision: f"rollback to {revision.origin}" if revision.origin else "",
    )


def _service(client: Client, page: Description, namespace: str, name: str) -> None:
    _plain(page, client.network.get_service(namespace=namespace, name=name))


def _volume(client: Client, page: Description, namespace: str, name: str) -> None:
    from pilothouse.storage.v1 import storage_pb2 as pb

    answer = client.storage.get_volume.send(
        pb.GetVolumeRequest(namespace=namespace, name=name, include_events=True)
    )
    _plain(page, answer.volume)
    describe_events(page, answer)


def _config_map(client: Client, page: Description, namespace: str, name: str) -> None:
    _plain(page, client.config.get_config_map(namespace=namespace, name=name))


def _secret(client: Client, page: Description, namespace: str, name: str) -> None:
    found = client.config.get_secret(namespace=namespace, name=name)
    _plain(page, found, "key_sizes")
    page.field("Keys", [f"{key}: {size} bytes" for key, size in sorted(found.key_sizes.items())])


def _namespace(client: Client, page: Description, _namespace: str, name: str) -> None:
    _plain(page, client.namespaces.get(name=name))
    with if_permitted():
        usage = client.namespaces.get_quota_usage(name=name)
        describe_message(page, usage)


def _cluster(client: Client, page: Description, _namespace: str, name: str) -> None:
    _plain(page, client.namespaces.get_cluster(name=name))


def _user(client: Client, page: Description, _namespace: str, name: str) -> None:
    _plain(page, client.identity.get_user(username=name))
    describe_access(client, page, name)


def _role(client: Client, page: Description, _namespace: str, name: str) -> None:
    role = client.identity.get_role(name=name)
    _plain(page, role, "permissions", "excluded_permissions")
    page.field("Permissions", ", ".join(role.permissions))
    page.field("But not", ", ".join(role.excluded_permissions))


def _image(client: Client, page: Description, _namespace: str, name: str) -> None:
    _plain(page, client.containers.get_image(image=name))


def _audit_sink(client: Client, page: Description, _namespace: str, name: str) -> str:
    listed = client.audit.list_audit_sinks(filter=f"name = {quoted(name)}")
    found = next(iter(listed), None)
    if found is None:
        raise not_found(f"there is no audit sink {name!r}")
    _plain(page, found)
    return str(found.uid)


def _plain(page: Description, message: Any, *apart: str) -> None:
    """Adds the fields of a resource's message, without any code for its noun."""
    for field in ("name", "namespace"):
        page.field(field.capitalize(), getattr(message, field, ""))
    describe_state(page, message)
    describe_message(page, message, apart)
    describe_conditions(page, getattr(message, "conditions", ()))


NOUNS = {
    "containers": _Noun(_container, "container"),
    "applications": _Noun(_application, "application"),
    "services": _Noun(_service, "service"),
    "volumes": _Noun(_volume, "volume"),
    "configs": _Noun(_config_map, "config_map"),
    "secrets": _Noun(_secret, "secret"),
    "namespaces": _Noun(_namespace, "namespace", in_namespace=False),
    "clusters": _Noun(_cluster, "cluster", in_namespace=False),
    "images": _Noun(_image, "image", in_namespace=False),
    "users": _Noun(_user, "user", in_namespace=False),
    "roles": _Noun(_role, "role", in_namespace=False),
    "grants": _Noun(describe_grants, "role_grant", in_namespace=False),
    "api-keys": _Noun(describe_api_key, "api_key", in_namespace=False),
    "service-accounts": _Noun(describe_service_account, "service_account", in_namespace=False),
    "audit-sinks": _Noun(_audit_sink, "audit_sink", in_namespace=False),
}


def describe(
    noun: Annotated[
        str,
        verbs.Argument(
            help="Such as container, service, volume, ingress.", metavar="NOUN", complete=complete_noun
        ),
    ],
    names: _Names,
    namespace: Namespace = "",
) -> None:
    """Show details of resources: desired and observed state, conditions, events, changes."""
    word = noun.lower()
    found = next((each for each in (word, f"{word}s", verbs.SYNONYMS.get(word)) if each in NOUNS), None)
    if found is None:
        from pilothouse_client.commands.object_kinds import kind_of

        try:
            kind_of(noun)
        except CommandError as error:
            known = ", ".join(NOUNS)
            raise CommandError(
                f"there is no noun {noun!r}: give one of {known}, or the KIND of an object",
                _WRONG_COMMAND_LINE,
            ) from error
        describe_objects(noun, names, namespace)
    else:
        # Only `api-keys describe` has an option for the user.
        describe_each(found, names, "" if found == "api-keys" else namespace)


def of(noun: str) -> Callable[..., None]:
    """Returns the verb `describe` of a noun."""

    def command(names: _Names, namespace: Namespace = "") -> None:
        describe_each(noun, names, namespace)

    def without_namespace(names: _Names) -> None:
        describe_each(noun, names, "")

    chosen = command if NOUNS[noun].in_namespace else without_namespace
    chosen.__doc__ = DOES
    return chosen


def describe_each(noun: str, names: list[str], where: str) -> None:
    """Writes the page of each resource.

    `where`: the namespace if one is given; for keys, their user."""
    chosen = NOUNS[noun]
    if chosen.in_namespace:
        where = namespace_or_default(where)
    with connect() as client:
        for number, name in enumerate(names):
            page = Description()
            uid = chosen.describe(client, page, where, name)
            namespace = where if chosen.in_namespace else ""
            _describe_changes(client, page, chosen.resource_type, namespace, name, uid)
            _write(page, number)


def describe_objects(
    kind: Annotated[
        str,
        verbs.Argument(
            help="Kind, such as ingress or postgresql.cnpg.io/v1/Cluster.",
            metavar="KIND",
            complete=complete_kind,
        ),
    ],
    names: _Names,
    namespace: Namespace = "",
) -> None:
    """Show details of objects: desired and observed state, conditions, events, changes."""
    from pilothouse.object.v1 import object_pb2 as pb
    from pilothouse_client.commands.object_kinds import kind_of

    api_version, of_kind = kind_of(kind)
    where = namespace_or_default(namespace)
    with connect() as client:
        for number, name in enumerate(names):
            answer = client.objects.get.send(
                pb.GetObjectRequest(
                    namespace=where, api_version=api_version, kind=of_kind, name=name, include_events=True
                )
            )
            page = Description()
            _plain(page, answer.object)
            page.block("Document", yaml_lines(answer.object.document))
            page.block("Observed status", yaml_lines(answer.object.observed_status))
            describe_events(page, answer)
            _describe_changes(client, page, "object", where, name)
            _write(page, number)


def _write(page: Description, number: int) -> None:
    if number:
        say()
    page.write()


def _describe_changes(
    client: Client, page: Description, resource_type: str, namespace: str, name: str, uid: str | None = None
) -> None:
    """Adds the newest calls that changed a resource, which its uid identifies, else its name."""
    which = f"resource_uid = {quoted(uid)}" if uid else f"resource_name = {quoted(name)}"
    chosen = [f"resource_type = {quoted(resource_type)}", which]
    chosen += ["result = SUCCESS", "validate_only = false", *(f"action != {word}" for word in _READING)]
    with if_permitted():
        found = client.audit.list_operations(
            namespace=namespace, filter=" AND ".join(chosen), page_size=_MOST_CHANGES
        )
        lines: list[tuple[int, str]] = []
        for each in islice(found, _MOST_CHANGES):
            lines.append(
                (1, f"{age(each.start_time):<5} {each.username or '-'}  {each.action}  {each.operation_id}")
            )
            lines += [
                (3, f"{change.path} {_value(change.before)} -> {_value(change.after)}")
                for change in each.changes
                if change.path not in APART
            ]
        page.block("Changed by", lines)


def _value(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if value is None:
        return "none"
    return shortened(value if isinstance(value, str) else json.dumps(value))
