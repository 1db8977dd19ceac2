"""Completion of names from the server, for the namespace and the context on the line.

A completion never fails: without a server, a session or a permission there are no names. It waits for at most a second,
and reads no more names than a shell shows. If a list has a read mask, it reads only the names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from pilothouse_client.commands.failures import CommandError

if TYPE_CHECKING:
    import click

    from pilothouse_client.commands.verbs import Complete

_SECONDS = 1.0
# A shell shows no more.
_MOST = 500
# Returns the names, from a client, a namespace and the other values on the line.
_Names = Callable[[Any, str, Mapping[str, Any]], Iterable[object]]


def _names(names_of: _Names) -> Complete:
    def complete(context: click.Context, _incomplete: str) -> list[str]:
        from contextlib import suppress

        from pilothouse_client.commands.invocation import (
            connect,
            current,
            default_namespace,
            invocation_of,
        )
        from pilothouse_client.config_file import ConfigError
        from pilothouse_client.errors import PilothouseError
        from pilothouse_client.retry import RetryPolicy

        names: list[str] = []
        with suppress(CommandError, ConfigError, PilothouseError):
            current.set(invocation_of(context))
            namespace = context.params.get("namespace") or default_namespace()
            with connect(RetryPolicy(attempts=1)) as client:
                found = names_of(client.with_options(timeout=_SECONDS), namespace, _given(context))
                names = [str(each) for each in islice(found, _MOST)]
        # Names that are already on the line are not completed again.
        given = context.params.get("names") or ()
        return [each for each in names if each not in given]

    return complete


def _given(context: click.Context) -> dict[str, Any]:
    """Returns the values on the line, by parameter.

    click does not assign arguments while the value of an option is missing: then the first argument is the name."""
    known = {name: value for name, value in context.params.items() if value}
    return {"name": next(iter(context.args), ""), **known}


def _only_names() -> Any:
    from google.protobuf.field_mask_pb2 import FieldMask

    return FieldMask(paths=["name"])


def _kind_on(given: Mapping[str, Any]) -> tuple[str, str]:
    from pilothouse_client.commands.object_kinds import kind_of

    return kind_of(given.get("kind") or given.get("noun") or "")


def _objects(client: Any, namespace: str, given: Mapping[str, Any]) -> Iterable[str]:
    """Yields the objects of the kind on the line."""
    version, kind = _kind_on(given)
    wanted = f'kind = "{kind}" AND api_version = "{version}"'
    found = client.objects.list(namespace=namespace, filter=wanted, read_mask=_only_names())
    return (each.name for each in found)


# The noun in the plural -> its names.
_OF_NOUNS: dict[str, _Names] = {
    "containers": lambda client, where, _: (
        each.name for each in client.containers.list(namespace=where, read_mask=_only_names())
    ),
    "services": lambda client, where, _: (
        each.name for each in client.network.list_services(namespace=where, read_mask=_only_names())
    ),
    "volumes": lambda client, where, _: (
        each.name for each in client.storage.list_volumes(namespace=where, read_mask=_only_names())
    ),
    "configs": lambda client, where, _: (
        each.name for each in client.config.list_config_maps(namespace=where)
    ),
    "secrets": lambda client, where, _: (each.name for each in client.config.list_secrets(namespace=where)),
    "applications": lambda client, where, _: (
        each.name for each in client.applications.list(namespace=where)
    ),
    "namespaces": lambda client, _where, _: (
        each.name for each in client.namespaces.list(read_mask=_only_names())
    ),
    "clusters": lambda client, _where, _: (each.name for each in client.namespaces.list_clusters()),
    "roles": lambda client, _where, _: (each.name for each in client.identity.list_roles()),
    "users": lambda client, _where, _: (each.username for each in client.identity.list_users()),
    "images": lambda client, _where, _: (each.image for each in client.containers.list_images()),
    "grants": lambda client, _where, _: dict.fromkeys(
        each.username for each in client.identity.list_role_grants()
    ),
    "api-keys": lambda client, _where, given: (
        each.name for each in client.identity.list_api_keys(username=given.get("user") or "")
    ),
    "service-accounts": lambda client, where, _: (
        each.name for each in client.identity.list_service_accounts(namespace=where)
    ),
    "audit-sinks": lambda client, _where, _: (each.name for each in client.audit.list_audit_sinks()),
}


def _of_noun(client: Any, namespace: str, given: Mapping[str, Any]) -> Iterable[object]:
    """Yields the names of the noun, or of the kind of objects, on the line."""
    from pilothouse_client.commands.verbs import SYNONYMS

    word = (given.get("noun") or "").lower()
    found = next((each for each in (word, f"{word}s", SYNONYMS.get(word)) if each in _OF_NOUNS), None)
    return (_objects if found is None else _OF_NOUNS[found])(client, namespace, given)


def complete_noun(_context: click.Context, _incomplete: str) -> list[str]:
    """Completes the noun of `describe`, or a kind of objects."""
    return [*(each.removesuffix("s") for each in _OF_NOUNS), *complete_kind(_context, _incomplete)]


def complete_kind(_context: click.Context, _incomplete: str) -> list[str]:
    """Completes a kind of objects."""
    from pilothouse_manifests.carried import CARRIED

    return sorted({kind.lower() for _, kind in CARRIED})


complete_object, complete_any = _names(_objects), _names(_of_noun)
complete_container, complete_service, complete_volume = (
    _names(_OF_NOUNS[noun]) for noun in ("containers", "services", "volumes")
)
complete_config, complete_secret, complete_application = (
    _names(_OF_NOUNS[noun]) for noun in ("configs", "secrets", "applications")
)
complete_namespace, complete_cluster, complete_image = (
    _names(_OF_NOUNS[noun]) for noun in ("namespaces", "clusters", "images")
)
complete_role, complete_user = (_names(_OF_NOUNS[noun]) for noun in ("roles", "users"))
complete_sink, complete_api_key, complete_service_account = (
    _names(_OF_NOUNS[noun]) for noun in ("audit-sinks", "api-keys", "service-accounts")
)
complete_session = _names(
    lambda client, _where, given: (
        each.session_id for each in client.identity.list_sessions(username=given.get("user") or "")
    )
)
complete_container_revision = _names(
    lambda client, where, given: (
        each.number for each in client.containers.list_revisions(namespace=where, name=given["name"])
    )
)
complete_application_revision = _names(
    lambda client, where, given: (
        each.number for each in client.applications.list_revisions(namespace=where, name=given["name"])
    )
)
