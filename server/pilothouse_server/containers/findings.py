"""The broken rules of a requested container, collected so that one response names them together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pilothouse_server.errors import InvalidArgument, Violation, missing_field


class Findings:
    """Collects broken rules, and raises them as one error."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def add(self, field: str, rule: str, description: str) -> None:
        """Notes one violation."""
        self._violations.append(Violation(field, rule, description))

    def missing(self, field: str) -> None:
        """Notes a field that must be given and is empty."""
        self._violations.append(missing_field(field))

    def one_of(self, field: str, value: str, allowed: Sequence[str]) -> None:
        """Notes a value that is not allowed; an empty value is allowed."""
        if value and value not in allowed:
            self.add(field, "one_of", f"must be one of {', '.join(allowed)}")

    def unique(self, field: str, keys: Iterable[tuple[int, object]], what: str) -> None:
        """Notes each item that has the same key as an earlier item."""
        seen: set[object] = set()
        for index, key in keys:
            if key in seen:
                self.add(f"{field}[{index}]", "unique", f"{what} is duplicate")
            seen.add(key)

    def raise_if_any(self) -> None:
        """Raises InvalidArgument with the first 20 violations, if any were noted."""
        if self._violations:
            first = self._violations[0]
            more = f" (and {len(self._violations) - 1} more)" if len(self._violations) > 1 else ""
            raise InvalidArgument(
                f"{first.field}: {first.description}{more}",
                reason="INVALID_CONTAINER",
                metadata={"field": first.field},
                violations=self._violations[:20],
            )
