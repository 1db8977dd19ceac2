"""The calls of IdentityService about log-in, sessions and the caller: request → operation → response."""

from __future__ import annotations

from uuid import UUID

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.access.operations import grants, permissions
from pilothouse_server.identity.access.permission_words import PermissionWords
from pilothouse_server.identity.accounts.operations import users
from pilothouse_server.identity.credentials.operations import api_keys, sessions
from pilothouse_server.identity.credentials.operations.account_credentials import SessionsAndKeys
from pilothouse_server.identity.credentials.operations.challenges import Challenged
from pilothouse_server.identity.credentials.operations.login import LoginAttempt, Logins
from pilothouse_server.identity.credentials.password_policy import NewPasswords
from pilothouse_server.identity.service import messages
from pilothouse_server.identity.service.messages import origin_of
from pilothouse_server.identity.service.users import describe_user, hasher_of
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.store.unit_of_work import Actor

_SESSIONS = ListAnswer(pb.ListSessionsResponse, "sessions")


class SessionService:
    """Serves the methods about log-in, sessions and the caller.

    `words`: all permissions that exist.
    """

    def __init__(
        self, logins: Logins, new_passwords: NewPasswords, page_key: bytes, words: PermissionWords
    ) -> None:
        self._logins = logins
        self._new_passwords = new_passwords
        self._page_key = page_key
        self._words = words

    async def Login(self, request: pb.LoginRequest, call: Call) -> pb.LoginResponse:
        """Exchanges a user name and a password for tokens."""
        attempt = LoginAttempt(request.username, request.password, request.device_token)

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

    async def WhoAmI(self, request: pb.WhoAmIRequest, call: Call) -> pb.WhoAmIResponse:
        """Returns the caller."""
        async with call.read(snapshot=True) as transaction:
            user = await users.own(transaction, call.caller)
            held = await grants.of_caller(transaction, call.caller)
            key = await api_keys.own(transaction, call.caller)
            there = await permissions.held_in(transaction, call.caller, self._words, request.namespace)
        describe_user(call, user)
        return pb.WhoAmIResponse(
            user=messages.USER.to_proto(user),
            grants=[messages.ROLE_GRANT.to_proto(grant) for grant in held],
            permissions=permissions.held_everywhere(call.caller, self._words.known, self._words.reading),
            api_key=None if key is None else messages.API_KEY.to_proto(key),
            certificate=messages.certificate(call.caller.credential),
            namespace_permissions=there,
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
        password_hash = await self._new_passwords.hash_checked(request.new_password, hasher_of(call))
        valid_keys = await users.change_own_password(
            await call.transaction(),
            call.caller,
            confirmed,
            password_hash,
            SessionsAndKeys(),
            revoke_keys=request.revoke_keys,
        )
        return pb.ChangePasswordResponse(valid_api_keys=valid_keys)

    async def ListSessions(self, request: pb.ListSessionsRequest, call: Call) -> bytes:
        """Lists the caller's own sessions, or another user's."""
        page = wire.page_request(call, self._page_key, request.username)
        async with call.read() as transaction:
            found, next_page = await sessions.list_page(transaction, call.caller, request.username, page)
        current = call.caller.session_id
        return await _SESSIONS.rendered(found, lambda item: messages.session(item, current), next_page)

    async def RevokeSession(self, request: pb.RevokeSessionRequest, call: Call) -> pb.RevokeSessionResponse:
        """Ends one of the caller's own sessions, or a session of another user."""
        await sessions.revoke(
            await call.transaction(), call.caller, request.username, UUID(request.session_id)
        )
        return pb.RevokeSessionResponse()
