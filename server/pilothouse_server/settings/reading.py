"""What the text of an environment variable is as the value of a setting.

Text that is empty is no value: the setting keeps its default. Where the default is something, the word none is what
takes it away.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec.structs import FieldInfo

from pilothouse_server.values import InvalidValueError

_NONE = "none"


def read(text: str, field: FieldInfo, *, may_be_none: bool) -> object:
    """The value, None where the setting keeps its default. Raises InvalidValueError: the words say what it must be."""
    if not text.strip():
        return None
    if may_be_none and text.strip().lower() == _NONE:
        return ""
    if "Path" in str(field.type.__origin__):
        return Path(text)
    try:
        return msgspec.convert(text, field.type, strict=False)
    except msgspec.ValidationError:
        raise InvalidValueError(f"must be {_kind(field.default)}") from None


def _kind(default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    return "a whole number" if isinstance(default, int) else "a number"
