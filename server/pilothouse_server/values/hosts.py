"""Names of hosts, and the patterns for hosts that a namespace may use: `shop.example`, `*.shop.example`.

`*.x` covers one label in an Ingress and any number of labels in the Gateway API. A carried object may be either, so
here it covers any number. It does not cover `x` itself. Two patterns therefore overlap only if one covers the other.
The database function `hosts_overlap` decides the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONGEST = 253
_WILDCARD = "*."
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# IDNA 2003 and 2008 convert these to different names: sharp s, final sigma, and two joiners.
_AMBIGUOUS = frozenset("\u00df\u1e9e\u03c2\u200c\u200d")


class HostError(ValueError):
    """A text that is not a host or a pattern. `rule`: the rule that it breaks, such as `must be …`."""

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


def normalised(host: str) -> str:
    """Returns a host, or a pattern `*.x`, in lower case, as A-labels, without a final dot.

    Raises HostError with the broken rule.
    """
    if len(host) > _LONGEST + 1:
        raise HostError(f"must have at most {_LONGEST} characters")
    prefix = _WILDCARD if host.startswith(_WILDCARD) else ""
    name = _ascii(host.removeprefix(_WILDCARD)).lower().removesuffix(".")
    if len(prefix) + len(name) > _LONGEST:
        raise HostError(f"must have at most {_LONGEST} characters")
    if not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise HostError(
            "must be a DNS name such as shop.example or *.shop.example: labels of letters, digits and - between dots"
        )
    return prefix + name


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    if not _AMBIGUOUS.isdisjoint(name):
        raise HostError("has a character that programs encode differently; write the label as xn--…")
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        raise HostError("must be a DNS name; its non-ASCII letters cannot be encoded") from None


def covers(pattern: str, host: str) -> bool:
    """Returns whether a pattern covers a host, or all hosts of a second pattern. Both are normalised."""
    if pattern.startswith(_WILDCARD):
        return host.endswith(pattern[1:])
    return host == pattern


def is_covered(host: str, patterns: Iterable[str]) -> bool:
    """Returns whether one of these patterns covers a host."""
    return any(covers(pattern, host) for pattern in patterns)


def overlap(first: str, second: str) -> bool:
    """Returns whether some host is covered by both patterns. Both are normalised."""
    return covers(first, second) or covers(second, first)
