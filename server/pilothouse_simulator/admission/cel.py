"""The part of the Common Expression Language that `x-kubernetes-validations` of CustomResourceDefinitions use.

`compile_rule` turns a rule into a function of its variables (`self`, `oldSelf`). A rule with a function or an operator
that is not implemented here raises `UnsupportedRuleError`; the caller skips such a rule. A rule that fails while it
runs (a missing field, mismatched types) raises `ExpressionError`, and the object is refused as in the real server.

The grammar is that of the language definition (github.com/google/cel-spec). `&&` and `||` ignore an error on one side
if the other side decides the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Variables = Mapping[str, Any]
Expression = Callable[[Variables], Any]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>r?'''(?:.|\n)*?'''|r?\"\"\"(?:.|\n)*?\"\"\"|r'[^']*'|r"[^"]*"|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
    | (?P<number>\d+\.\d+|0x[0-9a-fA-F]+|\d+)u?
    | (?P<name>[A-Za-z_]\w*)
    | (?P<sign>&&|\|\||[<>=!]=|[-+*/%<>!?:.,()\[\]{}])
    )""",
    re.VERBOSE,
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|h|m|s)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_MACROS = ("all", "exists", "exists_one", "map", "filter")
_COMPARISONS = ("==", "!=", "<=", ">=", "<", ">", "in")


class UnsupportedRuleError(Exception):
    """The rule uses a part of the language that the simulator does not implement."""


class ExpressionError(Exception):
    """The rule failed while it ran."""


@lru_cache(maxsize=2048)
def compile_rule(text: str) -> Expression:
    """Returns the rule as a function of its variables. Raises UnsupportedRuleError."""
    parser = _Parser(text)
    expression = parser.ternary()
    parser.expect_end()
    return expression


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise UnsupportedRuleError(text[position:])
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()
        self._next = 0

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _take(self, *signs: str) -> str:
        """Consumes and returns the next token if it is one of `signs`; otherwise returns an empty text."""
        if self._next < len(self._tokens):
            kind, value = self._tokens[self._next]
            if kind != "text" and value in signs:
                self._next += 1
                return value
        return ""

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise UnsupportedRuleError(f"{sign} is missing before {self._peek()}")

    def expect_end(self) -> None:
        if self._next < len(self._tokens):
            raise UnsupportedRuleError(self._peek())

    def ternary(self) -> Expression:
        condition = self._either()
        if not self._take("?"):
            return condition
        first = self._either()
        self._expect(":")
        second = self.ternary()
        return lambda names: first(names) if condition(names) else second(names)

    def _either(self) -> Expression:
        left = self._both()
        while self._take("||"):
            left = _decided_by(left, self._both(), True)
        return left

    def _both(self) -> Expression:
        left = self._relation()
        while self._take("&&"):
            left = _decided_by(left, self._relation(), False)
        return left

    def _relation(self) -> Expression:
        left = self._sum()
        while sign := self._take(*_COMPARISONS):
            left = _operation(sign, left, self._sum())
        return left

    def _sum(self) -> Expression:
        left = self._product()
        while sign := self._take("+", "-"):
            left = _operation(sign, left, self._product())
        return left

    def _product(self) -> Expression:
        left = self._unary()
        while sign := self._take("*", "/", "%"):
            left = _operation(sign, left, self._unary())
        return left

    def _unary(self) -> Expression:
        if self._take("!"):
            inner = self._unary()
            return lambda names: not inner(names)
        if self._take("-"):
            inner = self._unary()
            return lambda names: -inner(names)
        return self._member()

    def _member(self) -> Expression:
        value = self._primary()
        while True:
            if self._take("."):
                name = self._name()
                value = self._call(value, name) if self._peek() == "(" else _field(value, name)
            elif self._take("["):
                index = self.ternary()
                self._expect("]")
                value = _item(value, index)
            else:
                return value

    def _name(self) -> str:
        kind, value = self._tokens[self._next] if self._next < len(self._tokens) else ("", "")
        if kind != "name":
            raise UnsupportedRuleError(value)
        self._next += 1
        return _unescaped(value)

    def _primary(self) -> Expression:
        if self._next >= len(self._tokens):
            raise UnsupportedRuleError("it ends too early")
        kind, value = self._tokens[self._next]
        if kind == "sign":
            return self._bracket()
        self._next += 1
        if kind == "text":
            return _constant(_literal(value))
        if kind == "number":
            return _constant(float(value) if "." in value else int(value, 0))
        if value in ("true", "false", "null"):
            return _constant({"true": True, "false": False, "null": None}[value])
        if self._peek() == "(":
            return self._function(value)
        return _variable(value)

    def _bracket(self) -> Expression:
        if self._take("("):
            inner = self.ternary()
            self._expect(")")
            return inner
        if self._take("["):
            items = self._arguments("]")
            return lambda names: [item(names) for item in items]
        raise UnsupportedRuleError(self._peek())

    def _arguments(self, end: str) -> list[Expression]:
        found: list[Expression] = []
        while not self._take(end):
            found.append(self.ternary())
            if not self._take(","):
                self._expect(end)
                break
        return found

    def _function(self, name: str) -> Expression:
        self._expect("(")
        arguments = self._arguments(")")
        if name == "has" and len(arguments) == 1:
            return _has(arguments[0])
        function = _FUNCTIONS.get(name)
        if function is None:
            raise UnsupportedRuleError(name)
        return lambda names: _called(function, *(argument(names) for argument in arguments))

    def _call(self, value: Expression, name: str) -> Expression:
        self._expect("(")
        if name in _MACROS:
            variable = self._name()
            self._expect(",")
            condition = self.ternary()
            self._expect(")")
            return lambda names: _macro(name, value(names), variable, condition, names)
        arguments = self._arguments(")")
        method = _METHODS.get(name)
        if method is None:
            raise UnsupportedRuleError(name)
        return lambda names: _called(method, value(names), *(argument(names) for argument in arguments))


def _unescaped(name: str) -> str:
    """Returns the field name behind an escaped one: rules escape names that are not CEL identifiers."""
    for escaped, plain in (
        ("__dash__", "-"),
        ("__dot__", "."),
        ("__slash__", "/"),
        ("__underscores__", "__"),
    ):
        name = name.replace(escaped, plain)
    return name[2:-2] if name.startswith("__") and name.endswith("__") and len(name) > 4 else name


def _literal(text: str) -> str:
    raw = text.startswith("r")
    body = text[1:] if raw else text
    width = 3 if body[:3] in ("'''", '"""') else 1
    inner = body[width:-width]
    return (
        inner
        if raw
        else re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), inner)
    )


def _constant(value: Any) -> Expression:
    return lambda _: value


def _variable(name: str) -> Expression:
    def read(names: Variables) -> Any:
        if name not in names:
            raise ExpressionError(f"undeclared reference to '{name}'")
        return names[name]

    return read


def _field(value: Expression, name: str) -> Expression:
    def read(names: Variables) -> Any:
        owner = value(names)
        if not isinstance(owner, dict) or name not in owner:
            raise ExpressionError(f"no such key: {name}")
        return owner[name]

    return read


def _item(value: Expression, index: Expression) -> Expression:
    def read(names: Variables) -> Any:
        try:
            return value(names)[index(names)]
        except (LookupError, TypeError) as error:
            raise ExpressionError("index out of bounds") from error

    return read


def _has(field: Expression) -> Expression:
    def present(names: Variables) -> bool:
        try:
            field(names)
        except ExpressionError:
            return False
        return True

    return present


def _decided_by(left: Expression, right: Expression, deciding: bool) -> Expression:
    """Returns `||` (`deciding` True) or `&&` (`deciding` False): an error on one side counts only if the other side
    does not decide.
    """

    def decide(names: Variables) -> bool:
        failed: ExpressionError | None = None
        for side in (left, right):
            try:
                if bool(side(names)) is deciding:
                    return deciding
            except ExpressionError as error:
                failed = error
        if failed is not None:
            raise failed
        return not deciding

    return decide


def _operation(sign: str, left: Expression, right: Expression) -> Expression:
    operate = _OPERATIONS[sign]
    return lambda names: _called(operate, left(names), right(names))


def _called(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (TypeError, ValueError, AttributeError, ArithmeticError, re.error) as error:
        raise ExpressionError("no such overload") from error


def _macro(name: str, values: Any, variable: str, condition: Expression, names: Variables) -> Any:
    if not isinstance(values, dict | list):
        raise ExpressionError("no such overload")
    results = ((value, condition({**names, variable: value})) for value in values)
    if name == "all":
        return all(result for _, result in results)
    if name == "exists":
        return any(result for _, result in results)
    if name == "exists_one":
        return sum(bool(result) for _, result in results) == 1
    if name == "map":
        return [result for _, result in results]
    return [value for value, result in results if result]


def _duration(text: str) -> float:
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text.lstrip("-"):
        raise ValueError(text)
    seconds = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    return -seconds if text.startswith("-") else seconds


def _divided(left: Any, right: Any) -> Any:
    return int(left / right) if isinstance(left, int) and isinstance(right, int) else left / right


_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "in": lambda left, right: left in right,
    "+": lambda left, right: left + right,
    "-": lambda left, right: left - right,
    "*": lambda left, right: left * right,
    "/": _divided,
    "%": lambda left, right: left % right,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "size": len, "duration": _duration, "int": int, "double": float, "string": str,
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
}  # fmt: skip
_METHODS: dict[str, Callable[..., Any]] = {
    "size": len,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": lambda text, part: part in text,
    "matches": lambda text, pattern: re.search(pattern, text) is not None,
    "lowerAscii": str.lower,
    "upperAscii": str.upper,
    "trim": str.strip,
    "split": lambda text, separator: text.split(separator),
    "join": lambda parts, separator="": separator.join(parts),
    "indexOf": lambda values, value: values.find(value) if isinstance(values, str) else values.index(value),
    "getSeconds": int,
}
