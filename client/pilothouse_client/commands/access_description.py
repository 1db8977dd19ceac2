"""The pages of `describe` about access: the grants of a user, API keys, service accounts.

The API has no call that returns one of these resources. Each list accepts a filter by every field, and returns the same
messages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pilothouse_client.commands.description import (
    Description,
    describe_message,
    describe_state,
    if_permitted,
    when,
)
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.options import namespace_or_default
from pilothouse_client.commands.values import quoted

if TYPE_CHECKING:
    from pilothouse_client import Client

_WRONG_COMMAND_LINE, _NOT_FOUND = 2, 6
_ACCOUNT = "sa:"


def not_found(words: str) -> CommandError:
    """Returns the error for a resource that no list contains for this caller."""
    return CommandError(words, _NOT_FOUND, "NOT_FOUND")


def describe_grants(client: Client, page: Description, _where: str, username: str) -> None:
    """Adds the grants of a user or a service account to the page, each with its permissions."""
    grants = list(client.identity.list_role_grants(filter=f"username = {quoted(username)}"))
    if not grants:
        raise not_found(f"user {username!r} has no grant that you may see")
    page.field("Username", username)
    page.field("Grants", len(grants))
    roles: dict[str, Any] = {}
    for grant in grants:
        if grant.role not in roles:
            with if_permitted():
                roles[grant.role] = client.identity.get_role(name=grant.role)
        by = grant.assigned_by or (grant.source and f"rules of {grant.source}")
        lines = [
            f"granted {when(grant.create_time)}{f' by {by}' if by else ''}",
            f"expires {when(grant.expire_time) or 'never'}",
        ]
        if role := roles.get(grant.role):
            lines.append(f"allows {', '.join(role.permissions)}")
            if role.excluded_permissions:
                lines.append(f"but not {', '.join(role.excluded_permissions)}")
        page.block(f"{grant.role} {_place(grant)}", ((1, line) for line in lines))


def _place(grant: Any) -> str:
    return f"in namespace {grant.namespace}" if grant.namespace else "in every namespace"


def describe_service_account(client: Client, page: Description, namespace: str, name: str) -> str:
    """Adds a service account, by its name in the namespace or by its user name.

    Returns its uid."""
    username = name if name.startswith(_ACCOUNT) else f"{_ACCOUNT}{namespace_or_default(namespace)}:{name}"
    listed = client.identity.list_service_accounts(filter=f"username = {quoted(username)}")
    account = next(iter(listed), None)
    if account is None:
        raise not_found(f"there is no service account {username!r} that you may see")
    page.field("Name", account.name)
    page.field("Namespace", account.namespace or "none: it belongs to the platform")
    describe_state(page, account)
    describe_message(page, account)
    describe_access(client, page, username)
    return str(account.uid)


def describe_access(client: Client, page: Description, username: str) -> None:
    """Adds the grants and the keys of a user or a service account that the caller may see."""
    with if_permitted():
        grants = client.identity.list_role_grants(filter=f"username = {quoted(username)}")
        page.field("Grants", [f"{each.role} {_place(each)}{_until(each)}" for each in grants])
    with if_permitted():
        keys = client.identity.list_api_keys(username=username)
        page.field("API keys", [f"{each.name} {each.prefix}…{_until(each)}" for each in keys])


def _until(found: Any) -> str:
    return f", ends {when(found.expire_time)}" if found.HasField("expire_time") else ""


def key_of(client: Client, key: str, user: str, narrowed: str = "") -> Any:
    """Returns a valid key by its id or its name; an empty `user` means the caller.

    Raises CommandError unless exactly one key has that id or name."""
    field = "api_key_id" if is_id(key) else "name"
    wanted = f"{field} = {quoted(key)}" + (f" AND {narrowed}" if narrowed else "")
    found = list(client.identity.list_api_keys(username=user, filter=wanted))
    if len(found) == 1:
        return found[0]
    if not found:
        remedy = "" if user else "; `pilothouse api-keys list --user NAME` lists another user's"
        raise not_found(f"{user or 'you'} {'has' if user else 'have'} no valid key {key!r}{remedy}")
    lines = [f"{each.api_key_id}: {each.prefix}…, created {when(each.create_time)}" for each in found]
    words = f"{len(found)} valid keys are called {key!r}: name one by its id"
    raise CommandError(words, _WRONG_COMMAND_LINE, lines=lines)


def is_id(key: str) -> bool:
    """Returns whether a key is named by its id."""
    try:
        UUID(key)
    except ValueError:
        return False
    return True


def describe_api_key(client: Client, page: Description, user: str, name: str) -> str:
    """Adds a key with its limits, its expiry and its last use; returns its id."""
    key = key_of(client, name, user)
    page.field("Name", key.name)
    page.field("Id", key.api_key_id)
    page.field("Key", f"{key.prefix}…")
    page.field("Username", key.username)
    page.field("Created", when(key.create_time) + (f" by {key.created_by}" if key.created_by else ""))
    page.field("Expires", when(key.expire_time))
    if key.HasField("rotate_time"):
        page.field("Replaced", when(key.rotate_time))
    address = f" from {key.last_use_address}" if key.last_use_address else ""
    page.field("Last used", when(key.last_use_time) + address or "never")
    page.field("Permissions", _or_all(key.permissions, "all of its user"))
    hidden = key.hidden_namespaces
    namespaces = [*key.namespaces, *([f"and {hidden} that you may not see"] if hidden else [])]
    page.field("Namespaces", _or_all(namespaces, "all of its user"))
    page.field("Networks", _or_all(key.allowed_networks, "all"))
    page.field("Read-only", "yes: it cannot change or reveal anything" if key.read_only else "no")
    return str(key.api_key_id)


def _or_all(values: Iterable[str], words: str) -> str:
    return ", ".join(values) or words
