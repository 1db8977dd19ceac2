"""The calls of IdentityService about roles and grants: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.access.operations import grants, roles
from pilothouse_server.identity.access.operations.scope import scope_of
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.accounts.operations import users
from pilothouse_server.identity.model import Role, RoleGrant
from pilothouse_server.identity.service import messages
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.store.paging import every_page
from pilothouse_server.store.unit_of_work import Kind, ReadTransaction

_ROLES = ListAnswer(pb.ListRolesResponse, "roles")
_ROLE_GRANTS = ListAnswer(pb.ListRoleGrantsResponse, "role_grants")


class RoleService:
    """Serves the methods about roles and grants.

    `words` are all existing permissions; `ruled_roles` are the roles in issuers' rules, each with such an issuer.
    """

    def __init__(
        self, page_key: bytes, words: PermissionWords, ruled_roles: Mapping[str, str], watches: WatchServer
    ) -> None:
        self._page_key = page_key
        self._listed = WatchedList(watches, WATCH)
        self._words = words
        self._ruled_roles = ruled_roles

    async def CreateRole(self, request: pb.CreateRoleRequest, call: Call) -> pb.CreateRoleResponse:
        """Creates a role."""
        wanted = messages.ROLE.from_proto(request.role)
        created = await roles.create(await call.transaction(), call.caller, wanted, self._words)
        _describe_role(call, created)
        return pb.CreateRoleResponse(role=messages.ROLE.to_proto(created))

    async def GetRole(self, request: pb.GetRoleRequest, call: Call) -> pb.GetRoleResponse:
        """Returns one role."""
        async with call.read() as transaction:
            found = await roles.locate(transaction, request.name)
        _describe_role(call, found)
        return pb.GetRoleResponse(role=messages.ROLE.to_proto(found))

    async def ListRoles(self, _request: pb.ListRolesRequest, call: Call) -> bytes:
        """Lists roles."""
        async with call.read() as transaction:
            found, next_page = await roles.list_page(transaction, wire.page_request(call, self._page_key))
        return await _ROLES.rendered(found, messages.ROLE.to_proto, next_page)

    async def UpdateRole(self, request: pb.UpdateRoleRequest, call: Call) -> pb.UpdateRoleResponse:
        """Changes a role."""
        paths = check_update_mask(pb.Role, request.update_mask, messages.ROLE.updatable)
        changed = await roles.change(
            await call.transaction(),
            call.caller,
            request.name,
            messages.ROLE.from_proto(request.role),
            paths,
            call.noting(wire.etag_check(request.etag or request.role.etag), messages.ROLE.to_proto),
            self._words,
        )
        _describe_role(call, changed)
        return pb.UpdateRoleResponse(role=messages.ROLE.to_proto(changed))

    async def DeleteRole(self, request: pb.DeleteRoleRequest, call: Call) -> pb.DeleteRoleResponse:
        """Deletes a role."""
        check, transaction = wire.etag_check(request.etag), await call.transaction()
        _describe_role(call, await roles.delete(transaction, request.name, check, self._ruled_roles))
        return pb.DeleteRoleResponse()

    async def GrantRole(self, request: pb.GrantRoleRequest, call: Call) -> pb.GrantRoleResponse:
        """Grants a role."""
        granted = await grants.grant(
            await call.transaction(),
            call.caller,
            request.username,
            request.role,
            request.namespace,
            wire.moment(request.expire_time) if request.HasField("expire_time") else None,
            users.locate,
        )
        _describe_grant(call, granted)
        return pb.GrantRoleResponse(grant=messages.ROLE_GRANT.to_proto(granted))

    async def RevokeRole(self, request: pb.RevokeRoleRequest, call: Call) -> pb.RevokeRoleResponse:
        """Revokes a grant."""
        revoked = await grants.revoke(
            await call.transaction(), request.username, request.role, request.namespace, users.locate
        )
        _describe_grant(call, revoked)
        return pb.RevokeRoleResponse()

    async def ListRoleGrants(self, request: pb.ListRoleGrantsRequest, call: Call) -> bytes:
        """Lists grants."""
        mask = read_mask.of_request(request, pb.RoleGrant)
        page = wire.page_request(call, self._page_key, request.namespace)
        listed = self._listed.begin()
        async with call.read() as transaction:
            namespace_id = await scope_of(transaction, request.namespace)
            visible = call.visible_namespaces() if namespace_id is None else frozenset({namespace_id})
            found, next_page = await grants.list_in(transaction, page, visible)
            token = await listed.token(call, transaction, namespace_id)
        return await _ROLE_GRANTS.rendered(found, messages.ROLE_GRANT.to_proto, next_page, token, mask)


async def _resources(
    transaction: ReadTransaction, wanted: WatchFilter, _call: Call
) -> AsyncIterator[pb.RoleGrant]:
    visible = wanted.visible if wanted.namespace_id is None else frozenset({wanted.namespace_id})
    async for grant in every_page(lambda page: grants.list_in(transaction, page, visible)):
        if wanted.name in ("", grant.username):
            yield messages.ROLE_GRANT.to_proto(grant)


async def _reload(
    transaction: ReadTransaction, event: FeedEvent, _wanted: WatchFilter, _call: Call
) -> list[tuple[Kind, pb.RoleGrant]]:
    role = event.labels["role"]
    found = None
    if event.kind != "deleted":
        found = await grants.find_named(transaction, event.name, role, event.namespace_id)
    if found is None:
        gone = pb.RoleGrant(username=event.name, role=role, namespace=event.labels["namespace"])
        return [("deleted", gone)]
    return [("added" if event.kind == "added" else "modified", messages.ROLE_GRANT.to_proto(found))]


WATCH = NounWatch.listed(
    Watched(
        "grant", _resources, message=pb.RoleGrant, reload=_reload, permanent=frozenset({"username", "role"})
    ),
    messages.SERVICE,
    "ListRoleGrants",
)


def _describe_role(call: Call, role: Role) -> None:
    call.describe(resource_id=role.id, resource_uid=role.uid)


def _describe_grant(call: Call, grant: RoleGrant) -> None:
    call.describe(resource_id=grant.id, namespace_id=grant.namespace_id, role=grant.role)
