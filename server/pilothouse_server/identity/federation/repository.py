"""All SQL about users of issuers: their identities, sessions, and grants by rules.

All statements run as the system role.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, delete, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from pilothouse_server.identity.model import RoleId, UserId
from pilothouse_server.identity.tables import (
    FEDERATED_IDENTITIES,
    OIDC_LOGINS,
    OIDC_SESSIONS,
    ROLES,
    SESSIONS,
    USER_ROLES,
    USERS,
)
from pilothouse_server.store.references import NAMESPACES
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

_IDENTITIES = FEDERATED_IDENTITIES.c
# No server waits for an issuer for longer. A later `asking_until` means that the database's clock was set back.
_LONGEST_ASKING = timedelta(minutes=5)
_LOCK_IDENTITY = text("SELECT pg_advisory_xact_lock(hashtextextended('pilothouse/identity ' || :who, 0))")
# Each server checks expiry by its own clock. The row stays one hour longer, so that a server whose clock is behind
# still detects that the log-in was used.
_EXPIRED_LOGINS = text(
    "DELETE FROM oidc_logins WHERE expires_at < CAST(:now AS timestamptz) - interval '1 hour'"
)
_DEAD_SESSIONS = text("""
WITH dead AS (
    DELETE FROM oidc_sessions AS o WHERE NOT EXISTS (
        SELECT FROM sessions AS s WHERE s.family_id = o.family_id AND s.revoked_at IS NULL
        AND s.rotated_at IS NULL AND s.refresh_expires_at > CAST(:now AS timestamptz))
    RETURNING o.family_id)
DELETE FROM user_secrets AS u USING dead WHERE u.secret_type = 'token' AND u.name = dead.family_id::text
""")
_UNCONFIRMED = text("""
WITH late AS (
    SELECT DISTINCT i.user_id FROM federated_identities AS i WHERE i.confirmed_until < CAST(:now AS timestamptz)
    AND EXISTS (SELECT FROM user_roles AS g WHERE g.user_id = i.user_id AND g.source IS NOT NULL)
    ORDER BY i.user_id LIMIT :most)
DELETE FROM user_roles AS g USING late, users AS u, roles AS r
WHERE g.user_id = late.user_id AND g.source IS NOT NULL AND u.id = g.user_id AND r.id = g.role_id
RETURNING u.username, g.source, r.name AS role,
    (SELECT n.name FROM namespaces AS n WHERE n.id = g.namespace_id) AS namespace
""")


@dataclass(frozen=True, slots=True)
class RuleGrant:
    """A grant by a rule, by the ids of role and namespace."""

    role_id: RoleId
    namespace_id: int | None


@dataclass(frozen=True, slots=True)
class TakenGrant:
    """A grant that rules no longer give, by names; over all namespaces if `namespace` is empty."""

    role: str
    namespace: str


@dataclass(frozen=True, slots=True)
class GrantChanges:
    """The changes to a user's grants by rules."""

    given: tuple[RuleGrant, ...]
    taken: tuple[TakenGrant, ...]


@dataclass(frozen=True, slots=True)
class AskedSession:
    """A session that is about to be renewed.

    `identity_id` is None if its issuer gave no refresh token.
    """

    family_id: UUID
    user_id: UserId
    username: str
    identity_id: int | None
    issuer: str
    subject: str
    confirmed_at: datetime | None
    now: datetime


async def lock_identity(transaction: Transaction, issuer: str, subject: str) -> None:
    """Locks an identity, so that one transaction at a time creates or changes it."""
    await transaction.connection.execute(_LOCK_IDENTITY, {"who": f"{issuer} {subject}"})


async def find_user(transaction: ReadTransaction, issuer: str, subject: str) -> UserId | None:
    """Returns the user of this identity; None if there is none or the user was deleted."""
    query = (
        select(_IDENTITIES.user_id)
        .join(USERS, USERS.c.id == _IDENTITIES.user_id)
        .where(_IDENTITIES.issuer == issuer, _IDENTITIES.subject == subject, USERS.c.deleted_at.is_(None))
    )
    found: UserId | None = (await transaction.connection.execute(query)).scalar_one_or_none()
    return found


async def confirm_identity(
    transaction: Transaction, user_id: UserId, issuer: str, subject: str, grants_last: timedelta
) -> int:
    """Records that the issuer vouches for this identity of the user now; returns the identity's id."""
    values = {
        "user_id": user_id,
        "confirmed_at": func.clock_timestamp(),
        "confirmed_until": func.clock_timestamp() + grants_last,
    }
    statement = insert(FEDERATED_IDENTITIES).values(issuer=issuer, subject=subject, **values)
    statement = statement.on_conflict_do_update(constraint="uq_federated_identities_subject", set_=values)
    found: int = (await transaction.connection.execute(statement.returning(_IDENTITIES.id))).scalar_one()
    return found


async def note_login(transaction: Transaction, user_id: UserId) -> None:
    """Records that a user logs in now. This does not count as a change of the user."""
    await transaction.connection.execute(
        update(USERS).where(USERS.c.id == user_id).values(last_login_at=func.clock_timestamp())
    )


async def use_login(transaction: Transaction, state_hash: bytes, expires_at: datetime) -> bool:
    """Records that a log-in is completed; returns False if it was already completed."""
    statement = insert(OIDC_LOGINS).values(state_hash=state_hash, expires_at=expires_at)
    statement = statement.on_conflict_do_nothing(index_elements=[OIDC_LOGINS.c.state_hash])
    done = await transaction.connection.execute(statement.returning(OIDC_LOGINS.c.state_hash))
    return done.first() is not None


async def login_is_used(transaction: ReadTransaction, state_hash: bytes) -> bool:
    """Returns whether a log-in was completed, read without waiting for locks."""
    query = select(OIDC_LOGINS.c.state_hash).where(OIDC_LOGINS.c.state_hash == state_hash)
    return (await transaction.connection.execute(query)).first() is not None


async def put_session(transaction: Transaction, family_id: UUID, identity_id: int) -> None:
    """Records the identity of a session, which its issuer has just confirmed; ends a pending request to the issuer."""
    values = {"identity_id": identity_id, "confirmed_at": func.clock_timestamp(), "asking_until": None}
    statement = insert(OIDC_SESSIONS).values(family_id=family_id, **values)
    await transaction.connection.execute(
        statement.on_conflict_do_update(index_elements=[OIDC_SESSIONS.c.family_id], set_=values)
    )


async def find_session(transaction: ReadTransaction, refresh_token_hash: bytes) -> AskedSession | None:
    """Returns the valid session of a refresh token if it began at an issuer and its user may log in; else None."""
    query = (
        select(
            SESSIONS.c.family_id,
            SESSIONS.c.user_id,
            USERS.c.username,
            OIDC_SESSIONS.c.identity_id,
            OIDC_SESSIONS.c.confirmed_at,
            _IDENTITIES.issuer,
            _IDENTITIES.subject,
            func.clock_timestamp().label("now"),
        )
        .select_from(
            SESSIONS.join(
                USERS,
                and_(
                    USERS.c.id == SESSIONS.c.user_id,
                    USERS.c.status == "active",
                    USERS.c.deleted_at.is_(None),
                ),
            )
            .outerjoin(OIDC_SESSIONS, OIDC_SESSIONS.c.family_id == SESSIONS.c.family_id)
            .outerjoin(FEDERATED_IDENTITIES, _IDENTITIES.id == OIDC_SESSIONS.c.identity_id)
        )
        .where(
            SESSIONS.c.refresh_token_hash == refresh_token_hash,
            SESSIONS.c.method == "oidc",
            SESSIONS.c.revoked_at.is_(None),
            SESSIONS.c.rotated_at.is_(None),
            SESSIONS.c.refresh_expires_at > func.now(),
        )
    )
    row: Row | None = (await transaction.connection.execute(query)).one_or_none()
    if row is None:
        return None
    return AskedSession(
        row.family_id,
        UserId(row.user_id),
        row.username,
        row.identity_id,
        row.issuer or "",
        row.subject or "",
        row.confirmed_at,
        row.now,
    )


async def begin_asking(transaction: Transaction, family_id: UUID, seconds: float) -> bool:
    """Reserves a session for one request to its issuer, for `seconds`.

    Returns False if another call has reserved it. Only the call with the reservation may use the issuer's refresh
    token.
    """
    asking, now = OIDC_SESSIONS.c.asking_until, func.clock_timestamp()
    statement = (
        update(OIDC_SESSIONS)
        .where(
            OIDC_SESSIONS.c.family_id == family_id,
            or_(asking.is_(None), asking <= now, asking > now + _LONGEST_ASKING),
        )
        .values(asking_until=now + timedelta(seconds=seconds))
        .returning(OIDC_SESSIONS.c.family_id)
    )
    return (await transaction.connection.execute(statement)).first() is not None


async def end_asking(transaction: Transaction, family_id: UUID) -> None:
    """Ends the reservation of `begin_asking`, so that another call may ask the issuer immediately."""
    await transaction.connection.execute(
        update(OIDC_SESSIONS).where(OIDC_SESSIONS.c.family_id == family_id).values(asking_until=None)
    )


async def role_ids(transaction: ReadTransaction, names: Collection[str]) -> dict[str, RoleId]:
    """Returns the ids of the roles with these names, by name; missing roles are left out."""
    query = select(ROLES.c.id, ROLES.c.name).where(ROLES.c.name.in_(sorted(names)))
    return {row.name: RoleId(row.id) for row in await transaction.connection.execute(query)}


async def namespace_ids(transaction: ReadTransaction, names: Collection[str]) -> dict[str, int]:
    """Returns the ids of the namespaces with these names, by name; missing and deleted namespaces are left out."""
    query = select(NAMESPACES.c.id, NAMESPACES.c.name).where(
        NAMESPACES.c.name.in_(sorted(names)), NAMESPACES.c.deleted_at.is_(None)
    )
    return {row.name: int(row.id) for row in await transaction.connection.execute(query)}


async def put_rule_grants(
    transaction: Transaction, user_id: UserId, given: Collection[RuleGrant], source: str
) -> GrantChanges:
    """Makes the user's grants by rules exactly `given`.

    A grant that a user gave stays unchanged, even if a rule gives the same one. If it has expired, the rule's grant
    replaces it.
    """
    wanted = set(given)
    gone: list[Row] = []
    for row in await transaction.connection.execute(_of_rules(user_id)):
        grant = RuleGrant(RoleId(row.role_id), row.namespace_id)
        if grant in wanted and row.source == source:
            wanted.discard(grant)
        else:
            gone.append(row)
    if gone:
        ids = [row.id for row in gone]
        await transaction.connection.execute(delete(USER_ROLES).where(USER_ROLES.c.id.in_(ids)))
    # Sorted, so that concurrent updates lock the rows in the same order.
    put = [
        grant
        for grant in sorted(wanted, key=lambda each: (each.role_id, each.namespace_id or 0))
        if await _put(transaction, user_id, grant, source)
    ]
    return GrantChanges(tuple(put), tuple(TakenGrant(row.role, row.namespace or "") for row in gone))


async def end_rule_grants(transaction: Transaction, user_id: UserId) -> tuple[TakenGrant, ...]:
    """Ends the user's grants by rules, and returns them."""
    gone = (await transaction.connection.execute(_of_rules(user_id))).all()
    await transaction.connection.execute(
        delete(USER_ROLES).where(USER_ROLES.c.user_id == user_id, USER_ROLES.c.source.is_not(None))
    )
    return tuple(TakenGrant(row.role, row.namespace or "") for row in gone)


async def end_unconfirmed(
    transaction: Transaction, now: datetime, most: int
) -> dict[tuple[str, str], list[TakenGrant]]:
    """Ends the grants by rules of users whose issuer has not confirmed them in time, for at most `most` users per call.

    Returns the ended grants by the names of user and issuer.
    """
    gone: dict[tuple[str, str], list[TakenGrant]] = {}
    for row in await transaction.connection.execute(_UNCONFIRMED, {"now": now, "most": most}):
        gone.setdefault((row.username, row.source), []).append(TakenGrant(row.role, row.namespace or ""))
    return gone


async def remove_ended(transaction: Transaction, now: datetime) -> None:
    """Deletes log-ins that can no longer be completed, and the issuers' tokens of sessions that have ended by `now`."""
    await transaction.connection.execute(_EXPIRED_LOGINS, {"now": now})
    await transaction.connection.execute(_DEAD_SESSIONS, {"now": now})


async def _put(transaction: Transaction, user_id: UserId, grant: RuleGrant, source: str) -> bool:
    values: dict[str, Any] = {"expires_at": None, "assigned_by": None, "source": source}
    statement = insert(USER_ROLES).values(
        user_id=user_id, role_id=grant.role_id, namespace_id=grant.namespace_id, **values
    )
    statement = statement.on_conflict_do_update(
        constraint="uq_user_roles",
        set_={**values, "assigned_at": func.now()},
        where=USER_ROLES.c.expires_at <= func.now(),
    )
    return (await transaction.connection.execute(statement.returning(USER_ROLES.c.id))).first() is not None


def _of_rules(user_id: UserId) -> Select[Any]:
    return (
        select(
            USER_ROLES.c.id,
            USER_ROLES.c.role_id,
            USER_ROLES.c.namespace_id,
            USER_ROLES.c.source,
            ROLES.c.name.label("role"),
            NAMESPACES.c.name.label("namespace"),
        )
        .select_from(
            USER_ROLES.join(ROLES, ROLES.c.id == USER_ROLES.c.role_id).outerjoin(
                NAMESPACES, NAMESPACES.c.id == USER_ROLES.c.namespace_id
            )
        )
        .where(USER_ROLES.c.user_id == user_id, USER_ROLES.c.source.is_not(None))
    )
