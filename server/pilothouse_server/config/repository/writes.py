"""SQL that writes the desired state of config maps and secrets. It sees a secret's values as ciphertext."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import orjson
from sqlalchemy import func, insert, select, text, update

from pilothouse_server.config.model import Config, ConfigMap, Kind, Secret
from pilothouse_server.config.repository.configs import get_many
from pilothouse_server.config.repository.rows import TABLES, binary_document, sizes_document, whole
from pilothouse_server.config.tables import SECRETS
from pilothouse_server.encryption.envelopes import Sealed
from pilothouse_server.errors import already_exists
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

register_constraint("uq_config_maps_name", lambda: already_exists("config map", "of this name"))
register_constraint("uq_secrets_name", lambda: already_exists("secret", "of this name"))

_INSERT_MANY = text("""
INSERT INTO config_maps (name, namespace_id, kubernetes_name, data, binary_data, immutable, labels, annotations,
    created_by, updated_by)
SELECT r.name, r.namespace_id, r.kubernetes_name, r.data, r.binary_data, r.immutable, r.labels, r.annotations,
    :user_id, :user_id
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    name text, namespace_id bigint, kubernetes_name text, data jsonb, binary_data jsonb, immutable boolean,
    labels jsonb, annotations jsonb)
RETURNING id
""")
_FIRST_TAKEN = text("""
SELECT name FROM config_maps WHERE namespace_id = :namespace_id AND name = ANY (CAST(:names AS text[])) LIMIT 1
""")


def new_uid() -> str:
    """The permanent identifier of a row that is to be inserted: its ciphertext is bound to it."""
    return str(uuid4())


async def insert_config_map(transaction: Transaction, wanted: ConfigMap) -> Config:
    """Adds a row and answers it whole."""
    return await _insert(transaction, "config_map", wanted, _config_map_columns(wanted))


async def insert_config_maps(transaction: Transaction, wanted: Sequence[ConfigMap]) -> list[Config]:
    """Adds new rows by one statement, and returns them whole, in the order of their ids."""
    rows = [
        {
            **_config_map_columns(each),
            "name": each.name,
            "namespace_id": each.namespace_id,
            "kubernetes_name": each.kubernetes_name,
        }
        for each in wanted
    ]
    parameters = {"rows": orjson.dumps(rows).decode(), "user_id": transaction.actor.user_id}
    ids = (await transaction.connection.execute(_INSERT_MANY, parameters)).scalars()
    return await get_many(transaction, list(ids), "config_map")


async def first_taken(transaction: ReadTransaction, namespace_id: int, names: Sequence[str]) -> str | None:
    """Returns one of these names that a config map has; None if there is none."""
    named = {"namespace_id": namespace_id, "names": list(names)}
    found: str | None = (await transaction.connection.execute(_FIRST_TAKEN, named)).scalar_one_or_none()
    return found


async def insert_secret(transaction: Transaction, wanted: Secret, sealed: Sealed) -> Config:
    """Adds a row and answers it whole."""
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


async def mark_for_deletion(transaction: Transaction, kind: Kind, stored: Config) -> Config:
    """Marks one that the transaction has locked."""
    return await _update(transaction, kind, stored, {"deletion_requested_at": await transaction.moment()})


async def find_sealed(transaction: ReadTransaction, secret_id: int) -> Sealed | None:
    """The encrypted values of a secret; None if it is gone."""
    query = select(SECRETS.c.ciphertext, SECRETS.c.data_key, SECRETS.c.key_id).where(
        SECRETS.c.id == secret_id
    )
    row = (await transaction.connection.execute(query)).one_or_none()
    return None if row is None else Sealed(bytes(row.ciphertext), bytes(row.data_key), row.key_id)


async def _insert(transaction: Transaction, kind: Kind, wanted: Config, values: dict[str, Any]) -> Config:
    table = TABLES[kind]
    statement = (
        insert(table)
        .values(
            **values,
            # Values of a secret are encrypted for its uid before; one that is on the cluster already keeps its own.
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
    table = TABLES[kind]
    await transaction.connection.execute(
        update(table)
        .where(table.c.id == stored.id)
        .values(
            **values,
            generation=table.c.generation + 1,
            resource_version=table.c.resource_version + 1,
            updated_at=func.now(),
            updated_by=transaction.actor.user_id,
        )
    )
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


def _sealed_columns(sealed: Sealed) -> dict[str, Any]:
    return {"ciphertext": sealed.ciphertext, "data_key": sealed.data_key, "key_id": sealed.key_id}
