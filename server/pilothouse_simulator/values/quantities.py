"""Resource amounts (`10m`, `1.5Gi`): parsing, comparing, and the canonical spelling the real server stores."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Decimal

_PATTERN = re.compile(r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(.*)$")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_EXPONENT = re.compile(r"^[eE]([+-]?[0-9]+)$")


def is_quantity(text: str) -> bool:
    """Returns whether the text is a quantity."""
    match = _PATTERN.match(text)
    if match is None:
        return False
    suffix = match[2]
    return suffix in _DECIMAL or suffix in _BINARY or _EXPONENT.match(suffix) is not None


def parse_quantity(text: str | int | float) -> Decimal:
    """Returns the amount in base units (cores, bytes). Raises ValueError if the text is not a quantity."""
    match = _PATTERN.match(str(text))
    if match is None:
        raise ValueError(f"not a quantity: {text}")
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY:
        return number * Decimal(1024 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    exponent = _EXPONENT.match(suffix)
    if exponent is None:
        raise ValueError(f"not a quantity: {text}")
    return number.scaleb(int(exponent[1]))


def canonical_quantity(text: str) -> str:
    """Returns the canonical spelling: without fraction and with the largest fitting suffix of the same family."""
    match = _PATTERN.match(text)
    if match is None:
        raise ValueError(f"not a quantity: {text}")
    value, suffix = parse_quantity(text), match[2]
    if value == 0:
        return "0"
    if suffix in _BINARY and abs(value) >= 1024:
        whole = int(value.to_integral_value(ROUND_CEILING))
        for name, power in reversed(_BINARY.items()):
            if whole % (1024**power) == 0:
                return f"{whole // 1024**power}{name}"
        return str(whole)
    exponent_form = _EXPONENT.match(suffix) is not None
    for name, power in reversed(_DECIMAL.items()):
        scaled = value.scaleb(-power)
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{f'e{power}' if exponent_form and power else '' if exponent_form else name}"
    return f"{int(value.scaleb(9).to_integral_value(ROUND_CEILING))}n"
