"""The rules of service accounts.

An administrator of a namespace creates service accounts there, and they end with the namespace. A new account has no
permissions. Users who hold a role can grant it to the account as to any user. An account has no password, so nobody can
log in as one: programs use its API keys, or exchange a token of an issuer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from pilothouse_server.authorization.access import Principal
from pilothouse_server.errors import PermissionDenied, ResourceExhausted, invalid, missing, not_found
from pilothouse_server.identity.access.operations.explanations import SEEING_SERVICE_ACCOUNTS
from pilothouse_server.identity.access.operations.scope import scope_of
from pilothouse_server.identity.access.repository import grants
from pilothouse_server.identity.accounts.operations.users import AccountCredentials
from pilothouse_server.identity.accounts.repository import service_accounts, users
from pilothouse_server.identity.model import ServiceAccount
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.names import LONGEST_USERNAME, service_account_username

# The permissions that are needed in the namespace of a service account to make, to see and to revoke its keys.
MAKING: Final = "service_account.create"
SEEING: Final = SEEING_SERVICE_ACCOUNTS
ENDING: Final = "service_account.delete"
MOST_ACCOUNTS: Final = 500


async def locate(
    transaction: ReadTransaction, caller: Principal, username: str, permission: str
) -> ServiceAccount:
    """Returns the service account of this user name if the caller holds `permission` in its namespace.

    Raises:
        NotFound: the account does not exist, or the caller may not see its namespace.
        PermissionDenied: the caller lacks the permission there; for an account of the platform, over all namespaces.
    """
    found = await service_accounts.find(transaction, username)
    if found is None or (found.namespace and not caller.reaches(found.namespace)):
        raise not_found("service account", username)
    if not caller.allows(permission, found.namespace or None):
        where = f' in namespace "{found.namespace}"' if found.namespace else " over all namespaces"
        raise PermissionDenied(
            f"permission {permission} is needed{where}",
            reason="PERMISSION_DENIED",
            metadata={
                "permission": permission,
                **({"namespace": found.namespace} if found.namespace else {}),
            },
        )
    return found


async def create(transaction: Transaction, namespace: str, name: str, description: str) -> ServiceAccount:
    """Creates a service account in a namespace, or of the platform if that is empty.

    Raises:
        InvalidArgument: no name, or one that is too long together with its namespace.
        NotFound: the namespace.
        AlreadyExists: the name.
        ResourceExhausted: TOO_MANY_SERVICE_ACCOUNTS.
    """
    if not name:
        raise missing("service_account.name")
    username = service_account_username(namespace, name)
    if len(username) > LONGEST_USERNAME:
        raise invalid(
            "service_account.name",
            f"is too long: {username.partition(':')[0]}:<namespace>:<name> has at most {LONGEST_USERNAME} characters",
            reason="TOO_LONG",
        )
    namespace_id = await scope_of(transaction, namespace)
    if not await service_accounts.lock_scope(transaction, namespace_id):
        raise not_found("namespace", namespace)
    if await service_accounts.find(transaction, username) is not None:
        raise service_accounts.taken(username)
    if await service_accounts.count(transaction, namespace_id) >= MOST_ACCOUNTS:
        raise ResourceExhausted(
            f"a namespace, or the platform, has at most {MOST_ACCOUNTS} service accounts: delete one first",
            reason="TOO_MANY_SERVICE_ACCOUNTS",
            metadata={"limit": str(MOST_ACCOUNTS)},
        )
    return await service_accounts.insert_account(transaction, namespace, namespace_id, name, description)


async def delete(
    transaction: Transaction, namespace: str, name: str, credentials: AccountCredentials
) -> ServiceAccount:
    """Deletes a service account with its keys, sessions and grants.

    Its row stays for the audit log.

    Raises:
        NotFound: the namespace or the service account.
    """
    await scope_of(transaction, namespace)
    username = service_account_username(namespace, name)
    found = await service_accounts.find(transaction, username, lock=True)
    if found is None:
        raise not_found("service account", username)
    await credentials.end_api_keys(transaction, found.id)
    await credentials.end_sessions(transaction, found.id)
    await grants.delete_of_user(transaction, found.id)
    await users.end_user(transaction, found.id)
    await grants.notify_changed(transaction)
    return found


async def end_in_namespace(transaction: Transaction, namespace_id: int) -> None:
    """Deletes every service account of a namespace, with its grants."""
    await service_accounts.end_of_namespace(transaction, namespace_id)


async def list_page(
    transaction: ReadTransaction, namespace: str, visible: Collection[int] | None, page: PageRequest
) -> tuple[Sequence[ServiceAccount], NextPage]:
    """Returns one page of service accounts, and where the next page begins.

    The accounts are those of the namespace; if that is empty, those in the namespaces `visible`, None for all accounts.

    Raises:
        NotFound: the namespace.
    """
    namespace_id = await scope_of(transaction, namespace)
    return await service_accounts.list_accounts(
        transaction, page, visible if namespace_id is None else {namespace_id}
    )
