"""SQL for config maps and secrets.

Both have tables of one shape, so most statements are written once and take a `Kind`. Only `find_sealed` and
`find_many_sealed` read the ciphertext of a secret; statements that list and show secrets never contain it.
"""

from __future__ import annotations

from pilothouse_server.config.repository.configs import (
    CACHED,
    count,
    find,
    get,
    get_many,
    lock_named,
    remove,
    stream,
    write_observed,
)
from pilothouse_server.config.repository.writes import (
    find_many_sealed,
    find_sealed,
    first_taken,
    insert_config_map,
    insert_config_maps,
    insert_secret,
    insert_secrets,
    mark_for_deletion,
    mark_many,
    new_uid,
    update_config_map,
    update_config_maps,
    update_secret,
    update_secrets,
)

__all__ = [
    "CACHED",
    "count",
    "find",
    "find_many_sealed",
    "find_sealed",
    "first_taken",
    "get",
    "get_many",
    "insert_config_map",
    "insert_config_maps",
    "insert_secret",
    "insert_secrets",
    "lock_named",
    "mark_for_deletion",
    "mark_many",
    "new_uid",
    "remove",
    "stream",
    "update_config_map",
    "update_config_maps",
    "update_secret",
    "update_secrets",
    "write_observed",
]
