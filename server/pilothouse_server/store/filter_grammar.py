"""The grammar of filters: a subset of AIP-160, from text to a tree.

    filter      = [ expression ]
    expression  = sequence { "AND" sequence }
    sequence    = factor { factor }                adjacent factors must all be true
    factor      = term { "OR" term }               OR binds closer than AND, as in AIP-160
    term        = [ "NOT" | "-" ] ( restriction | "(" expression ")" )
    restriction = field operator value             operator: = != < <= > >= :
    field       = name { "." ( name | string ) }   labels.app, labels."app.kubernetes.io/name"
    value       = text | string                    string in " or ', with \\ before ", ', \\ and *

The parser refuses the rest of AIP-160 (functions, bare words that search everywhere).
Length, depth and the number of restrictions are bounded, so that every filter costs little. Every error has
the position, counted from 1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pilothouse_server.errors import InvalidArgument, Violation

LONGEST_FILTER = 2048
MOST_RESTRICTIONS = 64
DEEPEST_NESTING = 16

_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<time>[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]+(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?)"
    r"|(?P<string>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')"
    r"|(?P<symbol><=|>=|!=|[=<>:(),])"
    r"|(?P<word>[^\s\"'=!<>:(),]+)"
    r")",
    re.DOTALL,
)
_WORDS_OF_GRAMMAR = frozenset({"AND", "OR", "NOT"})
_OPERATORS = frozenset({"=", "!=", "<", "<=", ">", ">=", ":"})


@dataclass(frozen=True, slots=True)
class Literal:
    """A value of a filter. `text` has its escapes resolved and its wildcards removed.

    `starts_open` and `ends_open` mean that the value had an unescaped `*` there; `*` alone is both, with an empty text.
    """

    text: str
    position: int
    starts_open: bool = False
    ends_open: bool = False

    @property
    def is_any(self) -> bool:
        """Whether the value is `*` alone, which means any value that is not missing."""
        return not self.text and (self.starts_open or self.ends_open)


@dataclass(frozen=True, slots=True)
class Restriction:
    """One comparison.

    `key` is the part after the first `.` of the field, such as a label's key.
    """

    field: str
    key: str | None
    operator: str
    value: Literal
    position: int


@dataclass(frozen=True, slots=True)
class Not:
    """True where `operand` is not."""

    operand: Node


@dataclass(frozen=True, slots=True)
class Junction:
    """True where all operands are true (`every`), or any of them."""

    every: bool
    operands: tuple[Node, ...]


Node = Restriction | Not | Junction


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int
    end: int


def filter_error(position: int, description: str) -> InvalidArgument:
    """Returns the error for a filter, at a position counted from 0."""
    text = f"position {position + 1}: {description}"
    return InvalidArgument(
        f"filter: {text}",
        reason="INVALID_FILTER",
        metadata={"field": "filter", "position": str(position + 1)},
        violations=(Violation("filter", "filter", text),),
    )


def parse(text: str) -> Node | None:
    """Parses a filter; returns None if it is empty, so that everything passes.

    Raises:
        InvalidArgument: of the field `filter`; the message has the position.
    """
    if len(text) > LONGEST_FILTER:
        raise filter_error(LONGEST_FILTER, f"must not be longer than {LONGEST_FILTER} characters")
    tokens = _tokens(text)
    return _Parser(tokens).whole() if len(tokens) > 1 else None


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            raise filter_error(
                start, "a string without a closing quote" if text[start] in "\"'" else "unexpected character"
            )
        kind = match.lastgroup or ""
        tokens.append(_Token(kind, match[kind], match.start(kind), match.end()))
        position = match.end()
    tokens.append(_Token("end", "", end, end))
    return tokens


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._index = 0
        self._depth = 0
        self._restrictions = 0

    def whole(self) -> Node:
        node = self._expression()
        if self._now.kind != "end":
            raise self._error("unexpected )" if self._now.text == ")" else "expected AND, OR or the end")
        return node

    @property
    def _now(self) -> _Token:
        return self._tokens[self._index]

    def _take(self) -> _Token:
        token = self._now
        self._index += 1
        return token

    def _accept(self, kind: str, text: str) -> bool:
        if self._now.kind == kind and self._now.text == text:
            self._index += 1
            return True
        return False

    def _error(self, description: str) -> InvalidArgument:
        return filter_error(self._now.position, description)

    def _expression(self) -> Node:
        operands = [self._sequence()]
        while self._accept("word", "AND"):
            operands.append(self._sequence())
        return _junction(True, operands)

    def _sequence(self) -> Node:
        operands = [self._factor()]
        while self._now.kind not in ("end", "symbol") or self._now.text == "(":
            if self._now.kind == "word" and self._now.text in ("AND", "OR"):
                break
            operands.append(self._factor())
        return _junction(True, operands)

    def _factor(self) -> Node:
        operands = [self._term()]
        while self._accept("word", "OR"):
            operands.append(self._term())
        return _junction(False, operands)

    def _term(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST_NESTING:
            raise self._error(f"must not be nested deeper than {DEEPEST_NESTING}")
        try:
            if self._accept("word", "NOT") or self._accept("word", "-"):
                return Not(self._term())
            if self._now.kind == "word" and self._now.text.startswith("-"):
                # A minus right before a name: remove it and parse the rest.
                token = self._now
                self._tokens[self._index] = _Token("word", token.text[1:], token.position + 1, token.end)
                return Not(self._term())
            if self._accept("symbol", "("):
                inner = self._expression()
                if not self._accept("symbol", ")"):
                    raise self._error("expected )")
                return inner
            return self._restriction()
        finally:
            self._depth -= 1

    def _restriction(self) -> Restriction:
        self._restrictions += 1
        if self._restrictions > MOST_RESTRICTIONS:
            raise self._error(f"must not have more than {MOST_RESTRICTIONS} comparisons")
        start = self._now
        if start.kind != "word" or start.text in _WORDS_OF_GRAMMAR:
            raise self._error("expected the name of a field")
        self._index += 1
        name, dot, key = start.text.partition(".")
        if dot and not key and self._now.kind == "string" and self._now.position == start.end:
            key = _unquoted(self._take()).text
        if not name or (dot and not key):
            raise filter_error(start.position, "expected the name of a field, with a key after the .")
        operator = self._now
        if operator.kind != "symbol" or operator.text not in _OPERATORS:
            functions = operator.text == "("
            raise self._error(
                "functions are not supported"
                if functions
                else "expected one of = != < <= > >= : after the field"
            )
        self._index += 1
        return Restriction(name, key if dot else None, operator.text, self._value(), start.position)

    def _value(self) -> Literal:
        token = self._now
        if token.kind == "string":
            return _unquoted(self._take())
        if token.kind not in ("word", "time") or token.text in _WORDS_OF_GRAMMAR:
            raise self._error("expected a value; put it in quotes if it has spaces or special characters")
        self._index += 1
        return _literal(token.text, token.position, frozenset())


def _junction(every: bool, operands: list[Node]) -> Node:
    return operands[0] if len(operands) == 1 else Junction(every, tuple(operands))


def _unquoted(token: _Token) -> Literal:
    characters: list[str] = []
    escaped: set[int] = set()
    body = iter(token.text[1:-1])
    for character in body:
        if character == "\\":
            character = next(body)
            if character not in "\"'\\*":
                raise filter_error(token.position, "\\ is only allowed before \" ' \\ and *")
            escaped.add(len(characters))
        characters.append(character)
    return _literal("".join(characters), token.position, frozenset(escaped))


def _literal(text: str, position: int, escaped: frozenset[int]) -> Literal:
    """Removes the wildcards; indices in `escaped` are literal stars."""
    if "\0" in text:
        raise filter_error(position, "must not contain U+0000")
    stars = [index for index, character in enumerate(text) if character == "*" and index not in escaped]
    last = len(text) - 1
    if any(index not in (0, last) for index in stars):
        raise filter_error(position, "* is only allowed at the beginning or the end of a value")
    starts_open, ends_open = 0 in stars, last in stars
    begin, end = (1 if starts_open else 0), (last if ends_open else last + 1)
    return Literal(text[begin:end] if begin <= end else "", position, starts_open, ends_open)
