"""Kubernetes quantities (`100m`, `1.5Gi`, `2e3`), exactly.

A quantity is stored as a whole number of billionths, Kubernetes' finest unit, so that comparing and adding are exact.
As in Kubernetes, finer values are rounded away from zero. The original notation is stored with the number, because the
canonical text depends on it: `1024` stays `1024` and `1Ki` stays `1Ki`, although they are equal.

`text` is the API server's form: the largest suffix that leaves a whole number, `0.5` as `500m`, `1.5Gi` as `1536Mi`.
There are two deviations from the API server, both stricter: a text without any digit (`.`, `Ki`) is refused instead of
being read as zero, and a magnitude above 2⁶³−1 is refused instead of being capped.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from functools import lru_cache

from pilothouse_server.values import InvalidValueError

NANOS = 10**9
LARGEST = 2**63 - 1
LONGEST_TEXT = 64

_DECIMAL_EXPONENTS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL_EXPONENTS.items()}
_BINARY_EXPONENTS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_BINARY_SUFFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_GRAMMAR = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?"
    r"(?:(?P<binary>[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,4})|(?P<decimal>[numkMGTPE]?))"
)
_RULE = (
    "must be a Kubernetes quantity: a number with one of the suffixes n u m k M G T P E Ki Mi Gi Ti Pi Ei,"
    " or an exponent, such as 500m, 64Mi or 1e3"
)


class Notation(enum.Enum):
    """How a quantity is written: powers of ten by suffix or by exponent, or powers of 1,024."""

    DECIMAL_SUFFIX = "decimal_suffix"
    DECIMAL_EXPONENT = "decimal_exponent"
    BINARY_SUFFIX = "binary_suffix"


@dataclass(frozen=True, order=True, slots=True)
class Quantity:
    """An amount. Equality and order depend only on the amount; `str()` and `text` return the canonical form."""

    nanos: int
    notation: Notation = field(default=Notation.DECIMAL_SUFFIX, compare=False)

    @classmethod
    def parse(cls, text: str, *, allow_negative: bool = False) -> Quantity:
        """Parses a quantity.

        Raises:
            InvalidValueError: not a quantity, too large, or negative without `allow_negative`.
        """
        if len(text) > LONGEST_TEXT:
            raise InvalidValueError(_RULE)
        return _parsed(text, allow_negative)

    @classmethod
    def _read(cls, text: str, allow_negative: bool) -> Quantity:
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise InvalidValueError(_RULE)
        whole, fraction = match["whole"], match["fraction"] or ""
        if not whole and not fraction:
            raise InvalidValueError(_RULE)
        digits = int(whole + fraction)
        factor, ten_exponent, notation = 1, 0, Notation.DECIMAL_SUFFIX
        if match["binary"]:
            factor, notation = 1 << _BINARY_EXPONENTS[match["binary"]], Notation.BINARY_SUFFIX
        elif match["exponent"]:
            ten_exponent, notation = int(match["exponent"]), Notation.DECIMAL_EXPONENT
        else:
            ten_exponent = _DECIMAL_EXPONENTS[match["decimal"] or ""]
        nanos = _scaled(digits * factor, ten_exponent - len(fraction) + 9)
        if match["sign"] == "-" and nanos:
            if not allow_negative:
                raise InvalidValueError("must not be negative")
            nanos = -nanos
        if notation is Notation.BINARY_SUFFIX and 0 < abs(nanos) < NANOS:
            notation = Notation.DECIMAL_SUFFIX
        return cls(nanos, notation)

    @classmethod
    def from_millicores(cls, millicores: int) -> Quantity:
        """Returns a cpu quantity, given in thousandths of a core."""
        return cls(millicores * (NANOS // 1000))

    @classmethod
    def from_bytes(cls, count: int) -> Quantity:
        """Returns a memory quantity, given in bytes, written with binary suffixes."""
        return cls(count * NANOS, Notation.BINARY_SUFFIX)

    @property
    def millicores(self) -> int:
        """Thousandths, rounded up: the unit in which cpu is counted."""
        return -(-self.nanos // (NANOS // 1000))

    @property
    def whole(self) -> int:
        """Whole units, rounded up: bytes for memory or storage."""
        return -(-self.nanos // NANOS)

    @property
    def text(self) -> str:
        """The canonical form, as the Kubernetes API server prints it."""
        if self.nanos == 0:
            return "0"
        if (
            self.notation is Notation.BINARY_SUFFIX
            and abs(self.nanos) >= 1024 * NANOS
            and self.nanos % NANOS == 0
        ):
            return self._binary_text()
        return self._decimal_text()

    def _binary_text(self) -> str:
        count, step = self.nanos // NANOS, 0
        while count % 1024 == 0 and step < len(_BINARY_SUFFIXES) - 1:
            count //= 1024
            step += 1
        return f"{count}{_BINARY_SUFFIXES[step]}"

    def _decimal_text(self) -> str:
        count, exponent = self.nanos, -9
        limit = 18 if self.notation is not Notation.DECIMAL_EXPONENT else 30
        while count % 1000 == 0 and exponent < limit:
            count //= 1000
            exponent += 3
        if self.notation is not Notation.DECIMAL_EXPONENT:
            return f"{count}{_DECIMAL_SUFFIXES[exponent]}"
        return f"{count}e{exponent}" if exponent else str(count)

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos + other.nanos, self.notation if self.nanos else other.notation)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nanos - other.nanos, self.notation if self.nanos else other.notation)

    def __mul__(self, times: int) -> Quantity:
        return Quantity(self.nanos * times, self.notation)


ZERO = Quantity(0)


def normalise(text: str) -> str:
    """Returns the canonical form of a non-negative quantity; empty stays empty.

    Raises:
        InvalidValueError: not a quantity, too large, or negative.
    """
    return Quantity.parse(text).text if text else ""


def quantity_problem(text: str) -> str | None:
    """Returns the rule that `text` breaks as a non-negative quantity, or None."""
    try:
        Quantity.parse(text)
    except InvalidValueError as error:
        return str(error)
    return None


def _scaled(digits: int, ten_exponent: int) -> int:
    """Returns digits · 10^ten_exponent, rounded up to a whole number. Raises InvalidValueError above the maximum."""
    if digits == 0:
        return 0
    if ten_exponent >= 0:
        # The exponent is checked before the power is computed: `1e9999` must not cost a number of ten thousand digits.
        if ten_exponent > 40:
            raise InvalidValueError("must not be above 2^63-1")
        nanos: int = digits * 10**ten_exponent
    else:
        nanos = -(-digits // 10 ** min(-ten_exponent, 200))
    if nanos > LARGEST * NANOS:
        raise InvalidValueError("must not be above 2^63-1")
    return nanos


@lru_cache(maxsize=4096)
def _parsed(text: str, allow_negative: bool) -> Quantity:
    """Parses a quantity, with a cache: each call parses the same few short texts several times."""
    return Quantity._read(text, allow_negative)
