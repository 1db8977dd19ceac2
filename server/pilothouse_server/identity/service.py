"""IdentityService: request → operation → response."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.errors import invalid
from pilothouse_server.identity import key_messages, messages
from pilothouse_server.identity.model import Role, RoleGrant, User
from pilothouse_server.identity.operations import api_keys, grants, permissions, roles, sessions, users
from pilothouse_server.identity.operations.account_credentials import SessionsAndKeys
from pilothouse_server.identity.operations.challenges import Challenged
from pilothouse_server.identity.operations.login import Attempt, Logins
from pilothouse_server.identity.origins import origin_of
from pilothouse_server.identity.password_policy import NewPasswords
from pilothouse_server.identity.permission_words import PermissionWords
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.store.unit_of_work import Actor

_USERS = ListAnswer(pb.ListUsersResponse, "users")
_ROLES = ListAnswer(pb.ListRolesResponse, "roles")
_ROLE_GRANTS = ListAnswer(pb.ListRoleGrantsResponse, "role_grants")
_SESSIONS = ListAnswer(pb.ListSessionsResponse, "sessions")
_CREDENTIALS = SessionsAndKeys()


class IdentityService:
    """Serves `pilothouse.identity.v1.IdentityService`. `words` are the permissions that there are."""

    DESCRIPTOR = pb.DESCRIPTOR.services_by_name["IdentityService"]

    def __init__(
        self,
        logins: Logins,
        new_passwords: NewPasswords,
        page_key: bytes,
        words: PermissionWords,
        ruled_roles: Mapping[str, str],
    ) -> None:
        self._logins = logins
        self._new_passwords = new_passwords
        self._page_key = page_key
        self._words = words
        self._ruled_roles = ruled_roles

    async def Login(self, request: pb.LoginRequest, call: Call) -> pb.LoginResponse:
        """Exchanges a user name and a password for tokens."""
        attempt = Attempt(request.username, request.password, request.device_token)

        def named(name: str) -> None:
            call.describe(resource_name=name)

        begun = await self._logins.log_in(attempt, origin_of(call), named)
        if isinstance(begun, Challenged):
            call.describe(challenged=True)
            return messages.challenged(begun)
        call.act_as(Actor(begun.user.id, begun.user.username))
        return messages.login(begun)

    async def RefreshSession(
        self, request: pb.RefreshSessionRequest, call: Call
    ) -> pb.RefreshSessionResponse:
        """Exchanges a refresh token for new tokens."""
        issued = await self._logins.renew(request.refresh_token, call.act_as)
        return messages.REFRESHED.to_proto(issued)

    async def Logout(self, _request: pb.LogoutRequest, call: Call) -> pb.LogoutResponse:
        """Ends the session in use."""
        call.describe(resource_name=str(call.caller.session_id or ""))
        await sessions.log_out(await call.transaction(), call.caller)
        return pb.LogoutResponse()

    async def WhoAmI(self, _request: pb.WhoAmIRequest, call: Call) -> pb.WhoAmIResponse:
        """Returns the caller."""
        async with call.read(snapshot=True) as transaction:
            user = await users.own(transaction, call.caller)
            held = await grants.of_caller(transaction, call.caller)
            key = await api_keys.own(transaction, call.caller)
        _describe_user(call, user)
        return pb.WhoAmIResponse(
            user=messages.USER.to_proto(user),
            grants=[messages.ROLE_GRANT.to_proto(grant) for grant in held],
            permissions=permissions.held_everywhere(call.caller, self._words.known, self._words.reading),
            api_key=None if key is None else key_messages.API_KEY.to_proto(key),
            certificate=messages.certificate(call.caller.credential),
        )

    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, call: Call
    ) -> pb.ChangePasswordResponse:
        """Changes the caller's own password."""
        call.describe(resource_id=call.user_id, resource_name=call.caller.username)
        users.check_new_password(request.current_password, request.new_password)
        username = call.caller.username
        await self._new_passwords.check("new_password", request.new_password, username)
        confirmed = await self._logins.confirm(username, request.current_password, origin_of(call))
        password_hash = await self._new_passwords.hash_checked(request.new_password, _hasher(call))
        valid_keys = await users.change_own_password(
            await call.transaction(),
            call.caller,
            confirmed,
            password_hash,
            _CREDENTIALS,
            revoke_keys=request.revoke_keys,
        )
        return pb.ChangePasswordResponse(valid_api_keys=valid_keys)

    @waits_outside
    async def CreateUser(self, request: pb.CreateUserRequest, call: Call) -> pb.CreateUserResponse:
        """Creates a user; no connection is held while the password is hashed."""
        wanted = messages.USER.from_proto(request.user)
        users.check_new_user(wanted)
        password_hash = await self._new_passwords.hash(
            "password", request.password, wanted.username, _hasher(call)
        )
        created = await users.create(await call.transaction(), wanted, password_hash)
        _describe_user(call, created)
        return pb.CreateUserResponse(user=messages.USER.to_proto(created))

    async def GetUser(self, request: pb.GetUserRequest, call: Call) -> pb.GetUserResponse:
        """Returns one user."""
        async with call.read() as transaction:
            found = await users.locate(transaction, request.username)
        _describe_user(call, found)
        return pb.GetUserResponse(user=messages.USER.to_proto(found))

    async def ListUsers(self, _request: pb.ListUsersRequest, call: Call) -> bytes:
        """Lists users."""
        async with call.read() as transaction:
            found, next_page = await users.list_page(transaction, wire.page_request(call, self._page_key))
        return await _USERS.rendered(found, messages.USER.to_proto, next_page)

    async def UpdateUser(self, request: pb.UpdateUserRequest, call: Call) -> pb.UpdateUserResponse:
        """Changes a user."""
        paths = check_update_mask(pb.User, request.update_mask, messages.USER.updatable)
        if "status" in paths and not request.user.status:
            raise invalid("user.status", "must be given, because update_mask names it", reason="REQUIRED")
        changed = await users.change(
            await call.transaction(),
            call.caller,
            request.username,
            messages.USER.from_proto(request.user),
            paths,
            call.noting(wire.etag_check(request.etag or request.user.etag), messages.USER.to_proto),
            _CREDENTIALS,
        )
        _describe_user(call, changed)
        return pb.UpdateUserResponse(user=messages.USER.to_proto(changed))

    async def DeleteUser(self, request: pb.DeleteUserRequest, call: Call) -> pb.DeleteUserResponse:
        """Deletes a user."""
        check = wire.etag_check(request.etag)
        deleted = await users.delete(
            await call.transaction(), call.caller, request.username, check, _CREDENTIALS
        )
        _describe_user(call, deleted)
        return pb.DeleteUserResponse()

    @waits_outside
    async def ResetPassword(self, request: pb.ResetPasswordRequest, call: Call) -> pb.ResetPasswordResponse:
        """Sets another user's password, or a one-time code; no connection is held while it is hashed."""
        users.check_reset_request(request.new_password, one_time_code=request.one_time_code)
        async with call.read() as transaction:
            await users.check_reset(transaction, call.caller, request.username)
        reset = await self._new_passwords.for_reset(request.new_password, request.username, _hasher(call))
        changed = await users.reset_password(
            await call.transaction(),
            call.caller,
            request.username,
            reset.password_hash,
            _CREDENTIALS,
            reset.good_for,
            revoke_keys=request.revoke_keys,
        )
        _describe_user(call, changed.user)
        return messages.reset_password(reset.one_time_code, changed)

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
        """Takes a grant back."""
        revoked = await grants.revoke(
            await call.transaction(), request.username, request.role, request.namespace, users.locate
        )
        _describe_grant(call, revoked)
        return pb.RevokeRoleResponse()

    async def ListRoleGrants(self, request: pb.ListRoleGrantsRequest, call: Call) -> bytes:
        """Lists grants."""
        page = wire.page_request(call, self._page_key, request.namespace)
        async with call.read() as transaction:
            found, next_page = await grants.list_page(
                transaction, call.caller, call.rule.permission, request.namespace, page
            )
        return await _ROLE_GRANTS.rendered(found, messages.ROLE_GRANT.to_proto, next_page)

    async def ListSessions(self, request: pb.ListSessionsRequest, call: Call) -> bytes:
        """Lists the caller's own sessions, or another user's."""
        page = wire.page_request(call, self._page_key, request.username)
        async with call.read() as transaction:
            found, next_page = await sessions.list_page(transaction, call.caller, request.username, page)
        current = call.caller.session_id
        return await _SESSIONS.rendered(found, lambda item: messages.session(item, current), next_page)

    async def RevokeSession(self, request: pb.RevokeSessionRequest, call: Call) -> pb.RevokeSessionResponse:
        """Ends one of the caller's own sessions, or one of another user's."""
        await sessions.revoke(
            await call.transaction(), call.caller, request.username, UUID(request.session_id)
        )
        return pb.RevokeSessionResponse()


def _hasher(call: Call) -> str:
    return f"user {call.user_id}"


def _describe_user(call: Call, user: User) -> None:
    call.describe(resource_id=user.id, resource_uid=user.uid, resource_name=user.username)


def _describe_role(call: Call, role: Role) -> None:
    call.describe(resource_id=role.id, resource_uid=role.uid)


def _describe_grant(call: Call, grant: RoleGrant) -> None:
    call.describe(resource_id=grant.id, namespace_id=grant.namespace_id, role=grant.role)
