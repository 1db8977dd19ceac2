"""All SQL about sessions: one row for each issued pair of tokens, a family for each log-in.

A console session has one row. Its credential is stored in place of the access token and does not rotate; each recorded
use extends both expiry times.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, insert, or_, select, update

from pilothouse_server.authorization.access import Credential, Principal
from pilothouse_server.identity.access.repository.grants import FOREIGN_NAMESPACES, held, held_grants
from pilothouse_server.identity.model import ConsoleLives, Session, SessionMethod, UserId
from pilothouse_server.identity.tables import SESSIONS, USERS
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    parse_order_by,
)
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

# An issuer must confirm its session at each refresh. So the session's streams end with the access token, unless the
# session is refreshed.
_ASKS_ISSUER = SESSIONS.c.method == "oidc"
_STREAMS_END = case((_ASKS_ISSUER, SESSIONS.c.access_expires_at), else_=SESSIONS.c.refresh_expires_at)


def _principal(found: ColumnElement[bool], ends: ColumnElement[Any]) -> Select[Any]:
    """Selects the session that `found` matches, its user and the grants; the session must not have passed `ends`."""
    return (
        held()
        .add_columns(
            SESSIONS.c.family_id,
            SESSIONS.c.method,
            SESSIONS.c.console,
            SESSIONS.c.last_used_at,
            ends.label("access_expires_at"),
            func.now().label("now"),
            FOREIGN_NAMESPACES,
        )
        .join(SESSIONS, SESSIONS.c.user_id == USERS.c.id)
        .where(
            found,
            SESSIONS.c.revoked_at.is_(None),
            SESSIONS.c.rotated_at.is_(None),
            ends > func.now(),
            USERS.c.status == "active",
        )
    )


_OF_TOKEN = _principal(SESSIONS.c.access_token_hash == bindparam("key"), SESSIONS.c.access_expires_at)
_OF_SESSION = _principal(SESSIONS.c.family_id == bindparam("key"), _STREAMS_END)
_ORDERS = {"create_time": OrderField(SESSIONS.c.created_at)}


def _living() -> ColumnElement[bool]:
    """Returns the condition for the newest pair of tokens of a session that has not ended."""
    return and_(
        SESSIONS.c.revoked_at.is_(None),
        SESSIONS.c.rotated_at.is_(None),
        SESSIONS.c.refresh_expires_at > func.now(),
    )


async def insert_session(transaction: Transaction, values: Mapping[str, Any]) -> None:
    """Adds the row of a pair of tokens."""
    await transaction.connection.execute(insert(SESSIONS).values(**values))


async def take_refresh_token(transaction: Transaction, token_hash: bytes) -> Row | None:
    """Marks a refresh token as used; returns its row, None if it is invalid or was already used.

    Only one of two concurrent calls gets the row.
    """
    statement = (
        update(SESSIONS)
        .where(SESSIONS.c.refresh_token_hash == token_hash, _living())
        .values(rotated_at=func.clock_timestamp())
        .returning(SESSIONS)
    )
    taken: Row | None = (await transaction.connection.execute(statement)).one_or_none()
    return taken


async def set_method(
    transaction: Transaction, user_id: UserId, family_id: UUID, method: SessionMethod
) -> None:
    """Sets the method of a session that began by a password alone, after its user has proved more."""
    await transaction.connection.execute(
        update(SESSIONS)
        .where(
            SESSIONS.c.family_id == family_id, SESSIONS.c.user_id == user_id, SESSIONS.c.method == "password"
        )
        .values(method=method)
    )


async def prove(transaction: Transaction, user_id: UserId, family_id: UUID) -> datetime | None:
    """Records that the user of a session proved the identity now; returns the time, None if the session has ended."""
    statement = (
        update(SESSIONS)
        .where(SESSIONS.c.family_id == family_id, SESSIONS.c.user_id == user_id, _living())
        .values(proved_at=func.now())
        .returning(SESSIONS.c.proved_at)
    )
    proved_at: datetime | None = (await transaction.connection.execute(statement)).scalar_one_or_none()
    return proved_at


async def proof_of(transaction: ReadTransaction, family_id: UUID, lasts: timedelta) -> Row | None:
    """Returns a row about a session's proof; None if the session has ended.

    `recent`: the proof is recent. `has_code`: the user has an authenticator.
    """
    # A time far in the future, which a wrong clock has written, does not count as a proof either.
    recent = and_(
        SESSIONS.c.proved_at > func.now() - lasts,
        SESSIONS.c.proved_at < func.now() + lasts,
    )
    query = (
        select(
            func.coalesce(recent, False).label("recent"),
            USERS.c.totp_since.is_not(None).label("has_code"),
        )
        .join(USERS, USERS.c.id == SESSIONS.c.user_id)
        .where(SESSIONS.c.family_id == family_id, _living())
    )
    found: Row | None = (await transaction.connection.execute(query)).one_or_none()
    return found


async def set_replaced_by(transaction: Transaction, session_id: UUID, replaced_by: UUID) -> None:
    """Records the pair of tokens that replaced this one when its refresh token was used."""
    await transaction.connection.execute(
        update(SESSIONS).where(SESSIONS.c.id == session_id).values(replaced_by=replaced_by)
    )


async def family_of(transaction: ReadTransaction, access_token_hash: bytes) -> UUID:
    """Returns the id of the session that an access token was just issued for."""
    query = select(SESSIONS.c.family_id).where(SESSIONS.c.access_token_hash == access_token_hash)
    found: UUID = (await transaction.connection.execute(query)).scalar_one()
    return found


async def find_refresh_token(transaction: ReadTransaction, token_hash: bytes) -> Row | None:
    """Returns the row of a refresh token, also if the token was used already; None if there is none."""
    query = select(SESSIONS).where(SESSIONS.c.refresh_token_hash == token_hash)
    found: Row | None = (await transaction.connection.execute(query)).one_or_none()
    return found


async def revoke_family(transaction: Transaction, user_id: UserId, family_id: UUID) -> bool:
    """Revokes one session with all its tokens; returns whether it was active."""
    living = select(SESSIONS.c.id).where(
        SESSIONS.c.family_id == family_id, SESSIONS.c.user_id == user_id, _living()
    )
    lived = (await transaction.connection.execute(living)).first() is not None
    statement = (
        update(SESSIONS)
        .where(
            SESSIONS.c.family_id == family_id, SESSIONS.c.user_id == user_id, SESSIONS.c.revoked_at.is_(None)
        )
        .values(revoked_at=func.now())
    )
    await transaction.connection.execute(statement)
    return lived


async def revoke_of_user(transaction: Transaction, user_id: UserId, *, keep: UUID | None = None) -> None:
    """Ends every session of a user except `keep`."""
    statement = (
        update(SESSIONS)
        .where(SESSIONS.c.user_id == user_id, SESSIONS.c.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    if keep is not None:
        statement = statement.where(SESSIONS.c.family_id != keep)
    await transaction.connection.execute(statement)


async def list_sessions(
    transaction: ReadTransaction, user_id: UserId, page: PageRequest
) -> tuple[Sequence[Session], NextPage]:
    """Returns one page of a user's active sessions, newest first, and where the next page begins."""
    query = select(SESSIONS).where(SESSIONS.c.user_id == user_id, _living())
    order = parse_order_by(
        "create_time desc", _ORDERS, default="create_time desc", unique=SESSIONS.c.family_id
    )
    rows = (await transaction.connection.execute(paginate(query, order, page))).all()
    rows, next_page = finish_page(rows, order, page)
    return [_session(row) for row in rows], next_page


async def load_principal(
    transaction: ReadTransaction, access_token_hash: bytes
) -> tuple[Principal, Row] | None:
    """Returns the caller that an access token belongs to, with the grants, and the session's row with its read time.

    Returns None if the token is unknown, has expired, was renewed or revoked, or its user may not log in. The row's
    `now` is the read time. The function runs one query, and needs no transaction around it.
    """
    return await _load(transaction, _OF_TOKEN, access_token_hash)


async def load_principal_of_session(
    transaction: ReadTransaction, family_id: UUID
) -> tuple[Principal, Row] | None:
    """Returns the same as `load_principal` for a session with any current token; used for its open streams."""
    return await _load(transaction, _OF_SESSION, family_id)


async def _load(
    transaction: ReadTransaction, query: Select[Any], key: bytes | UUID
) -> tuple[Principal, Row] | None:
    rows = (await transaction.connection.execute(query, {"key": key})).all()
    if not rows:
        return None
    first = rows[0]
    principal = Principal(
        first.user_id,
        first.username,
        held_grants(rows),
        session_id=first.family_id,
        credential=Credential(id=str(first.family_id), method=first.method),
        foreign_namespaces=frozenset(first.foreign_namespaces or ()),
    )
    return principal, first


async def touch(
    transaction: Transaction, access_token_hashes: Collection[bytes], every: timedelta, lives: ConsoleLives
) -> None:
    """Records the use of sessions, at most once per `every`; extends the expiry of console sessions."""
    now: ColumnElement[datetime] = func.now()
    moved = func.least(now + lives.idle, SESSIONS.c.created_at + lives.most)
    slides = and_(SESSIONS.c.console, ~_ASKS_ISSUER)
    statement = (
        update(SESSIONS)
        .where(
            SESSIONS.c.access_token_hash.in_(access_token_hashes),
            or_(SESSIONS.c.last_used_at.is_(None), SESSIONS.c.last_used_at < func.now() - every),
        )
        .values(
            last_used_at=now,
            access_expires_at=case((slides, moved), else_=SESSIONS.c.access_expires_at),
            refresh_expires_at=case((slides, moved), else_=SESSIONS.c.refresh_expires_at),
        )
    )
    await transaction.connection.execute(statement)


def _session(row: Row) -> Session:
    return Session(
        id=row.family_id,
        user_id=UserId(row.user_id),
        created_at=row.created_at,
        refresh_expires_at=row.refresh_expires_at,
        last_used_at=row.last_used_at,
        client_ip=row.client_ip or "",
        user_agent=row.user_agent or "",
        method=row.method,
        kind="console" if row.console else "tokens",
    )
