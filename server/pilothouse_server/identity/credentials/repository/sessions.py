"""All SQL about sessions: one row for each issued pair of tokens, a family for each log-in.

A console session has one row: its credential stands where others have an access token, does not rotate, and moves both
ends on while it is used.
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

# An issuer is asked about a session at each refresh, so a stream of one outlives no access token that is not renewed.
_ASKS_ISSUER = SESSIONS.c.method == "oidc"
_STREAMS_END = case((_ASKS_ISSUER, SESSIONS.c.access_expires_at), else_=SESSIONS.c.refresh_expires_at)


def _principal(found: ColumnElement[bool], ends: ColumnElement[Any]) -> Select[Any]:
    """Selects the user of the session that is found, with the grants; the row's part that counts lives until `ends`."""
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
    """The newest pair of a session that has not ended."""
    return and_(
        SESSIONS.c.revoked_at.is_(None),
        SESSIONS.c.rotated_at.is_(None),
        SESSIONS.c.refresh_expires_at > func.now(),
    )


async def insert_session(transaction: Transaction, values: Mapping[str, Any]) -> None:
    """Adds the row of a pair of tokens."""
    await transaction.connection.execute(insert(SESSIONS).values(**values))


async def take_refresh_token(transaction: Transaction, token_hash: bytes) -> Row | None:
    """Uses up a refresh token: of two concurrent calls one gets the row, the other None."""
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
    """Notes that a session that was begun by a password alone has shown more since."""
    await transaction.connection.execute(
        update(SESSIONS)
        .where(
            SESSIONS.c.family_id == family_id, SESSIONS.c.user_id == user_id, SESSIONS.c.method == "password"
        )
        .values(method=method)
    )


async def prove(transaction: Transaction, user_id: UserId, family_id: UUID) -> datetime | None:
    """Notes that the user of a session has shown who they are; returns when, None where the session has ended."""
    statement = (
        update(SESSIONS)
        .where(SESSIONS.c.family_id == family_id, SESSIONS.c.user_id == user_id, _living())
        .values(proved_at=func.now())
        .returning(SESSIONS.c.proved_at)
    )
    proved_at: datetime | None = (await transaction.connection.execute(statement)).scalar_one_or_none()
    return proved_at


async def proof_of(transaction: ReadTransaction, family_id: UUID, lasts: timedelta) -> Row | None:
    """Whether the proof of a living session is recent (`recent`), and whether its user has an authenticator
    (`has_code`); None where the session has ended.
    """
    # A time far in the future, which a wrong clock has left, is no proof either.
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
    """Ends every session of a user but `keep`."""
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
    """Returns one page of a user's living sessions, newest first, and where the next page begins."""
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
    """The caller that an access token belongs to, with the grants, and the session's row and when it was read (`now`).

    It is one query, and needs no transaction around it.

    None if the token is unknown, has expired, was renewed or revoked, or its user may not log in.
    """
    return await _load(transaction, _OF_TOKEN, access_token_hash)


async def load_principal_of_session(
    transaction: ReadTransaction, family_id: UUID
) -> tuple[Principal, Row] | None:
    """The same for a session, whichever of its tokens is the present one; for the streams that it has open."""
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
    """Notes that sessions were used, unless that was noted less than `every` ago; console sessions move their ends."""
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
