"""Users, roles, grants and sessions: value ↔ protobuf."""

from __future__ import annotations

from uuid import UUID

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.identity.model import (
    Role,
    RoleGrant,
    RoleId,
    Session,
    User,
    UserId,
    UserStatus,
)
from pilothouse_server.rpc import wire
from pilothouse_server.rpc.converter import etag

_STATUS = {
    "active": pb.USER_STATUS_ACTIVE,
    "inactive": pb.USER_STATUS_INACTIVE,
    "locked": pb.USER_STATUS_LOCKED,
}
STATUS_OF: dict[int, UserStatus] = {
    pb.USER_STATUS_ACTIVE: "active",
    pb.USER_STATUS_INACTIVE: "inactive",
    pb.USER_STATUS_LOCKED: "locked",
}


def user(value: User) -> pb.User:
    """A user as protobuf."""
    return pb.User(
        username=value.username,
        email=value.email,
        full_name=value.full_name,
        avatar_url=value.avatar_url,
        status=_STATUS[value.status],
        last_login_time=wire.timestamp(value.last_login_at),
        uid=value.uid,
        create_time=wire.timestamp(value.created_at),
        update_time=wire.timestamp(value.updated_at),
        created_by=value.created_by,
        etag=etag(value.uid, value.resource_version),
    )


def wanted_user(message: pb.User) -> User:
    """What a caller asks for; what only the server sets is left at its default."""
    return User(
        id=UserId(0),
        uid="",
        username=message.username,
        email=message.email,
        full_name=message.full_name,
        avatar_url=message.avatar_url,
        status=STATUS_OF.get(message.status, "active"),
    )


def role(value: Role) -> pb.Role:
    """A role as protobuf."""
    return pb.Role(
        name=value.name,
        display_name=value.display_name,
        description=value.description,
        permissions=value.permissions,
        is_system=value.is_system,
        uid=value.uid,
        create_time=wire.timestamp(value.created_at),
        update_time=wire.timestamp(value.updated_at),
        etag=etag(value.uid, value.resource_version),
        excluded_permissions=value.excluded_permissions,
    )


def wanted_role(message: pb.Role) -> Role:
    """What a caller asks for; what only the server sets is left at its default."""
    return Role(
        id=RoleId(0),
        uid="",
        name=message.name,
        display_name=message.display_name,
        description=message.description,
        permissions=tuple(message.permissions),
    )


def role_grant(value: RoleGrant) -> pb.RoleGrant:
    """A grant as protobuf."""
    return pb.RoleGrant(
        username=value.username,
        role=value.role,
        namespace=value.namespace,
        expire_time=wire.timestamp(value.expires_at),
        create_time=wire.timestamp(value.assigned_at),
        assigned_by=value.assigned_by,
    )


def session(value: Session, current: UUID | None) -> pb.Session:
    """A session as protobuf; `current` is the id of the one that the call uses."""
    return pb.Session(
        session_id=str(value.id),
        create_time=wire.timestamp(value.created_at),
        last_used_time=wire.timestamp(value.last_used_at),
        expire_time=wire.timestamp(value.refresh_expires_at),
        client_ip=value.client_ip,
        user_agent=value.user_agent,
        current=value.id == current,
    )
