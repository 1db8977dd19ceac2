"""The settings as a list, with their defaults: what `pilothouse serve --help` shows."""

from __future__ import annotations

import msgspec

from pilothouse_server.settings.model import PREFIX, Settings


def described() -> list[tuple[str, str, str]]:
    """Every setting as its variable, its default as one would write it, and what it is."""
    return [
        (f"{PREFIX}{field.name.upper()}", _written(field.default), field.type.__metadata__[0])
        for field in msgspec.structs.fields(Settings)
    ]


def _written(default: object) -> str:
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)
