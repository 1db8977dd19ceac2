"""Kubernetes label selectors: `app=web, tier in (a, b), env notin (test), !legacy, weight > 3`.

A selector is parsed once into requirements that must all hold. `matches` checks them in memory (watches);
`store.filtering` compiles the same requirements to SQL (lists). Grammar and meaning are those of Kubernetes: `!=` and
`notin` also hold if the key is missing; `()` and a missing item mean the empty value; `>` and `<` compare whole numbers
and do not hold for any other value.

`text` is canonical: two selectors with the same requirements have the same text, so that page and resume tokens can be
bound to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.names import label_key_problem, label_value_problem

MOST_REQUIREMENTS = 64
MOST_VALUES = 256
LARGEST_NUMBER = 2**63 - 1

_TOKEN = re.compile(r"\s*(?:(?P<symbol>==|!=|[=!<>(),])|(?P<word>[^\s=!<>(),]+))")
_NUMBER = re.compile(r"[+-]?[0-9]{1,63}")


class Operator(Enum):
    """The condition that a requirement sets for its key."""

    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    NOT_EXISTS = "!"
    GREATER = ">"
    LESS = "<"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition. `values`: sorted, without duplicates; for GREATER and LESS one whole number."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Returns whether `labels` fulfil the requirement."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value is not None and value in self.values
            case Operator.NOT_IN:
                return value is None or value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.NOT_EXISTS:
                return value is None
            case Operator.GREATER | Operator.LESS:
                number = whole_number(value)
                if number is None:
                    return False
                return number > self.number if self.operator is Operator.GREATER else number < self.number

    @property
    def number(self) -> int:
        """The whole number that GREATER and LESS compare with."""
        return int(self.values[0])

    @property
    def text(self) -> str:
        """The canonical form."""
        match self.operator:
            case Operator.EXISTS:
                return self.key
            case Operator.NOT_EXISTS:
                return f"!{self.key}"
            case Operator.GREATER | Operator.LESS:
                return f"{self.key}{self.operator.value}{self.values[0]}"
            case Operator.IN | Operator.NOT_IN:
                if len(self.values) == 1:
                    return f"{self.key}{'=' if self.operator is Operator.IN else '!='}{self.values[0]}"
                return f"{self.key} {self.operator.value} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all hold; without requirements it selects everything. Hashable."""

    requirements: tuple[Requirement, ...] = ()
    text: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", ",".join(requirement.text for requirement in self.requirements))

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Parses a selector; empty text selects everything.

        Raises:
            InvalidValueError: the text breaks the grammar; the message names the place.
        """
        requirements = set(_Parser(text).requirements())
        return cls(tuple(sorted(requirements, key=lambda item: (item.key, item.operator.value, item.values))))

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> LabelSelector:
        """Returns the selector of everything that has all of `labels` (`matchLabels`)."""
        return cls(tuple(Requirement(key, Operator.IN, (value,)) for key, value in sorted(labels.items())))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Returns whether `labels` fulfil every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def to_json(self) -> list[dict[str, object]]:
        """Returns the requirements in the form of Kubernetes' `matchExpressions`, plus `Gt` and `Lt`."""
        return [
            {"key": item.key, "operator": _JSON_OPERATORS[item.operator], "values": list(item.values)}
            for item in self.requirements
        ]

    def __bool__(self) -> bool:
        return bool(self.requirements)

    def __str__(self) -> str:
        return self.text


_JSON_OPERATORS = {
    Operator.IN: "In",
    Operator.NOT_IN: "NotIn",
    Operator.EXISTS: "Exists",
    Operator.NOT_EXISTS: "DoesNotExist",
    Operator.GREATER: "Gt",
    Operator.LESS: "Lt",
}


def label_selector_problem(text: str) -> str | None:
    """Returns the rule that `text` breaks as a label selector, or None."""
    try:
        LabelSelector.parse(text)
    except InvalidValueError as error:
        return str(error)
    return None


def whole_number(text: str | None) -> int | None:
    """Returns a label's value as a whole number of 64 bits; None if it is not one."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if -LARGEST_NUMBER - 1 <= number <= LARGEST_NUMBER else None


class _Parser:
    """A recursive-descent parser over tokens (text, is a word, position); the last token is an empty end mark."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, bool, int]] = []
        position = 0
        while match := _TOKEN.match(text, position):
            word = match["word"] is not None
            self._tokens.append(
                (match["word"] if word else match["symbol"], word, match.end() - len(match[0].lstrip()))
            )
            position = match.end()
        self._tokens.append(("", False, len(text)))
        self._index = 0

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        if self._peek() == "":
            return found
        while True:
            found.append(self._requirement())
            if len(found) > MOST_REQUIREMENTS:
                raise InvalidValueError(f"must not have more than {MOST_REQUIREMENTS} requirements")
            if self._peek() == "":
                return found
            self._expect(",")

    def _requirement(self) -> Requirement:
        if self._accept("!"):
            return Requirement(self._key(), Operator.NOT_EXISTS)
        key = self._key()
        if self._peek() in (",", ""):
            return Requirement(key, Operator.EXISTS)
        if self._accept("=") or self._accept("=="):
            return Requirement(key, Operator.IN, (self._value(),))
        if self._accept("!="):
            return Requirement(key, Operator.NOT_IN, (self._value(),))
        for symbol, operator in ((">", Operator.GREATER), ("<", Operator.LESS)):
            if self._accept(symbol):
                return Requirement(key, operator, (self._number(),))
        for symbol, operator in (("in", Operator.IN), ("notin", Operator.NOT_IN)):
            if self._accept(symbol):
                return Requirement(key, operator, self._values())
        raise self._error("expected one of , = == != in notin > <")

    def _values(self) -> tuple[str, ...]:
        self._expect("(")
        values = {self._value()}
        while self._accept(","):
            values.add(self._value())
            if len(values) > MOST_VALUES:
                raise InvalidValueError(f"must not have more than {MOST_VALUES} values")
        self._expect(")")
        return tuple(sorted(values))

    def _key(self) -> str:
        text, is_word, _ = self._tokens[self._index]
        if not is_word:
            raise self._error("expected a label key")
        if problem := label_key_problem(text):
            raise self._error(f"the key {problem}")
        self._index += 1
        return text

    def _value(self) -> str:
        text, is_word, _ = self._tokens[self._index]
        if not is_word:
            return ""
        if problem := label_value_problem(text):
            raise self._error(f"the value {problem}")
        self._index += 1
        return text

    def _number(self) -> str:
        number = whole_number(self._peek())
        if number is None:
            raise self._error("expected a whole number")
        self._index += 1
        return str(number)

    def _peek(self) -> str:
        return self._tokens[self._index][0]

    def _accept(self, text: str) -> bool:
        if self._peek() == text:
            self._index += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._error(f"expected {text}")

    def _error(self, description: str) -> InvalidValueError:
        return InvalidValueError(f"position {self._tokens[self._index][2] + 1}: {description}")
