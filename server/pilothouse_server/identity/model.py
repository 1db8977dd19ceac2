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

# Pairs of tokens that are refreshed, or the one credential of a browser, which is not.
SessionKind = Literal["tokens", "console"]

# The kinds of user secrets that the server can read again, such as an issuer's token or the seed of an
# authenticator.
SecretKind = Literal["api_key", "password", "token", "totp"]

# In place of the roles whose users need a second factor: all users do.
EVERY_ROLE = "*"
# The value of `users.password_hash` for a user who cannot log in by password.
NO_PASSWORD = "!"
# A device or an address that logged in passes the lock of its account for so long: users come back from a long leave.
LOGIN_MEMORY_DAYS = 90
# The value of `users.kind` for a program.
SERVICE_ACCOUNT_KIND = "service_account"


class LoginOrigin(msgspec.Struct, frozen=True):
    """Where a log-in comes from. `address_group` is the network that the address counts for.

    `console`: it begins a console session, because a browser logs in through the gateway.
    """

    client_ip: str
    address_group: str
    user_agent: str
    console: bool = False


class ConsoleLives(msgspec.Struct, frozen=True):
    """How long a console session lives after its last use, and at most."""

    idle: timedelta
    most: timedelta


class User(msgspec.Struct, frozen=True):
    """A person or program. `created_by` is a name, empty if there is no creator or the caller does not see
    the creator.

    `second_factor`: a code is required in addition to the password.
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
    """A named set of permissions, less the excluded ones, which only shipped roles have."""

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
    """A role held by a user, in one namespace, or in every one where `namespace` is empty.

    `source` is the issuer whose rules give it, empty where somebody did.
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
    """A user who holds the permission in question, and the grant that gives it; in every namespace if
    `namespace` is empty.

    `account_namespace` is that of a service account, empty where it is the platform's; `api_keys` are names.
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
    """A log-in that has not ended. `id` stays the same when its tokens are renewed."""

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

    `namespaces` (names) and `kept_to` are those that the caller sees; `namespace_ids` are all namespaces of
    the key, None if it has no limit. `account_namespace` is that of the service account whose key it is, and
    `of_account` whether it is one's.
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
    """A key as it leaves the server once; `key` is nowhere kept, and never shown by `repr`."""

    api_key: ApiKey
    key: str

    def __repr__(self) -> str:
        return f"MadeKey(prefix={self.api_key.prefix})"


class ServiceAccount(msgspec.Struct, frozen=True):
    """A user that is a program; `namespace` is '' where it is the platform's."""

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
    """A pair of tokens as it leaves the server; nowhere kept, and never shown by `repr`.

    A console session has no refresh token (''): its access token lives as long as the session.
    """

    access_token: str
    access_expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime

    def __repr__(self) -> str:
        return f"IssuedTokens(refresh_expires_at={self.refresh_expires_at.isoformat()})"


class ShortToken(msgspec.Struct, frozen=True):
    """The one token of a session that is not renewed; nowhere kept, and never shown by `repr`."""

    access_token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"ShortToken(expires_at={self.expires_at.isoformat()})"


class Enrolment(msgspec.Struct, frozen=True):
    """A seed for an authenticator, as it is typed and as it is scanned, which is shown once; never shown by `repr`."""

    secret: str
    otpauth_uri: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Enrolment(expires_at={self.expires_at.isoformat()})"


class BegunLogin(msgspec.Struct, frozen=True):
    """A log-in at an issuer that continues in a browser, as it leaves the server; stored nowhere, never shown by
    `repr`.
    """

    issuer: str
    authorization_url: str
    state: str
    login_token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"BegunLogin({self.issuer})"
