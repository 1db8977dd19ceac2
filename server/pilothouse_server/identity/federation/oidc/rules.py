"""Rules that turn an issuer's claims about a person into grants of roles.

A rule has conditions, all of which must hold, a role, and namespaces. A condition is about one claim: the claim equals
a value, begins with a text, or is a list that contains a value. A claim that is missing or of another type fulfils no
condition, so a token without its groups gives less and never more.

The operator writes the rules in a file of the server. Therefore no caller needs to hold the permissions that they give.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from pilothouse_server.identity.federation.oidc.documents import DocumentEntry, Scalar

# In place of the namespaces of a rule: it gives the role over all namespaces.
EVERYWHERE: Final = "*"
_OPERATORS: Final = ("equals", "prefix", "contains")
Operator = Literal["equals", "prefix", "contains"]


class ClaimCondition(msgspec.Struct, frozen=True):
    """A condition on one claim. `claim` is its path: one name, or several from the outermost object inwards."""

    claim: tuple[str, ...]
    operator: Operator
    value: Scalar

    def holds(self, claims: Mapping[str, Any]) -> bool:
        """Returns whether the claims of a token fulfil this condition."""
        found: object = claims
        for name in self.claim:
            if not isinstance(found, Mapping) or name not in found:
                return False
            found = found[name]
        if self.operator == "equals":
            return _same(found, self.value)
        if self.operator == "contains":
            return isinstance(found, list) and any(_same(each, self.value) for each in found)
        texts = found if isinstance(found, list) else [found]
        return any(isinstance(each, str) and each.startswith(str(self.value)) for each in texts)


class Gives(msgspec.Struct, frozen=True):
    """A role in one namespace, or over all namespaces if `namespace` is empty."""

    role: str
    namespace: str


class ClaimRule(msgspec.Struct, frozen=True):
    """Gives `role` in `namespaces` to a user if all of `conditions` hold.

    `place` is the rule's place in the file.
    """

    place: str
    conditions: tuple[ClaimCondition, ...]
    role: str
    namespaces: tuple[str, ...]

    def gives(self) -> Iterable[Gives]:
        """Returns the grants for a user who fulfils the conditions."""
        return (Gives(self.role, "" if name == EVERYWHERE else name) for name in self.namespaces)


def given_by(rules: Sequence[ClaimRule], claims: Mapping[str, Any]) -> frozenset[Gives]:
    """Returns all grants that the rules give to the user with these claims."""
    return frozenset(given for rule in rules if fits(rule.conditions, claims) for given in rule.gives())


def fits(conditions: Sequence[ClaimCondition], claims: Mapping[str, Any]) -> bool:
    """Returns whether the claims fulfil every condition; False if there is no condition."""
    return bool(conditions) and all(condition.holds(claims) for condition in conditions)


def read_rule(entry: DocumentEntry) -> ClaimRule:
    """Reads a rule of the file. Raises SettingsError."""
    namespaces = entry.texts("namespaces")
    if EVERYWHERE in namespaces and len(namespaces) > 1:
        raise entry.wrong("namespaces", f'must be "{EVERYWHERE}" alone, which means all namespaces, or names')
    rule = ClaimRule(entry.place, read_conditions(entry), entry.text("role", most=50), namespaces)
    entry.finish()
    return rule


def read_conditions(entry: DocumentEntry) -> tuple[ClaimCondition, ...]:
    """Reads the conditions under `when`. Raises SettingsError."""
    return tuple(_condition(each) for each in entry.entries("when", needed=True, most=20))


def _condition(entry: DocumentEntry) -> ClaimCondition:
    operators: list[Operator] = [name for name in ("equals", "prefix", "contains") if entry.given(name)]
    if len(operators) != 1:
        raise entry.wrong(
            _OPERATORS[0], f"exactly one of this key, {' and '.join(_OPERATORS[1:])} must be given"
        )
    operator = operators[0]
    value = entry.text(operator) if operator == "prefix" else entry.scalar(operator)
    if value == "":
        raise entry.wrong(operator, "must not be empty")
    condition = ClaimCondition(entry.path_of_claim("claim"), operator, value)
    entry.finish()
    return condition


def _same(found: object, value: Scalar) -> bool:
    # In Python True == 1, but the claim `true` must not equal the number 1.
    return type(found) is type(value) and found == value
