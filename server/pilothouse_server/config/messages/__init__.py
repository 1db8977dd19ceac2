"""Config maps and secrets: value ↔ protobuf."""

from __future__ import annotations

from pilothouse_server.config.messages.config_maps import (
    CONFIG_MAP_UPDATABLE,
    config_map,
    render_config_map,
    single_keys,
    wanted_config_map,
)
from pilothouse_server.config.messages.keys import encryption_keys
from pilothouse_server.config.messages.secrets import (
    SECRET_UPDATABLE,
    asked_change,
    asked_secret,
    render_secret,
    secret,
)

__all__ = [
    "CONFIG_MAP_UPDATABLE",
    "SECRET_UPDATABLE",
    "asked_change",
    "asked_secret",
    "config_map",
    "encryption_keys",
    "render_config_map",
    "render_secret",
    "secret",
    "single_keys",
    "wanted_config_map",
]
