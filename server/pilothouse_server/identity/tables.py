"""The tables of users, roles, grants and sessions, with the columns that are queried here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from pilothouse_server.identity.model import LOGIN_MEMORY_DAYS
from pilothouse_server.store.metadata import METADATA
from pilothouse_server.store.noun_tables import (
    EARLIER,
    EnvelopeTable,
    ExpiringRows,
    NounTables,
    SkewRepair,
    outside,
)

# Other nouns may already have declared the columns that they read, such as the name of an object's creator.
USERS = Table(
    "users",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("username", String(50)),
    Column("username_normalized", String(200)),
    Column("email", String(255)),
    Column("email_normalized", String(1000)),
    Column("password_hash", String(255)),
    Column("full_name", String(100)),
    Column("avatar_url", String(500)),
    Column("status", String(20)),
    Column("last_login_at", DateTime(timezone=True)),
    Column("password_changed_at", DateTime(timezone=True)),
    Column("password_expires_at", DateTime(timezone=True)),
    Column("totp_since", DateTime(timezone=True)),
    Column("totp_last_step", BigInteger),
    Column("totp_failures", Integer),
    Column("is_bootstrap", Boolean),
    Column("kind", String(20)),
    Column("namespace_id", BigInteger),
    Column("resource_version", BigInteger),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("created_by", BigInteger),
    Column("updated_by", BigInteger),
    Column("deleted_at", DateTime(timezone=True)),
    comment="People and programs that log in; never deleted for good, see deleted_at.",
    extend_existing=True,
)

ROLES = Table(
    "roles",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("name", String(50)),
    Column("display_name", String(100)),
    Column("description", Text),
    Column("is_system", Boolean),
    Column("permissions", JSONB),
    Column("resource_version", BigInteger),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("created_by", BigInteger),
    Column("updated_by", BigInteger),
    comment="Named sets of permissions; granted to users in user_roles.",
)

USER_ROLES = Table(
    "user_roles",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("user_id", BigInteger),
    Column("role_id", BigInteger),
    Column("namespace_id", BigInteger),
    Column("assigned_at", DateTime(timezone=True)),
    Column("assigned_by", BigInteger),
    Column("expires_at", DateTime(timezone=True)),
    Column("source", String(40)),
    comment="Grants: this user has this role in this namespace, or in every one where it is null.",
)

FEDERATED_IDENTITIES = Table(
    "federated_identities",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("user_id", BigInteger),
    Column("issuer", String(500)),
    Column("subject", String(255)),
    Column("created_at", DateTime(timezone=True)),
    Column("confirmed_at", DateTime(timezone=True)),
    Column("confirmed_until", DateTime(timezone=True)),
    comment="People and programs that issuers vouch for, and the users that they are here.",
)

OIDC_SESSIONS = Table(
    "oidc_sessions",
    METADATA,
    Column("family_id", UUID(as_uuid=True), primary_key=True),
    Column("identity_id", BigInteger),
    Column("confirmed_at", DateTime(timezone=True)),
    Column("asking_until", DateTime(timezone=True)),
    comment="Sessions that an issuer is asked about when they are renewed.",
)

OIDC_LOGINS = Table(
    "oidc_logins",
    METADATA,
    Column("state_hash", LargeBinary, primary_key=True),
    Column("completed_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    comment="Log-ins at issuers that were completed: each works once.",
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("user_id", BigInteger),
    Column("family_id", UUID(as_uuid=True)),
    Column("access_token_hash", LargeBinary),
    Column("refresh_token_hash", LargeBinary),
    Column("access_expires_at", DateTime(timezone=True)),
    Column("refresh_expires_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("rotated_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    Column("replaced_by", UUID(as_uuid=True)),
    Column("client_ip", String(45)),
    Column("user_agent", Text),
    Column("method", String(20)),
    Column("proved_at", DateTime(timezone=True)),
    Column("console", Boolean),
    comment="One row per issued pair of tokens; tokens are kept as SHA-256 of 256 random bits.",
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("uid", UUID(as_uuid=True)),
    Column("user_id", BigInteger),
    Column("account_namespace_id", BigInteger),
    Column("name", String(100)),
    Column("key_hash", LargeBinary),
    Column("prefix", String(16)),
    Column("permissions", JSONB(none_as_null=True)),
    Column("namespace_ids", ARRAY(BigInteger)),
    Column("read_only", Boolean),
    Column("allowed_networks", ARRAY(Text)),
    Column("expires_at", DateTime(timezone=True)),
    Column("last_used_at", DateTime(timezone=True)),
    Column("last_used_ip", String(45)),
    Column("created_at", DateTime(timezone=True)),
    Column("created_by", BigInteger),
    Column("rotated_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
    comment="Long-lived keys of a user, kept as SHA-256, revocable one by one.",
)

LOGIN_THROTTLES = Table(
    "login_throttles",
    METADATA,
    Column("account_hash", LargeBinary, primary_key=True),
    Column("failures", Integer),
    Column("locked_until", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    comment="Failed logins by hash of the normalised name, so that unknown accounts are throttled alike.",
)

LOGIN_ORIGINS = Table(
    "login_origins",
    METADATA,
    Column("account_hash", LargeBinary, primary_key=True),
    Column("origin_hash", LargeBinary, primary_key=True),
    Column("failures", Integer),
    Column("logins", Integer),
    Column("password_changed_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    comment="Devices and addresses that accounts have logged in from, and the guesses that failed there since.",
)

USER_SECRETS = Table(
    "user_secrets",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("user_id", BigInteger),
    Column("secret_type", String(50)),
    Column("name", String(255)),
    Column("encrypted_value", LargeBinary),
    Column("data_key", LargeBinary),
    Column("key_id", String(64)),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    comment="Secrets of users that the server must be able to read again, encrypted by the application.",
)

RECOVERY_CODES = Table(
    "recovery_codes",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column("user_id", BigInteger),
    Column("code_hash", LargeBinary),
    Column("created_at", DateTime(timezone=True)),
    Column("used_at", DateTime(timezone=True)),
    comment="Codes that let a user in once each without the authenticator, as SHA-256 of 80 random bits.",
)

LOGIN_CHALLENGES = Table(
    "login_challenges",
    METADATA,
    Column("challenge_hash", LargeBinary, primary_key=True),
    Column("user_id", BigInteger),
    Column("origin_hash", LargeBinary),
    Column("password_changed_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    comment="Answers to right passwords if a code or a new password must follow; used once.",
)

DEVICE_LOGINS = Table(
    "device_logins",
    METADATA,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("issuer", String(40)),
    Column("sealed_code", LargeBinary),
    Column("address_hash", LargeBinary),
    Column("interval_seconds", Integer),
    Column("next_poll_at", DateTime(timezone=True)),
    Column("expires_at", DateTime(timezone=True)),
    comment="Log-ins of devices that wait for a person to agree at the issuer.",
)

KEYS_KEPT_DAYS: Final = 90
# An account is locked for at most this long.
LONGEST_LOCK_SECONDS: Final = 900.0

SEALED_USER_SECRETS: Final = EnvelopeTable("user_secrets", "encrypted_value", row="id", owner="user_id")

_EXPIRING = (
    # A used refresh token is recognised as used until its session would have ended.
    ExpiringRows("sessions", f"refresh_expires_at < {EARLIER} - interval '1 day'", "refresh_expires_at"),
    ExpiringRows(
        "api_keys",
        f"least(expires_at, revoked_at) < {EARLIER} - make_interval(days => {KEYS_KEPT_DAYS})",
        "least(expires_at, revoked_at)",
    ),
    # Rows with an expiry far in the future, which a clock that was ahead wrote, are deleted too: such rows are valid
    # for minutes only.
    ExpiringRows("login_challenges", outside("expires_at", "0", "1 hour"), "expires_at"),
    ExpiringRows("device_logins", outside("expires_at", "0", "1 hour"), "expires_at"),
    ExpiringRows(
        "user_secrets",
        f"secret_type = 'totp' AND name <> '' AND {outside('updated_at', '1 hour', '1 hour')}",
        "",
    ),
    # Only the codes: the second factor itself is deleted together with its user.
    ExpiringRows("recovery_codes", "user_id IN (SELECT id FROM users WHERE deleted_at IS NOT NULL)", ""),
    ExpiringRows(
        "login_throttles",
        f"updated_at < {EARLIER} - interval '1 day' AND (locked_until IS NULL OR locked_until < {EARLIER})",
        "updated_at",
    ),
    ExpiringRows(
        "login_origins",
        f"updated_at < {EARLIER} - interval '{LOGIN_MEMORY_DAYS} days'",
        "updated_at",
    ),
)

_UNLOCK = f"""
UPDATE login_throttles SET locked_until = NULL, updated_at = clock_timestamp()
WHERE locked_until > clock_timestamp() + interval '{LONGEST_LOCK_SECONDS + 60} seconds'
   OR updated_at > clock_timestamp() + interval '1 minute'
RETURNING 1
"""  # noqa: S608 - a constant of this module
# A session stays valid, but no longer than a session that begins now.
_SHORTEN_SESSIONS = """
UPDATE sessions
SET access_expires_at = least(access_expires_at,
        CAST(:later AS timestamptz) + make_interval(secs => CASE WHEN console
            THEN CAST(:console_idle_seconds AS float8) ELSE CAST(:session_access_seconds AS float8) END)),
    refresh_expires_at = least(refresh_expires_at,
        CAST(:later AS timestamptz) + make_interval(secs => CASE WHEN console
            THEN CAST(:console_idle_seconds AS float8) ELSE CAST(:session_refresh_seconds AS float8) END)),
    created_at = least(created_at, CAST(:later AS timestamptz))
WHERE access_expires_at
        > CAST(:later AS timestamptz) + make_interval(secs => 60 + CASE WHEN console
            THEN CAST(:console_idle_seconds AS float8) ELSE CAST(:session_access_seconds AS float8) END)
   OR refresh_expires_at
        > CAST(:later AS timestamptz) + make_interval(secs => 60 + CASE WHEN console
            THEN CAST(:console_idle_seconds AS float8) ELSE CAST(:session_refresh_seconds AS float8) END)
   OR created_at > CAST(:later AS timestamptz) + interval '1 minute'
RETURNING 1
"""

IDENTITY_TABLES: Final = NounTables(
    tables=frozenset(
        {
            "api_keys",
            "device_logins",
            "federated_identities",
            "login_challenges",
            "login_origins",
            "login_throttles",
            "oidc_logins",
            "oidc_sessions",
            "recovery_codes",
            "roles",
            "sessions",
            "user_roles",
            "user_secrets",
            "users",
        }
    ),
    expiring=_EXPIRING,
    sealed=(SEALED_USER_SECRETS,),
    skew_repairs=(SkewRepair("locked accounts", _UNLOCK), SkewRepair("sessions", _SHORTEN_SESSIONS)),
)
