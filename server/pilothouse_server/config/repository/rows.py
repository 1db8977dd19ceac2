"""Converts rows to values: the table of each kind, and the meaning of its columns."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Select, Table, select

from pilothouse_server.config.model import Config, ConfigMap, Kind, Secret
from pilothouse_server.config.tables import CONFIG_MAPS, SECRETS
from pilothouse_server.store.references import IN_NAMESPACE, NAMESPACES, USERS, reconciled_fields
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.resources import Condition

TABLES: dict[Kind, Table] = {"config_map": CONFIG_MAPS, "secret": SECRETS}
# The ciphertext never leaves the database with these queries.
_LEFT_OUT = {"ciphertext", "data_key"}


@cache
def selected(kind: Kind) -> Select[Any]:
    """Selects every column of a kind that may be shown, with the names of its namespace and its creator."""
    table = TABLES[kind]
    return select(
        *(column for column in table.columns if column.name not in _LEFT_OUT),
        *IN_NAMESPACE,
        USERS.c.username.label("creator"),
    ).select_from(
        # An ended namespace contains no configs, so this query need not exclude ended ones.
        table.join(NAMESPACES, NAMESPACES.c.id == table.c.namespace_id).outerjoin(
            USERS, USERS.c.id == table.c.created_by
        )
    )


async def whole(transaction: ReadTransaction, kind: Kind, config_id: int) -> Config:
    """Returns a row that was just written, as it is stored."""
    query = selected(kind).where(TABLES[kind].c.id == config_id)
    return value(kind, (await transaction.connection.execute(query)).one())


def value(kind: Kind, row: Row) -> Config:
    """Returns the value of a row of `selected(kind)`."""
    return _config_map(row) if kind == "config_map" else _secret(row)


def binary_document(data: dict[str, bytes]) -> dict[str, str]:
    """Returns bytes by key in base64, for JSON."""
    return {key: base64.b64encode(each).decode() for key, each in data.items()}


def sizes_document(sizes: dict[str, int]) -> dict[str, dict[str, int]]:
    """Returns the visible part of a secret's values, in the form of the column `secrets.data`."""
    return {key: {"size_bytes": size} for key, size in sizes.items()}


def _config_map(row: Row) -> ConfigMap:
    return ConfigMap(
        **_common(row),
        data=row.data,
        binary_data={key: base64.b64decode(text) for key, text in row.binary_data.items()},
    )


def _secret(row: Row) -> Secret:
    return Secret(
        **_common(row),
        type=row.type,
        key_sizes={key: each["size_bytes"] for key, each in row.data.items()},
        key_id=row.key_id,
    )


def _common(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "uid": str(row.uid),
        "name": row.name,
        "kubernetes_name": row.kubernetes_name,
        "taken_over": row.taken_over or "",
        "immutable": row.immutable,
        "labels": row.labels,
        "annotations": row.annotations,
        "conditions": msgspec.convert(row.conditions, tuple[Condition, ...], strict=False),
        **reconciled_fields(row),
    }
