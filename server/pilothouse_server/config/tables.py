"""The tables of config maps and secrets, with the columns that are queried here."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    LargeBinary,
    String,
    Table,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

from pilothouse_server.store.metadata import METADATA, generation_columns
from pilothouse_server.store.noun_tables import EnvelopeTable, NounTables


def _common() -> list[Column[Any]]:
    return [
        Column("id", BigInteger, primary_key=True),
        Column("uid", UUID(as_uuid=True)),
        Column("name", String(253)),
        Column("namespace_id", BigInteger),
        Column("kubernetes_name", String(253)),
        Column("taken_over", String(64)),
        Column("data", JSONB),
        Column("immutable", Boolean),
        Column("labels", JSONB),
        Column("annotations", JSONB),
        Column("conditions", JSONB),
        *generation_columns(),
    ]


CONFIG_MAPS = Table(
    "config_maps",
    METADATA,
    *_common(),
    Column("binary_data", JSONB),
    comment="Configuration that containers of a namespace read; not for secrets.",
)

SECRETS = Table(
    "secrets",
    METADATA,
    *_common(),
    Column("type", String(100)),
    Column("ciphertext", LargeBinary),
    Column("data_key", LargeBinary),
    Column("key_id", String(64)),
    comment="Secrets that containers of a namespace read, encrypted by the application.",
)

SEALED_SECRETS: Final = EnvelopeTable("secrets", "ciphertext", owner="namespace_id")
CONFIG_TABLES: Final = NounTables(tables=frozenset({"config_maps", "secrets"}), sealed=(SEALED_SECRETS,))
