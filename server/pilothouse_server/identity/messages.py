"""Users, roles, grants and sessions: value ↔ protobuf; what differs between the two."""

from __future__ import annotations

from uuid import UUID

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.model import IssuedTokens, Role, RoleGrant, Session, User
from pilothouse_server.rpc.converter import AnswerConverter, Converter, Differences


def _session_id(value: Session) -> str:
    return str(value.id)


USER: Converter[User, pb.User] = Converter(User, pb.User, Differences(struct_only=("id",)))
ROLE: Converter[Role, pb.Role] = Converter(Role, pb.Role, Differences(struct_only=("id",)))
ROLE_GRANT = AnswerConverter(
    RoleGrant,
    pb.RoleGrant,
    Differences(names={"create_time": "assigned_at"}, struct_only=("id", "user_id", "namespace_id")),
)
_SESSION = AnswerConverter(
    Session,
    pb.Session,
    Differences(
        names={"expire_time": "refresh_expires_at"},
        computed={"session_id": _session_id},
        struct_only=("id", "user_id"),
        message_only=("current",),
    ),
)
_LOGIN = AnswerConverter(IssuedTokens, pb.LoginResponse, Differences(message_only=("user", "device_token")))
REFRESHED = AnswerConverter(IssuedTokens, pb.RefreshSessionResponse)


def login(user: User, issued: IssuedTokens, device_token: str) -> pb.LoginResponse:
    """Returns the answer to a log-in."""
    message = _LOGIN.to_proto(issued)
    message.device_token = device_token
    USER.fill(user, message.user)
    return message


def session(value: Session, current: UUID | None) -> pb.Session:
    """Returns a session as protobuf; `current` is the id of the one that the call uses."""
    message = _SESSION.to_proto(value)
    message.current = value.id == current
    return message
