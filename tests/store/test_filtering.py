"""Filters and selectors: they mean the same in PostgreSQL and in Python, and faults are named.

The expected meaning comes from a second evaluation of the same tree, written here over plain values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Column,
    DateTime,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from pilothouse_server.errors import InvalidArgument
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.filter_grammar import DEEPEST_NESTING
from pilothouse_server.store.filtering import (
    FilterField,
    FilterKind,
    compile_filter,
    label_selector_condition,
)
from pilothouse_server.values.labels import LabelSelector
from tests.conftest import new_database
from tests.store.pools import create_statements, pool_of

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(100)),
    Column("status", String(20)),
    Column("size", Integer),
    Column("ratio", Numeric(10, 2)),
    Column("ready", Boolean),
    Column("created_at", DateTime(timezone=True)),
    Column("uid", Uuid),
    Column("labels", JSONB, nullable=False),
)
FIELDS = {
    "name": FilterField(THINGS.c.name, names={"NOBODY": ""}, parts={"status": FilterField(THINGS.c.status)}),
    "status": FilterField(
        THINGS.c.status, FilterKind.ENUM, {"RUNNING": "running", "STOPPED": "stopped"}, prefix="THING_STATUS_"
    ),
    "size": FilterField(THINGS.c.size, FilterKind.INTEGER),
    "ratio": FilterField(THINGS.c.ratio, FilterKind.NUMBER),
    "ready": FilterField(THINGS.c.ready, FilterKind.BOOLEAN),
    "create_time": FilterField(THINGS.c.created_at, FilterKind.TIMESTAMP),
    "uid": FilterField(THINGS.c.uid, FilterKind.UUID),
    "labels": FilterField(THINGS.c.labels, FilterKind.LABELS),
}
ROWS: list[dict[str, Any]] = [
    {
        "id": number,
        "name": name,
        "status": status,
        "size": size,
        "ratio": None if size is None else size / 4,
        "ready": ready,
        "created_at": None if size is None else datetime(2026, 1, 1 + number, 12, tzinfo=UTC),
        "uid": f"00000000-0000-4000-8000-{number:012}",
        "labels": labels,
    }
    for number, (name, status, size, ready, labels) in enumerate(
        [
            ("web", "running", 1, True, {"app": "web", "tier": "front"}),
            ("web-2", "stopped", 2, False, {"app": "web", "n": "5"}),
            ("Worker", "running", 3, None, {"app": "worker", "n": "10"}),
            ('a"b*', None, None, True, {"app.kubernetes.io/name": "web", "n": "x"}),
            ("50%_off\\", "stopped", -5, False, {"n": "99999999999999999999", "tier": ""}),
            (None, None, 0, None, {}),
            ("", "running", 7, True, {"app": "", "n": "-3"}),
        ]
    )
]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def connection(postgres: EmbeddedPostgres) -> AsyncIterator[Connection]:
    async with (
        new_database(postgres) as database,
        pool_of(database.admin_dsn) as pool,
        pool.connect() as opened,
    ):
        for statement in create_statements(THINGS.metadata):
            await opened.command(statement)
        await opened.execute(insert(THINGS), ROWS)
        yield opened


async def found(connection: Connection, expression: str) -> list[int]:
    statement = select(THINGS.c.id).where(compile_filter(expression, FIELDS)).order_by(THINGS.c.id)
    return list((await connection.execute(statement)).scalars())


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("", [0, 1, 2, 3, 4, 5, 6]),
        ("   ", [0, 1, 2, 3, 4, 5, 6]),
        ("name = web", [0]),
        ('name = "web"', [0]),
        ("name != web", [1, 2, 3, 4, 5, 6]),
        ("name = web*", [0, 1]),
        ('name = "*er"', [2]),
        ("name = *e*", [0, 1, 2]),
        ("name:WO", [2]),
        ("name:%", [4]),
        ("name = *_*", [4]),
        ('name = "50%*"', [4]),
        (r'name = "50%_off\\"', [4]),
        (r'name = "a\"b\*"', [3]),
        (r"name = 'a\"b\*'", [3]),
        ("name = *", [0, 1, 2, 3, 4]),
        ("name:*", [0, 1, 2, 3, 4]),
        ("NOT name:*", [5, 6]),
        ('name = ""', [5, 6]),
        ('name != ""', [0, 1, 2, 3, 4]),
        ("name = NOBODY", [5, 6]),
        ("name != NOBODY", [0, 1, 2, 3, 4]),
        ('name:""', [0, 1, 2, 3, 4, 5, 6]),
        ('name <= ""', [5, 6]),
        ('name > ""', [0, 1, 2, 3, 4]),
        ('name.status = ""', [3, 5]),
        ("name.status != running", [1, 3, 4, 5]),
        ("-name = web", [1, 2, 3, 4, 5, 6]),
        ("- name = web", [1, 2, 3, 4, 5, 6]),
        ("status = RUNNING", [0, 2, 6]),
        ("status = THING_STATUS_RUNNING", [0, 2, 6]),
        ("status = running", [0, 2, 6]),
        ("status != RUNNING", [1, 3, 4, 5]),
        ("status:*", [0, 1, 2, 4, 6]),
        ("size > 1", [1, 2, 6]),
        ("size >= 1 size <= 2", [0, 1]),
        ("size < 0", [4]),
        ("size = -5", [4]),
        ("NOT size > 1", [0, 3, 4, 5]),
        ("size < 9223372036854775807", [0, 1, 2, 4, 5, 6]),
        ("size = 9223372036854775807", []),
        ("ratio = 0.25", [0]),
        ("ratio > 5e-1", [2, 6]),
        ("ready = true", [0, 3, 6]),
        ("ready != TRUE", [1, 2, 4, 5]),
        ("create_time >= 2026-01-05T12:00:00Z", [4, 5, 6]),
        ('create_time < "2026-01-02T13:00:00+02:00"', [0]),
        ("create_time > 2026-01-05", [4, 5, 6]),
        ("create_time = 2026-01-01T12:00:00.000000999Z", [0]),
        ("uid = 00000000-0000-4000-8000-000000000003", [3]),
        ("labels.app = web", [0, 1]),
        ("labels.app:web", [0, 1]),
        ("labels.app != web", [2, 3, 4, 5, 6]),
        ("labels.app = w*", [0, 1, 2]),
        ("labels.app = *", [0, 1, 2, 6]),
        ("labels:app", [0, 1, 2, 6]),
        ("NOT labels:app", [3, 4, 5]),
        ("labels:*", [0, 1, 2, 3, 4, 6]),
        ('labels."app.kubernetes.io/name" = web', [3]),
        ("labels.app.kubernetes.io/name = web", [3]),
        ('labels.app = ""', [6]),
        ("name = web OR name = Worker AND size = 3", [2]),
        ("(name = web) OR (name = Worker AND size = 3)", [0, 2]),
        ("size > 0 AND NOT (name = web OR status = STOPPED)", [2, 6]),
        ("NOT NOT name = web", [0]),
        ("NOT (size > 1 AND ready = true)", [0, 1, 2, 3, 4, 5]),
    ],
)
async def test_meaning(connection: Connection, expression: str, ids: list[int]) -> None:
    assert await found(connection, expression) == ids


@pytest.mark.parametrize(
    ("expression", "position", "words"),
    [
        (
            "colour = red",
            1,
            "known: name, name.status, status, size, ratio, ready, create_time, uid, labels.KEY",
        ),
        ("name = web AND colour = red", 16, "unknown field 'colour'"),
        ("name", 5, "expected one of"),
        ("name web", 6, "expected one of"),
        ("name =", 7, "expected a value"),
        ("name = AND", 8, "expected a value"),
        ("= web", 1, "name of a field"),
        ("AND name = web", 1, "name of a field"),
        ("name = web AND", 15, "name of a field"),
        ("(name = web", 12, "expected )"),
        ("name = web)", 11, "unexpected )"),
        ("()", 2, "name of a field"),
        ('name = "web', 8, "without a closing quote"),
        ("has(name)", 4, "functions"),
        (r'name = "\n"', 8, "only allowed before"),
        ("name = a*b", 8, "beginning or the end"),
        ("name > a*", 8, "cannot be used with <"),
        ("name.first = a", 1, "name has no part 'first'; it has status"),
        ("size.first = 1", 1, "no parts"),
        ("name. = a", 1, "key after"),
        ("status = SLEEPING", 10, "must be one of RUNNING, STOPPED"),
        ("status < RUNNING", 1, "status takes = != and : only"),
        ("status = RUN*", 10, "only works in text"),
        ("size = large", 8, "whole number"),
        ("size = 9223372036854775808", 8, "64 bits"),
        ("ratio = 1e99", 9, "number"),
        ("ratio = nan", 9, "number"),
        ("ready = yes", 9, "true or false"),
        ("create_time > yesterday", 15, "a time"),
        ("create_time > 2026-02-30", 15, "a time"),
        ("create_time > 2026-01-01T00:00:00", 15, "a time"),
        ("uid = 1", 7, "UUID"),
        ("labels = a", 1, "name a label"),
        ("labels.app > a", 1, "labels take"),
        ("name = \x00", 8, "U+0000"),
        ("(" * 17 + "name = a" + ")" * 17, 17, "nested deeper"),
        ("NOT " * 17 + "name = a", 65, "nested deeper"),
        (" ".join(["size = 1"] * 65), 577, "64 comparisons"),
        ("name = " + "x" * 2048, 2049, "longer than 2048"),
    ],
)
def test_a_fault_is_named_with_its_position(expression: str, position: int, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        compile_filter(expression, FIELDS)
    assert caught.value.metadata["position"] == str(position)
    assert words in caught.value.message
    assert [violation.field for violation in caught.value.violations] == ["filter"]


@given(st.text(max_size=60))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    reason = ""
    try:
        compile_filter(text, FIELDS)
    except InvalidArgument as error:
        reason = error.reason
    assert reason in ("", "INVALID_FILTER")


comparisons = st.sampled_from(
    [
        *(
            "name = web",
            "name = web*",
            "name != Worker",
            "name:e",
            "name:*",
            'name = ""',
            'name < "x"',
            "size > 1",
            "size <= 2",
            "size = 0",
        ),
        *(
            "status = RUNNING",
            "status != STOPPED",
            "ready = true",
            "labels.app = web",
            "labels:n",
            "labels.tier != front",
        ),
    ]
)


def holds(comparison: str, row: Mapping[str, Any]) -> bool:
    """Evaluates one of `comparisons` for a row, in plain Python."""
    name, size, labels = row["name"], row["size"], row["labels"]
    said: dict[str, bool] = {
        "name = web": name == "web",
        "name = web*": name is not None and name.startswith("web"),
        "name != Worker": name != "Worker",
        "name:e": name is not None and "e" in name.lower(),
        "name:*": bool(name),
        'name = ""': not name,
        'name < "x"': True,
        "size > 1": size is not None and size > 1,
        "size <= 2": size is not None and size <= 2,
        "size = 0": size == 0,
        "status = RUNNING": row["status"] == "running",
        "status != STOPPED": row["status"] != "stopped",
        "ready = true": row["ready"] is True,
        "labels.app = web": labels.get("app") == "web",
        "labels:n": "n" in labels,
        "labels.tier != front": labels.get("tier") != "front",
    }
    return said[comparison]


# A tree is a comparison, ("NOT", tree), or (("AND" | "OR"), [trees]).
trees = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.tuples(st.just("NOT"), inner),
        st.tuples(st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


def written(tree: Any) -> str:
    match tree:
        case str():
            return tree
        case ("NOT", inner):
            return f"NOT ({written(inner)})"
        case (word, inner):
            return f"({f' {word} '.join(written(item) for item in inner)})"
    raise AssertionError(tree)


def depth(tree: Any) -> int:
    """Returns how deep the text of a tree is nested."""
    match tree:
        case str():
            return 1
        case ("NOT", inner):
            return depth(inner) + 2
        case (_, inner):
            return max(depth(item) for item in inner) + 1
    raise AssertionError(tree)


def evaluated(tree: Any, row: Mapping[str, Any]) -> bool:
    match tree:
        case str():
            return holds(tree, row)
        case ("NOT", inner):
            return not evaluated(inner, row)
        case (word, inner):
            return (all if word == "AND" else any)(evaluated(item, row) for item in inner)
    raise AssertionError(tree)


@settings(deadline=None)
@given(tree=trees)
async def test_any_tree_means_the_same_as_in_python(connection: Connection, tree: Any) -> None:
    assume(depth(tree) <= DEEPEST_NESTING)
    ids = await found(connection, written(tree))
    assert ids == [row["id"] for row in ROWS if evaluated(tree, row)]


selectors = st.lists(
    st.sampled_from(
        [
            *(
                "app=web",
                "app!=web",
                "app",
                "!app",
                "app in (web,worker)",
                "tier notin (front)",
                "tier=",
                "app in ()",
            ),
            *(
                "n>5",
                "n<10",
                "n>-4",
                "n<9223372036854775807",
                "n>9223372036854775806",
                "app.kubernetes.io/name=web",
            ),
        ]
    ),
    max_size=4,
).map(",".join)


@settings(deadline=None)
@given(text=selectors)
async def test_a_selector_means_the_same_as_in_python(connection: Connection, text: str) -> None:
    selector = LabelSelector.parse(text)
    statement = (
        select(THINGS.c.id).where(label_selector_condition(THINGS.c.labels, selector)).order_by(THINGS.c.id)
    )
    ids = list((await connection.execute(statement)).scalars())
    assert ids == [row["id"] for row in ROWS if selector.matches(row["labels"])]
