"""SQL that writes the desired state of config maps and secrets; it handles a secret's values only as ciphertext."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import TextClause, insert, select, text

from pilothouse_server.config.model import Config, ConfigMap, Kind, Secret
from pilothouse_server.config.repository.configs import get_many
from pilothouse_server.config.repository.rows import TABLES, binary_document, sizes_document, whole
from pilothouse_server.config.tables import SECRETS
from pilothouse_server.encryption.envelopes import Sealed
from pilothouse_server.errors import already_exists
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.generations import write_generation
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

register_constraint("uq_config_maps_name", lambda: already_exists("config map", "of this name"))
register_constraint("uq_secrets_name", lambda: already_exists("secret", "of this name"))

_ROWS = """jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    id bigint, uid uuid, name text, namespace_id bigint, kubernetes_name text, type text, data jsonb, binary_data jsonb,
    immutable boolean, labels jsonb, annotations jsonb, ciphertext text, data_key text, key_id text)"""
_COMMON = ("immutable", "labels", "annotations", "data")
# Columns that a caller sets, in addition to the common ones, with the SQL of their values.
_OWN: dict[Kind, dict[str, str]] = {
    "config_map": {"binary_data": "r.binary_data"},
    "secret": {
        "ciphertext": "decode(r.ciphertext, 'base64')",
        "data_key": "decode(r.data_key, 'base64')",
        "key_id": "r.key_id",
    },
}
_FIXED: dict[Kind, tuple[str, ...]] = {
    "config_map": ("name", "namespace_id", "kubernetes_name"),
    "secret": ("name", "namespace_id", "kubernetes_name", "uid", "type"),
}


def _insert_many(kind: Kind) -> TextClause:
    columns = {name: f"r.{name}" for name in (*_FIXED[kind], *_COMMON)} | _OWN[kind]
    return text(
        f"INSERT INTO {kind}s ({', '.join(columns)}, created_by, updated_by) "  # noqa: S608 - only constants
        f"SELECT {', '.join(columns.values())}, :user_id, :user_id FROM {_ROWS} RETURNING id"
    )


def _update_many(kind: Kind) -> TextClause:
    # Unchanged values of a secret are null in the parameters.
    columns = {name: f"r.{name}" for name in _COMMON}
    columns |= {name: f"COALESCE({value}, c.{name})" for name, value in _OWN[kind].items()}
    return text(
        f"UPDATE {kind}s AS c SET {', '.join(f'{name} = {value}' for name, value in columns.items())}, "  # noqa: S608 - only constants
        "generation = c.generation + 1, resource_version = c.resource_version + 1, updated_at = now(), "
        f"updated_by = :user_id FROM {_ROWS} WHERE c.id = r.id"
    )


_INSERT_MANY = {kind: _insert_many(kind) for kind in TABLES}
_UPDATE_MANY = {kind: _update_many(kind) for kind in TABLES}
_FIRST_TAKEN = {
    kind: text(
        f"SELECT name FROM {kind}s "  # noqa: S608 - only constants
        "WHERE namespace_id = :namespace_id AND name = ANY (CAST(:names AS text[])) LIMIT 1"
    )
    for kind in TABLES
}
_MARK_MANY = {
    kind: text(
        f"UPDATE {kind}s SET deletion_requested_at = :moment, generation = generation + 1, "  # noqa: S608 - only constants
        "resource_version = resource_version + 1, updated_at = now(), updated_by = :user_id "
        "WHERE id = ANY (CAST(:ids AS bigint[]))"
    )
    for kind in TABLES
}
_SEALED = text("""
SELECT id, ciphertext, data_key, key_id FROM secrets WHERE id = ANY (CAST(:ids AS bigint[]))
""")


def new_uid() -> str:
    """Returns the permanent uid of a row to insert; its ciphertext is bound to this uid."""
    return str(uuid4())


async def insert_config_map(transaction: Transaction, wanted: ConfigMap) -> Config:
    """Inserts a row and returns it."""
    return await _insert(transaction, "config_map", wanted, _config_map_columns(wanted))


async def insert_config_maps(transaction: Transaction, wanted: Sequence[ConfigMap]) -> list[Config]:
    """Inserts rows with one statement, and returns them ordered by id."""
    rows = [{**_config_map_columns(each), **_place(each)} for each in wanted]
    return await _inserted(transaction, "config_map", rows)


async def insert_secrets(transaction: Transaction, wanted: Sequence[tuple[Secret, Sealed]]) -> list[Config]:
    """Inserts rows as `insert_config_maps` does."""
    rows = [
        {**_secret_columns(each), **_sealed_texts(sealed), **_place(each), "uid": each.uid, "type": each.type}
        for each, sealed in wanted
    ]
    return await _inserted(transaction, "secret", rows)


async def first_taken(
    transaction: ReadTransaction, kind: Kind, namespace_id: int, names: Sequence[str]
) -> str | None:
    """Returns one of the names that exists already, or None."""
    named = {"namespace_id": namespace_id, "names": list(names)}
    found: str | None = (await transaction.connection.execute(_FIRST_TAKEN[kind], named)).scalar_one_or_none()
    return found


async def insert_secret(transaction: Transaction, wanted: Secret, sealed: Sealed) -> Config:
    """Inserts a row and returns it."""
    values = _secret_columns(wanted) | _sealed_columns(sealed) | {"type": wanted.type}
    return await _insert(transaction, "secret", wanted, values)


async def update_config_map(transaction: Transaction, stored: Config, wanted: ConfigMap) -> Config:
    """Writes the desired state of a row that the transaction has locked, as its next generation."""
    return await _update(transaction, "config_map", stored, _config_map_columns(wanted))


async def update_secret(
    transaction: Transaction, stored: Config, wanted: Secret, sealed: Sealed | None
) -> Config:
    """Writes the desired state of a row that the transaction has locked; its values only if `sealed` is given."""
    values = _secret_columns(wanted) | ({} if sealed is None else _sealed_columns(sealed))
    return await _update(transaction, "secret", stored, values)


async def update_config_maps(transaction: Transaction, wanted: Sequence[ConfigMap]) -> list[Config]:
    """Writes the desired states of rows that the transaction has locked, with one statement; returns the rows."""
    rows = [{"id": each.id, **_config_map_columns(each)} for each in wanted]
    return await _updated(transaction, "config_map", rows)


async def update_secrets(
    transaction: Transaction, wanted: Sequence[tuple[Secret, Sealed | None]]
) -> list[Config]:
    """Writes rows as `update_config_maps` does; for a secret, its values only if they are given."""
    rows = [
        {"id": each.id, **_secret_columns(each), **({} if sealed is None else _sealed_texts(sealed))}
        for each, sealed in wanted
    ]
    return await _updated(transaction, "secret", rows)


async def mark_for_deletion(transaction: Transaction, kind: Kind, stored: Config) -> Config:
    """Marks for deletion a config that the transaction has locked."""
    return await _update(transaction, kind, stored, {"deletion_requested_at": await transaction.moment()})


async def mark_many(transaction: Transaction, kind: Kind, ids: Sequence[int]) -> list[Config]:
    """Marks configs that the transaction has locked, with one statement; returns them ordered by id."""
    parameters = {
        "ids": list(ids),
        "moment": await transaction.moment(),
        "user_id": transaction.actor.user_id,
    }
    await transaction.connection.execute(_MARK_MANY[kind], parameters)
    return await get_many(transaction, ids, kind)


async def find_sealed(transaction: ReadTransaction, secret_id: int) -> Sealed | None:
    """Returns the encrypted values of a secret; None if it was deleted."""
    query = select(SECRETS.c.ciphertext, SECRETS.c.data_key, SECRETS.c.key_id).where(
        SECRETS.c.id == secret_id
    )
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else Sealed(bytes(row.ciphertext), bytes(row.data_key), row.key_id)


async def find_many_sealed(transaction: ReadTransaction, ids: Sequence[int]) -> dict[int, Sealed]:
    """Returns the encrypted values of the existing secrets by their ids."""
    rows = (await transaction.connection.execute(_SEALED, {"ids": list(ids)})).all()
    return {row.id: Sealed(bytes(row.ciphertext), bytes(row.data_key), row.key_id) for row in rows}


async def _inserted(transaction: Transaction, kind: Kind, rows: Sequence[dict[str, Any]]) -> list[Config]:
    parameters = {"rows": orjson.dumps(rows).decode(), "user_id": transaction.actor.user_id}
    ids = (await transaction.connection.execute(_INSERT_MANY[kind], parameters)).scalars()
    return await get_many(transaction, list(ids), kind)


async def _updated(transaction: Transaction, kind: Kind, rows: Sequence[dict[str, Any]]) -> list[Config]:
    if not rows:
        return []
    parameters = {"rows": orjson.dumps(rows).decode(), "user_id": transaction.actor.user_id}
    await transaction.connection.execute(_UPDATE_MANY[kind], parameters)
    return await get_many(transaction, [each["id"] for each in rows], kind)


async def _insert(transaction: Transaction, kind: Kind, wanted: Config, values: dict[str, Any]) -> Config:
    table = TABLES[kind]
    statement = (
        insert(table)
        .values(
            **values,
            # The values of a secret are encrypted for a uid chosen before the insert; an orphan keeps its own uid.
            **({"uid": wanted.uid} if wanted.uid else {}),
            name=wanted.name,
            namespace_id=wanted.namespace_id,
            kubernetes_name=wanted.kubernetes_name,
            taken_over=wanted.taken_over or None,
            created_by=transaction.actor.user_id,
            updated_by=transaction.actor.user_id,
        )
        .returning(table.c.id)
    )
    return await whole(transaction, kind, (await transaction.connection.execute(statement)).scalar_one())


async def _update(transaction: Transaction, kind: Kind, stored: Config, values: dict[str, Any]) -> Config:
    await write_generation(transaction, TABLES[kind], stored.id, stored, values)
    return await whole(transaction, kind, stored.id)


def _config_map_columns(wanted: ConfigMap) -> dict[str, Any]:
    return {
        "data": wanted.data,
        "binary_data": binary_document(wanted.binary_data),
        **_common_columns(wanted),
    }


def _secret_columns(wanted: Secret) -> dict[str, Any]:
    return {"data": sizes_document(wanted.key_sizes), **_common_columns(wanted)}


def _common_columns(wanted: Config) -> dict[str, Any]:
    return {"immutable": wanted.immutable, "labels": wanted.labels, "annotations": wanted.annotations}


def _place(wanted: Config) -> dict[str, Any]:
    return {
        "name": wanted.name,
        "namespace_id": wanted.namespace_id,
        "kubernetes_name": wanted.kubernetes_name,
    }


def _sealed_texts(sealed: Sealed) -> dict[str, Any]:
    return {
        "ciphertext": base64.b64encode(sealed.ciphertext).decode(),
        "data_key": base64.b64encode(sealed.data_key).decode(),
        "key_id": sealed.key_id,
    }


def _sealed_columns(sealed: Sealed) -> dict[str, Any]:
    return {"ciphertext": sealed.ciphertext, "data_key": sealed.data_key, "key_id": sealed.key_id}
