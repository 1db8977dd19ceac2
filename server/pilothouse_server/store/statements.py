"""Statements of SQLAlchemy Core, each compiled once to the form that asyncpg runs.

That form is SQL with `$1`, `$2` …, and the order of its values.

Queries are written in SQLAlchemy Core and compiled by its compiler, but its engine is not used. The cache finds a
statement that is a constant of a module by its identity. It finds a statement that is built for a call by
SQLAlchemy's cache key, which leaves out the values, so that a list with another filter value is not compiled again.

`column IN (values)` is rendered as `column = ANY (array)`: one text for every number of values, and so one prepared
statement.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ARRAY, Executable, Float, LargeBinary, Numeric
from sqlalchemy.dialects.postgresql.asyncpg import PGCompiler_asyncpg, PGDialect_asyncpg
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.types import TypeEngine

from pilothouse_server.store.results import Row

# The number of compiled forms in the cache, and the number of statements that are found by their identity.
MOST_FORMS: Final = 1000
MOST_STATEMENTS: Final = 4000

Parameters = Mapping[str, Any]
_Processor = Callable[[Any], Any]
_REQUIRED: Final = object()


class StatementError(Exception):
    """A bug: a statement that the store does not run, or values that do not fit it."""


class _Compiler(PGCompiler_asyncpg):
    """Renders IN of a list of values as a comparison with one array."""

    def visit_in_op_binary(self, binary: Any, operator: Any, **options: Any) -> str:
        return self._with_array(binary, "= ANY", options) or self._generate_generic_binary(
            binary, " IN ", **options
        )

    def visit_not_in_op_binary(self, binary: Any, operator: Any, **options: Any) -> str:
        return self._with_array(binary, "<> ALL", options) or str(
            super().visit_not_in_op_binary(binary, operator, **options)  # type: ignore[no-untyped-call]
        )

    def _with_array(self, binary: Any, comparison: str, options: dict[str, Any]) -> str:
        values = binary.right
        if not isinstance(values, BindParameter) or not values.expanding or values.type._is_tuple_type:
            return ""
        # The clone has the same cache key, so that the values of later statements are bound to it.
        array = values._clone(maintain_key=True)
        array.expanding = False
        array.type = ARRAY(values.type)
        return f"{self.process(binary.left, **options)} {comparison} ({self.process(array, **options)})"


class _Dialect(PGDialect_asyncpg):
    statement_compiler = _Compiler
    supports_statement_cache = True


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


_DIALECT: Final = _Dialect(json_serializer=_json)  # type: ignore[no-untyped-call]


class Form:
    """One SQL text, and the name and source of each value in the order of `$1` …"""

    __slots__ = ("keys", "plain", "processors", "record_class", "required", "sources", "sql")

    def __init__(self, compiled: SQLCompiler, extracted: Sequence[BindParameter[Any]]) -> None:
        if compiled.literal_execute_params or compiled.post_compile_params:
            raise StatementError("a statement whose text depends on its values")
        if compiled.insert_prefetch or compiled.update_prefetch:
            raise StatementError("a column with a default that is computed outside of the database")
        for column in compiled._result_columns or ():
            _check_result(column.type)
        self.sql = str(compiled)
        # Replaced by the class for the columns, once a row was returned.
        self.record_class: type[Row] = Row
        names = tuple(compiled.positiontup or ())
        binds = [compiled.binds[name] for name in names]
        # The names of the values that are given at execution.
        self.keys = tuple(bind.key for bind in binds)
        self.required = tuple(bool(bind.required) for bind in binds)
        processors: Mapping[str, Any] = compiled._bind_processors
        self.processors: tuple[_Processor | None, ...] = tuple(processors.get(name) for name in names)
        self.plain = all(self.required) and not any(self.processors)
        self.sources = _sources(compiled, binds, extracted)

    def defaults(self, extracted: Sequence[BindParameter[Any]]) -> tuple[Any, ...]:
        """Returns the values that a statement of this form contains.

        A place without one has `_REQUIRED`.
        """
        return tuple(
            _REQUIRED
            if required
            else (extracted[source] if isinstance(source, int) else source).effective_value
            for required, source in zip(self.required, self.sources, strict=True)
        )


class Statement:
    """A statement that is ready to run: its form, and the values that it contains."""

    __slots__ = ("_defaults", "_given", "form", "sql")

    def __init__(self, form: Form, defaults: tuple[Any, ...], given: Parameters | None) -> None:
        self.sql = form.sql
        self.form = form
        self._defaults = defaults
        # The values that `.params()` of the statement has set.
        self._given = given

    def arguments(self, parameters: Parameters) -> list[Any]:
        """Returns the values in the order of `$1`, `$2` …

        Raises:
            StatementError: a value is missing.
        """
        form = self.form
        if self._given:
            parameters = {**self._given, **parameters}
        try:
            if form.plain:
                return [parameters[key] for key in form.keys]
            return [
                value if processor is None else processor(value)
                for value, processor in zip(self._values(parameters), form.processors, strict=True)
            ]
        except KeyError as error:
            (missing,) = error.args
            raise StatementError(f"the value {missing} is missing") from None

    def _values(self, parameters: Parameters) -> list[Any]:
        return [
            parameters[key] if default is _REQUIRED or key in parameters else default
            for key, default in zip(self.form.keys, self._defaults, strict=True)
        ]


_forms: OrderedDict[Any, Form] = OrderedDict()
# By the identity of the statement; the weak reference shows whether the id still belongs to that statement.
_statements: dict[int, tuple[weakref.ref[Executable], Any, Statement]] = {}


def ready(statement: Executable, parameters: Parameters, *, many: bool = False) -> Statement:
    """Returns the compiled statement.

    `parameters` name the columns that an INSERT or UPDATE without values writes.
    """
    columns = _columns(statement, parameters, many=many)
    known = _statements.get(id(statement))
    if known is not None and known[0]() is statement and known[1] == columns:
        return known[2]
    made = _made(statement, columns)
    if len(_statements) >= MOST_STATEMENTS:
        _statements.clear()
    identity = id(statement)
    _statements[identity] = (weakref.ref(statement, lambda _: _statements.pop(identity, None)), columns, made)
    return made


def _columns(statement: Executable, parameters: Parameters, *, many: bool) -> Any:
    return (*parameters, many) if isinstance(statement, UpdateBase) else None


def _made(statement: Any, columns: Any) -> Statement:
    keys, many = (list(columns[:-1]), columns[-1]) if columns is not None else ([], False)
    found = statement._generate_cache_key()
    if found is None:
        compiled = statement.compile(dialect=_DIALECT, column_keys=keys, for_executemany=many)
        alone = Form(compiled, ())
        return Statement(alone, alone.defaults(()), None)
    shape, extracted, given = found
    form: Form | None = _forms.get((shape, columns))
    if form is None:
        compiled = statement.compile(
            dialect=_DIALECT, cache_key=found, column_keys=keys, for_executemany=many
        )
        form = _forms[shape, columns] = Form(compiled, extracted)
        if len(_forms) > MOST_FORMS:
            _forms.popitem(last=False)
    else:
        _forms.move_to_end((shape, columns))
    return Statement(form, form.defaults(extracted), given)


def _sources(
    compiled: SQLCompiler, binds: Sequence[BindParameter[Any]], extracted: Sequence[BindParameter[Any]]
) -> tuple[int | BindParameter[Any], ...]:
    """Returns the source of each parameter's own value.

    It is the value's index in the cache key's parameters, or the parameter itself.
    """
    if compiled._cache_key_bind_match is None:
        return tuple(binds)
    matches = compiled._cache_key_bind_match[0]
    places = {bind: place for place, each in enumerate(extracted) for bind in matches[each]}
    return tuple(places.get(bind, bind) for bind in binds)


def _check_result(type_: TypeEngine[Any]) -> None:
    """Raises StatementError for a type whose values SQLAlchemy would convert.

    The store returns the driver's values.
    """
    implementation = type_.dialect_impl(_DIALECT)
    if isinstance(implementation, ARRAY):
        return _check_result(implementation.item_type)
    if isinstance(implementation, Float):
        converted = implementation.asdecimal
    elif isinstance(implementation, Numeric):
        converted = not implementation.asdecimal
    elif isinstance(implementation, LargeBinary):
        converted = False
    else:
        converted = implementation.result_processor(_DIALECT, None) is not None
    if converted:
        raise StatementError(f"a result of the type {type_!r}, which the driver does not return itself")
    return None
