"""The calls of IdentityService about users: request → operation → response."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.errors import invalid
from pilothouse_server.identity.accounts.operations import users
from pilothouse_server.identity.credentials.operations.account_credentials import SessionsAndKeys
from pilothouse_server.identity.credentials.password_policy import NewPasswords
from pilothouse_server.identity.model import User
from pilothouse_server.identity.service import messages
from pilothouse_server.rpc import read_mask, wire
from pilothouse_server.rpc.call import Call, waits_outside
from pilothouse_server.rpc.encoding import ListAnswer
from pilothouse_server.rpc.validation import check_update_mask
from pilothouse_server.rpc.watched import NounWatch, Watched, WatchFilter, WatchServer
from pilothouse_server.rpc.watched_lists import WatchedList
from pilothouse_server.store.feed import FeedEvent
from pilothouse_server.store.paging import every_page
from pilothouse_server.store.unit_of_work import Kind, ReadTransaction

_USERS = ListAnswer(pb.ListUsersResponse, "users")
_CREDENTIALS = SessionsAndKeys()


class UserService:
    """Serves the methods about users."""

    def __init__(self, new_passwords: NewPasswords, page_key: bytes, watches: WatchServer) -> None:
        self._new_passwords = new_passwords
        self._page_key = page_key
        self._listed = WatchedList(watches, WATCH)

    @waits_outside
    async def CreateUser(self, request: pb.CreateUserRequest, call: Call) -> pb.CreateUserResponse:
        """Creates a user. No database connection is held while the password is hashed."""
        wanted = messages.USER.from_proto(request.user)
        users.check_new_user(wanted)
        password_hash = await self._new_passwords.hash(
            "password", request.password, wanted.username, hasher_of(call)
        )
        created = await users.create(await call.transaction(), wanted, password_hash)
        describe_user(call, created)
        return pb.CreateUserResponse(user=messages.USER.to_proto(created))

    async def GetUser(self, request: pb.GetUserRequest, call: Call) -> pb.GetUserResponse:
        """Returns one user."""
        async with call.read() as transaction:
            found = await users.locate(transaction, request.username)
        describe_user(call, found)
        return pb.GetUserResponse(user=messages.USER.to_proto(found))

    async def ListUsers(self, request: pb.ListUsersRequest, call: Call) -> bytes:
        """Lists users."""
        mask = read_mask.of_request(request, pb.User)
        listed = self._listed.begin()
        async with call.read() as transaction:
            found, next_page = await users.list_page(transaction, wire.page_request(call, self._page_key))
            token = await listed.token(call, transaction)
        return await _USERS.rendered(found, messages.USER.to_proto, next_page, token, mask)

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
        describe_user(call, changed)
        return pb.UpdateUserResponse(user=messages.USER.to_proto(changed))

    async def DeleteUser(self, request: pb.DeleteUserRequest, call: Call) -> pb.DeleteUserResponse:
        """Deletes a user."""
        check = wire.etag_check(request.etag)
        deleted = await users.delete(
            await call.transaction(), call.caller, request.username, check, _CREDENTIALS
        )
        describe_user(call, deleted)
        return pb.DeleteUserResponse()

    @waits_outside
    async def ResetPassword(self, request: pb.ResetPasswordRequest, call: Call) -> pb.ResetPasswordResponse:
        """Sets another user's password, or a one-time code.

        No database connection is held while it is hashed.
        """
        users.check_reset_request(request.new_password, one_time_code=request.one_time_code)
        async with call.read() as transaction:
            await users.check_reset(transaction, call.caller, request.username)
        reset = await self._new_passwords.for_reset(request.new_password, request.username, hasher_of(call))
        changed = await users.reset_password(
            await call.transaction(),
            call.caller,
            request.username,
            reset.password_hash,
            _CREDENTIALS,
            reset.good_for,
            revoke_keys=request.revoke_keys,
        )
        describe_user(call, changed.user)
        return messages.reset_password(reset.one_time_code, changed)


async def _resources(
    transaction: ReadTransaction, wanted: WatchFilter, _call: Call
) -> AsyncIterator[pb.User]:
    async for user in every_page(lambda page: users.list_page(transaction, page)):
        if wanted.name in ("", user.username):
            yield messages.USER.to_proto(user)


async def _reload(
    transaction: ReadTransaction, event: FeedEvent, _wanted: WatchFilter, _call: Call
) -> list[tuple[Kind, pb.User]]:
    found = await users.find_person(transaction, event.labels["uid"]) if event.kind != "deleted" else None
    if found is None:
        return [("deleted", pb.User(username=event.name, uid=event.labels["uid"]))]
    return [("added" if event.kind == "added" else "modified", messages.USER.to_proto(found))]


WATCH = NounWatch.listed(
    Watched("user", _resources, message=pb.User, reload=_reload, permanent=frozenset({"username"})),
    messages.SERVICE,
    "ListUsers",
)


def hasher_of(call: Call) -> str:
    """Returns the key under which a call waits in the queue for a password hash."""
    return f"user {call.user_id}"


def describe_user(call: Call, user: User) -> None:
    """Names the user in the audit record."""
    call.describe(resource_id=user.id, resource_uid=user.uid, resource_name=user.username)
