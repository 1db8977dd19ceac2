"""Keyset pages in a real PostgreSQL: every order, missing values, concurrent writers, and forged tokens."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    Column,
    Date,
    DateTime,
    Double,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    delete,
    func,
    insert,
    select,
)

from pilothouse_server.errors import InvalidArgument
from pilothouse_server.launch.embedded.postgres import EmbeddedPostgres
from pilothouse_server.store import paging
from pilothouse_server.store.connection import Connection
from pilothouse_server.store.paging import (
    OrderField,
    PageRequest,
    finish_page,
    paginate,
    paginate_rows,
    parse_order_by,
    read_in_pages,
    read_page,
    read_page_in_slices,
)
from pilothouse_server.store.pool import Pool
from pilothouse_server.store.results import Row
from tests.conftest import new_database
from tests.store.pools import create_statements, pool_of
from tests.waiting import patient

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False),
    Column("grade", Integer),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("price", Numeric(10, 3)),
    Column("ratio", Double),
    Column("day", Date),
    Column("uid", Uuid, nullable=False),
)
FIELDS = {
    "id": OrderField(THINGS.c.id),
    "name": OrderField(THINGS.c.name),
    "grade": OrderField(THINGS.c.grade, nullable=True),
    "create_time": OrderField(THINGS.c.created_at),
    "price": OrderField(THINGS.c.price, nullable=True),
    "ratio": OrderField(THINGS.c.ratio, nullable=True),
    "day": OrderField(THINGS.c.day, nullable=True),
    "uid": OrderField(THINGS.c.uid),
}
KEY = b"k" * 32
PAGE = PageRequest(key=KEY, page_size=7, binding=("/Things/List", "user 1"))
START = datetime(2026, 1, 1, tzinfo=UTC)


def thing(number: int, chance: random.Random) -> dict[str, Any]:
    """Returns a row with many equal and many missing values."""
    some: Callable[[Any], Any] = lambda value: value if chance.random() < 0.7 else None  # noqa: E731
    return {
        "id": number,
        "name": chance.choice(["a", "B", "ä", "a-b", "a b", "Z"]),
        "grade": some(chance.randrange(3)),
        "created_at": START + timedelta(microseconds=chance.randrange(5)),
        "price": some(Decimal(chance.randrange(3)) / 8),
        "ratio": some(chance.choice([0.1, -0.0, 1e300, float("inf")])),
        "day": some(date(2026, 1, chance.randrange(1, 4))),
        "uid": UUID(int=chance.getrandbits(128)),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pool(postgres: EmbeddedPostgres) -> AsyncIterator[Pool]:
    async with new_database(postgres) as database, pool_of(database.admin_dsn) as made:
        chance = random.Random(7)
        async with made.transaction() as opened:
            for statement in create_statements(THINGS.metadata):
                await opened.command(statement)
            await opened.execute(insert(THINGS), [thing(number, chance) for number in range(60)])
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    async with pool.connect() as opened:
        yield opened


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


async def one_page(connection: Connection, page: PageRequest) -> tuple[list[int], str]:
    order = parse_order_by(page.order_by, FIELDS, default="name", unique=THINGS.c.id)
    rows = (await connection.execute(paginate(select(THINGS.c.id), order, page))).all()
    shown, next_page = finish_page(rows, order, page)
    return [row.id for row in shown], next_page.after(len(shown))


async def all_pages(connection: Connection, page: PageRequest) -> list[int]:
    ids: list[int] = []
    while True:
        shown, token = await one_page(connection, page)
        ids += shown
        assert len(shown) <= page.limit
        assert shown or not token
        if not token:
            return ids
        page = replace(page, page_token=token)


orders = st.lists(
    st.tuples(st.sampled_from(sorted(FIELDS)), st.sampled_from(["", " asc", " desc", "  DESC "])),
    max_size=4,
    unique_by=lambda part: part[0],
).map(lambda parts: ",".join(name + direction for name, direction in parts))


@settings(deadline=None, max_examples=30)
@given(order_by=orders, page_size=st.integers(1, 61))
async def test_all_pages_together_are_the_whole_list_in_order(
    connection: Connection, order_by: str, page_size: int
) -> None:
    order = parse_order_by(order_by, FIELDS, default="name", unique=THINGS.c.id)
    columns = [item.column.desc() if item.descending else item.column for item in order.columns]
    whole = list((await connection.execute(select(THINGS.c.id).order_by(*columns))).scalars())
    assert await all_pages(connection, replace(PAGE, order_by=order_by, page_size=page_size)) == whole


@settings(deadline=None, max_examples=20)
@given(order_by=orders, page_size=st.integers(1, 61))
async def test_a_page_selected_by_keys_first_is_the_same(
    connection: Connection, order_by: str, page_size: int
) -> None:
    page = replace(PAGE, order_by=order_by, page_size=page_size)
    order = parse_order_by(order_by, FIELDS, default="name", unique=THINGS.c.id)
    kept = THINGS.c.id % 3 != 0
    keys, whole = select().select_from(THINGS).where(kept), select(THINGS)
    while True:
        at_once = (await connection.execute(paginate(select(THINGS).where(kept), order, page))).all()
        rows = (await connection.execute(paginate_rows(whole, keys, THINGS.c.id, order, page))).all()
        assert [tuple(row) for row in rows] == [tuple(row) for row in at_once]
        token = finish_page(rows, order, page)[1].after(page.limit)
        assert token == finish_page(at_once, order, page)[1].after(page.limit)
        if not token:
            return
        page = replace(page, page_token=token)


@settings(deadline=None, max_examples=20)
@given(order_by=orders, page_size=st.integers(1, 70), row_bytes=st.integers(1, 40), kept=st.integers(1, 61))
async def test_pages_of_large_rows_end_early_and_lose_no_row(
    connection: Connection, order_by: str, page_size: int, row_bytes: int, kept: int
) -> None:
    order = parse_order_by(order_by, FIELDS, default="name", unique=THINGS.c.id)
    columns = [item.column.desc() if item.descending else item.column for item in order.columns]
    whole = list((await connection.execute(select(THINGS.c.id).order_by(*columns))).scalars())
    page = replace(PAGE, order_by=order_by, page_size=page_size)

    async def read(part: PageRequest) -> Sequence[Row]:
        assert part.limit <= page.limit
        return (await connection.execute(paginate(select(THINGS.c.id), order, part))).all()

    listed: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "LARGEST_PAGE_BYTES", 100)
        patch.setattr(paging, "DEFAULT_PAGE_SIZE", 4)
        while True:
            rows, next_page = await read_page(read, order, page, lambda _row: row_bytes)
            assert 1 <= len(rows) <= page.limit
            # The first few rows are read without a check; after those come as many as fit, and one more.
            assert len(rows) <= 4 or (len(rows) - 1) * row_bytes <= 100
            # A caller that shows fewer rows continues after those.
            shown = rows[:kept]
            listed += [row.id for row in shown]
            token = next_page.after(len(shown))
            if not token:
                break
            page = replace(page, page_token=token)
    assert listed == whole


@settings(deadline=None, max_examples=20)
@given(
    order_by=orders, page_size=st.integers(1, 70), row_bytes=st.integers(1, 40), slice_rows=st.integers(1, 9)
)
async def test_pages_read_in_slices_end_early_and_lose_no_row(
    pool: Pool, order_by: str, page_size: int, row_bytes: int, slice_rows: int
) -> None:
    order = parse_order_by(order_by, FIELDS, default="name", unique=THINGS.c.id)
    columns = [item.column.desc() if item.descending else item.column for item in order.columns]
    page = replace(PAGE, order_by=order_by, page_size=page_size)
    listed: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paging, "LARGEST_PAGE_BYTES", 100)
        patch.setattr("pilothouse_server.store.connection.SLICE_ROWS", slice_rows)
        async with pool.transaction() as opened:
            whole = list((await opened.execute(select(THINGS.c.id).order_by(*columns))).scalars())
            while True:
                query = paginate(select(THINGS.c.id), order, page)
                rows, next_page = await read_page_in_slices(
                    opened, query, order, page, lambda _row: row_bytes
                )
                assert 1 <= len(rows) <= page.limit
                # Excess rows are noticed only after a slice.
                assert len(rows) * row_bytes <= 100 + slice_rows * row_bytes
                listed += [row.id for row in rows]
                token = next_page.after(len(rows))
                if not token:
                    break
                page = replace(page, page_token=token)
    assert listed == whole


@settings(deadline=None, max_examples=20)
@given(order_by=orders, most_rows=st.integers(1, 61), divisor=st.integers(1, 61))
async def test_read_in_pages_returns_the_whole_list(
    connection: Connection, order_by: str, most_rows: int, divisor: int
) -> None:
    order = parse_order_by(order_by, FIELDS, default="name", unique=THINGS.c.id)
    columns = [item.column.desc() if item.descending else item.column for item in order.columns]
    kept = THINGS.c.id % divisor == 0
    everything = await connection.execute(select(THINGS.c.id).where(kept).order_by(*columns))
    keys = select().select_from(THINGS).where(kept)
    read = read_in_pages(connection, select(THINGS), keys, THINGS.c.id, order, most_rows=most_rows)
    assert [row.id async for rows in read for row in rows] == list(everything.scalars())


@pytest.mark.parametrize(
    "order_by",
    ["name", "create_time desc", "grade", "grade desc", "grade desc, name", "name, create_time desc"],
)
async def test_writers_neither_hide_nor_repeat_rows_that_stay(pool: Pool, order_by: str) -> None:
    chance = random.Random(order_by)
    numbers = itertools.count(1000)
    async with pool.connect() as reader, pool.connect() as writer:
        steady = set((await reader.execute(select(THINGS.c.id).where(THINGS.c.id < 1000))).scalars())
        done, committed = asyncio.Event(), asyncio.Event()
        commits = 0

        async def write() -> None:
            nonlocal commits
            fleeting: list[int] = []
            while not done.is_set():
                made = [thing(next(numbers), chance) for _ in range(3)]
                fleeting += [row["id"] for row in made]
                await writer.command("BEGIN")
                await writer.execute(insert(THINGS), made)
                gone = chance.sample(fleeting, len(fleeting) // 2)
                fleeting = [number for number in fleeting if number not in gone]
                await writer.execute(delete(THINGS).where(THINGS.c.id.in_(gone)))
                await writer.command("COMMIT")
                committed.set()
                commits += 1
            await writer.execute(delete(THINGS).where(THINGS.c.id >= 1000))

        writing = asyncio.create_task(write())
        try:
            for _ in range(5):
                seen: list[int] = []
                page = replace(PAGE, order_by=order_by, page_size=4)
                while True:
                    committed.clear()
                    shown, token = await one_page(reader, page)
                    seen += shown
                    if not token:
                        break
                    page = replace(page, page_token=token)
                    await asyncio.wait_for(committed.wait(), patient(10))
                assert len(seen) == len(set(seen))
                assert steady <= set(seen)
        finally:
            done.set()
            await writing
    assert commits > 5


async def test_offset_paging_would_repeat_rows(pool: Pool) -> None:
    """The control: under the same writer, OFFSET shows a row twice, so the test above can fail."""
    async with pool.connect() as reader:
        await reader.command("BEGIN")
        statement = select(THINGS.c.id).order_by(THINGS.c.name, THINGS.c.id).limit(4)
        first = list((await reader.execute(statement)).scalars())
        smallest = (await reader.execute(select(func.min(THINGS.c.name)))).scalar_one()
        await reader.execute(insert(THINGS), [thing(-1, random.Random(1)) | {"name": smallest}])
        second = list((await reader.execute(statement.offset(4))).scalars())
        assert set(first) & set(second)
        await reader.command("ROLLBACK")


async def test_the_page_size_may_change_between_pages(connection: Connection) -> None:
    first, token = await one_page(connection, replace(PAGE, page_size=3))
    rest = await all_pages(connection, replace(PAGE, page_size=50, page_token=token))
    assert first + rest == await all_pages(connection, PAGE)


async def test_the_last_page_has_no_token(connection: Connection) -> None:
    assert (await one_page(connection, replace(PAGE, page_size=60)))[1] == ""
    assert (await one_page(connection, replace(PAGE, page_size=59)))[1] != ""


@pytest.mark.parametrize(("asked", "given_size"), [(0, 50), (1, 1), (1000, 1000), (5000, 1000)])
def test_the_page_size_has_a_default_and_a_maximum(asked: int, given_size: int) -> None:
    assert replace(PAGE, page_size=asked).limit == given_size


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="page_size"):
        assert replace(PAGE, page_size=-1).limit


@pytest.mark.parametrize(
    "change",
    [
        {"binding": ("/Things/List", "user 2")},
        {"binding": ("/Others/List", "user 1")},
        {"binding": ("/Things/List", "user 1", "")},
        {"binding": ("/Things/Listuser 1", "")},
        {"filter": "name = a"},
        {"order_by": "name desc"},
        {"order_by": "create_time"},
        {"key": b"K" * 32},
    ],
)
async def test_a_token_is_valid_only_for_its_own_request(
    connection: Connection, change: dict[str, Any]
) -> None:
    _, token = await one_page(connection, PAGE)
    await one_page(connection, replace(PAGE, page_token=token, page_size=50))
    with pytest.raises(InvalidArgument) as caught:
        await one_page(connection, replace(PAGE, page_token=token, **change))
    assert [violation.field for violation in caught.value.violations] == ["page_token"]
    assert caught.value.reason == "INVALID_PAGE_TOKEN"


@settings(deadline=None)
@given(token=st.one_of(st.text(min_size=1), st.binary(min_size=1).map(base64url)))
async def test_a_garbled_token_is_refused(connection: Connection, token: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        await one_page(connection, replace(PAGE, page_token=token))


@settings(deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
async def test_a_token_with_a_flipped_bit_is_refused(connection: Connection, place: int, bit: int) -> None:
    _, token = await one_page(connection, PAGE)
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[place % len(raw)] ^= 1 << bit
    with pytest.raises(InvalidArgument, match="page_token"):
        await one_page(connection, replace(PAGE, page_token=base64url(bytes(raw))))


def test_the_key_is_not_shown() -> None:
    assert "kkk" not in repr(PAGE)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", "name,"),
        ("  ", "name,"),
        ("name desc", "name desc, desc"),
        (" name  asc , create_time  DESC", "name,create_time desc, desc"),
        ("id desc", "id desc"),
    ],
)
def test_orders_have_a_canonical_text(text: str, canonical: str) -> None:
    assert parse_order_by(text, FIELDS, default="name", unique=THINGS.c.id).text == canonical


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour", "unknown field 'colour'; known: id, name"),
        ("name,", "separated by commas"),
        (",", "separated by commas"),
        ("name up", "separated by commas"),
        ("name desc desc", "separated by commas"),
        ("name, name desc", "twice"),
        ("name; DROP TABLE things", "separated by commas"),
        ("id,name,grade,create_time,price,ratio", "more than 5"),
    ],
)
def test_wrong_orders_are_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_order_by(text, FIELDS, default="name", unique=THINGS.c.id)
    assert words in caught.value.message
    assert [violation.field for violation in caught.value.violations] == ["order_by"]


async def test_a_nullable_order_column_declared_not_null_is_detected(
    connection: Connection,
) -> None:
    order = parse_order_by(
        "grade desc", {"grade": OrderField(THINGS.c.grade)}, default="grade", unique=THINGS.c.id
    )
    rows = (await connection.execute(paginate(select(THINGS.c.id), order, PAGE))).all()
    with pytest.raises(AssertionError, match="grade"):
        finish_page(rows, order, PAGE)[1].after(PAGE.limit)
