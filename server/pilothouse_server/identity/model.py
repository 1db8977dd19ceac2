"""The values of users, roles, grants and sessions, independent of how they are stored or sent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, NewType
from uuid import UUID

import msgspec

from pilothouse_server.authorization.access import KeyNamespace

UserId = NewType("UserId", int)
RoleId = NewType("RoleId", int)

UserStatus = Literal["active", "inactive", "locked"]
# How a session began: the credential of the user or of the program.
SessionMethod = Literal["password", "password_totp", "password_recovery", "oidc", "token_exchange"]

# A session has pairs of tokens, which are refreshed, or the one credential of a browser, which is not refreshed.
SessionKind = Literal["tokens", "console"]

# The kinds of user secrets that the server can read again, such as an issuer's token or the seed of an
# authenticator.
SecretKind = Literal["api_key", "password", "token", "totp"]

# In the list of roles whose users need a second factor: all users need one.
EVERY_ROLE = "*"
# The value of `users.password_hash` for a user who cannot log in by password.
NO_PASSWORD = "!"
# For this long after a log-in, its device and its address bypass a lock of the account: users return from long leave.
LOGIN_MEMORY_DAYS = 90
# The value of `users.kind` for a program.
SERVICE_ACCOUNT_KIND = "service_account"


class LoginOrigin(msgspec.Struct, frozen=True):
    """The origin of a log-in. `address_group` is the network whose limits the address shares.

    `console`: the log-in begins a console session, because a browser logs in through the gateway.
    """

    client_ip: str
    address_group: str
    user_agent: str
    console: bool = False


class ConsoleLives(msgspec.Struct, frozen=True):
    """The lifetime of a console session after its last use (`idle`), and its longest lifetime (`most`)."""

    idle: timedelta
    most: timedelta


class User(msgspec.Struct, frozen=True):
    """A person or program.

    `created_by` is a name, empty if there is no creator or the caller may not see the creator. `second_factor`: a code
    is required in addition to the password.
    """

    id: UserId
    uid: str
    username: str
    email: str
    full_name: str = ""
    avatar_url: str = ""
    status: UserStatus = "active"
    last_login_at: datetime | None = None
    second_factor: bool = False
    resource_version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: str = ""


class Role(msgspec.Struct, frozen=True):
    """A named set of permissions, less the excluded permissions, which only shipped roles have."""

    id: RoleId
    uid: str
    name: str
    display_name: str = ""
    description: str = ""
    permissions: tuple[str, ...] = ()
    excluded_permissions: tuple[str, ...] = ()
    is_system: bool = False
    resource_version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None


class RoleGrant(msgspec.Struct, frozen=True):
    """A role held by a user, in one namespace, or in every namespace if `namespace` is empty.

    `source` is the issuer whose rules give the grant; empty if a user gave it.
    """

    id: int
    user_id: UserId
    username: str
    role: str
    namespace: str = ""
    namespace_id: int | None = None
    expires_at: datetime | None = None
    assigned_at: datetime | None = None
    assigned_by: str = ""
    source: str = ""


class PrincipalGrant(msgspec.Struct, frozen=True):
    """A user who holds the permission in question, and the grant that gives it.

    The grant covers every namespace if `namespace` is empty. `account_namespace` is the namespace of a service account,
    empty for one of the platform; `api_keys` are names.
    """

    username: str
    role: str
    namespace: str = ""
    expires_at: datetime | None = None
    assigned_at: datetime | None = None
    user_id: int = 0
    namespace_id: int | None = None
    service_account: bool = False
    account_namespace: str = ""
    api_keys: tuple[str, ...] = ()


class Session(msgspec.Struct, frozen=True):
    """A login session that has not ended.

    `id` stays the same when its tokens are renewed.
    """

    id: UUID
    user_id: UserId
    created_at: datetime
    refresh_expires_at: datetime
    last_used_at: datetime | None = None
    client_ip: str = ""
    user_agent: str = ""
    method: SessionMethod = "password"
    kind: SessionKind = "tokens"


class ApiKey(msgspec.Struct, frozen=True):
    """A key of a user, without its secret. Empty `permissions` mean all that the user holds.

    `namespaces` (names) and `kept_to` are the key's namespaces that the caller sees; `namespace_ids` are all namespaces
    of the key, None if it has no limit. `of_account`: the key belongs to a service account, whose namespace is
    `account_namespace`.
    """

    id: int
    uid: str
    user_id: UserId
    name: str
    prefix: str
    username: str
    permissions: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    namespace_ids: tuple[int, ...] | None = None
    read_only: bool = False
    allowed_networks: tuple[str, ...] = ()
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    last_used_ip: str = ""
    rotated_at: datetime | None = None
    created_by: str = ""
    of_account: bool = False
    account_namespace: str = ""
    account_namespace_id: int | None = None
    kept_to: tuple[KeyNamespace, ...] = ()


class MadeKey(msgspec.Struct, frozen=True):
    """A new key with its secret.

    The server returns `key` once, does not store it, and never shows it in `repr`.
    """

    api_key: ApiKey
    key: str

    def __repr__(self) -> str:
        return f"MadeKey(prefix={self.api_key.prefix})"


class ServiceAccount(msgspec.Struct, frozen=True):
    """A user that is a program; `namespace` is '' for one of the platform."""

    id: UserId
    uid: str
    username: str
    name: str
    namespace: str = ""
    namespace_id: int | None = None
    description: str = ""
    created_at: datetime | None = None
    created_by: str = ""


class IssuedTokens(msgspec.Struct, frozen=True):
    """A new pair of tokens. The server returns it once, does not store it, and never shows it in `repr`.

    A console session has no refresh token (''): its access token lives as long as the session.
    """

    access_token: str
    access_expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime

    def __repr__(self) -> str:
        return f"IssuedTokens(refresh_expires_at={self.refresh_expires_at.isoformat()})"


class ShortToken(msgspec.Struct, frozen=True):
    """The only token of a session that cannot be renewed; not stored, and never shown in `repr`."""

    access_token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"ShortToken(expires_at={self.expires_at.isoformat()})"


class Enrolment(msgspec.Struct, frozen=True):
    """A seed for an authenticator, in the forms to type and to scan; returned once, and never shown in `repr`."""

    secret: str
    otpauth_uri: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Enrolment(expires_at={self.expires_at.isoformat()})"


class BegunLogin(msgspec.Struct, frozen=True):
    """A log-in at an issuer that continues in a browser; not stored, and its secrets are never shown in `repr`."""

    issuer: str
    authorization_url: str
    state: str
    login_token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"BegunLogin({self.issuer})"
