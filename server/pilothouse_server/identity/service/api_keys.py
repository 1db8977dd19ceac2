"""API keys and service accounts: request → operation → response."""

from __future__ import annotations

from uuid import UUID

from pilothouse.identity.v1 import api_keys_pb2 as pb
from pilothouse_server.errors import invalid
from pilothouse_server.identity.accounts.operations import service_accounts
from pilothouse_server.identity.credentials.operations import api_keys
from pilothouse_server.identity.credentials.operations.account_credentials import SessionsAndKeys
from pilothouse_server.identity.credentials.operations.api_keys import ApiKeys, WantedKey
from pilothouse_server.identity.credentials.operations.reauthentication import check_recent_proof
from pilothouse_server.identity.model import ApiKey, MadeKey, ServiceAccount
from pilothouse_server.identity.service import messages
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.rpc.encoding import ListAnswer

_KEYS = ListAnswer(pb.ListApiKeysResponse, "api_keys")
_ACCOUNTS = ListAnswer(pb.ListServiceAccountsResponse, "service_accounts")


class ApiKeysService:
    """Serves the methods of `pilothouse.identity.v1.IdentityService` about keys and service accounts.

    The permissions of a service account are read as the system role before the change, because the caller may not see
    all of them.
    """

    def __init__(self, keys: ApiKeys, page_key: bytes) -> None:
        self._keys = keys
        self._page_key = page_key

    @waits_outside
    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, call: Call) -> pb.CreateApiKeyResponse:
        """Makes a key."""
        async with call.store.system_read() as looking:
            await check_recent_proof(looking, call.caller)
            owner = await api_keys.owner_of(looking, call.caller, request.service_account)
        wanted = WantedKey(
            name=request.name,
            permissions=tuple(request.permissions),
            namespaces=tuple(request.namespaces),
            read_only=request.read_only,
            networks=tuple(request.allowed_networks),
            expires_at=wire.moment(request.expire_time) if request.HasField("expire_time") else None,
        )
        made = await self._keys.make(await call.transaction(), call.caller, owner, wanted)
        _describe_key(call, made.api_key)
        return pb.CreateApiKeyResponse(
            api_key=messages.API_KEY.to_proto(made.api_key), key=_key_for_caller(call, made)
        )

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, call: Call) -> bytes:
        """Lists keys."""
        everybody = request.all_users
        page = wire.page_request(call, self._page_key, request.username, str(everybody))
        async with call.read() as transaction:
            found, next_page = await api_keys.list_page(
                transaction, call.caller, request.username, page, everybody=everybody
            )
        return await _KEYS.rendered(found, messages.API_KEY.to_proto, next_page)

    @waits_outside
    async def RotateApiKey(self, request: pb.RotateApiKeyRequest, call: Call) -> pb.RotateApiKeyResponse:
        """Makes a key that replaces another."""
        async with call.store.system_read() as looking:
            await check_recent_proof(looking, call.caller)
            found, owner = await api_keys.locate(
                looking, call.caller, UUID(request.api_key_id), service_accounts.MAKING
            )
        made = await self._keys.rotate(
            await call.transaction(),
            call.caller,
            found,
            owner,
            request.overlap.ToTimedelta(),
            wire.moment(request.expire_time) if request.HasField("expire_time") else None,
        )
        _describe_key(call, made.api_key)
        return pb.RotateApiKeyResponse(
            api_key=messages.API_KEY.to_proto(made.api_key), key=_key_for_caller(call, made)
        )

    @waits_outside
    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, call: Call) -> pb.RevokeApiKeyResponse:
        """Revokes a key."""
        uid = UUID(request.api_key_id)
        api_keys.check_may_end(call.caller, uid)
        async with call.store.system_read() as looking:
            found, _ = await api_keys.locate(
                looking, call.caller, uid, service_accounts.ENDING, api_keys.CHANGING_OTHERS
            )
        await api_keys.revoke(await call.transaction(), found)
        _describe_key(call, found)
        return pb.RevokeApiKeyResponse()

    async def CreateServiceAccount(
        self, request: pb.CreateServiceAccountRequest, call: Call
    ) -> pb.CreateServiceAccountResponse:
        """Makes a service account."""
        named = request.service_account.namespace
        if named not in ("", request.namespace):
            # Otherwise a caller that sets only this field would create an account of the platform.
            raise invalid(
                "service_account.namespace",
                "must be empty or equal to `namespace` of the request",
                reason="OTHER_NAMESPACE",
            )
        created = await service_accounts.create(
            await call.transaction(),
            request.namespace,
            request.service_account.name,
            request.service_account.description,
        )
        _describe_account(call, created)
        return pb.CreateServiceAccountResponse(service_account=messages.SERVICE_ACCOUNT.to_proto(created))

    async def ListServiceAccounts(self, request: pb.ListServiceAccountsRequest, call: Call) -> bytes:
        """Lists service accounts."""
        page = wire.page_request(call, self._page_key, request.namespace)
        async with call.read() as transaction:
            found, next_page = await service_accounts.list_page(
                transaction, request.namespace, call.visible_namespaces(), page
            )
        return await _ACCOUNTS.rendered(found, messages.SERVICE_ACCOUNT.to_proto, next_page)

    async def DeleteServiceAccount(
        self, request: pb.DeleteServiceAccountRequest, call: Call
    ) -> pb.DeleteServiceAccountResponse:
        """Deletes a service account."""
        deleted = await service_accounts.delete(
            await call.transaction(), request.namespace, request.name, SessionsAndKeys()
        )
        _describe_account(call, deleted)
        return pb.DeleteServiceAccountResponse()


def _key_for_caller(call: Call, made: MadeKey) -> str:
    """Returns the key's text for the caller; '' for a dry run."""
    return "" if call.validate_only else made.key


def _describe_key(call: Call, key: ApiKey) -> None:
    call.describe(
        resource_id=key.id,
        resource_uid=key.uid,
        resource_name=key.name,
        namespace_id=key.account_namespace_id,
        owner=key.username,
    )


def _describe_account(call: Call, account: ServiceAccount) -> None:
    call.describe(
        resource_id=account.id,
        resource_uid=account.uid,
        resource_name=account.username,
        namespace_id=account.namespace_id,
    )
