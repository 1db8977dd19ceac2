"""The canonical form of a record equals the standard library's, byte for byte, from every writer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any
from uuid import uuid4

import msgspec
import orjson
import pytest

from pilothouse_server.store import audit_records
from pilothouse_server.store.audit_records import (
    AuditRecord,
    canonical_json,
    canonical_stored,
    canonical_time,
    standard_json,
)

_CHARACTERS = (
    [chr(code) for code in range(0x20)]
    + list('"\\/ abcXYZ012:,[]{}')
    + [
        "\x7f",
        "\x80",
        "\xa0",
        "\u2028",
        "\u2029",
        "\ufeff",
        "\ufffe",
        "\uffff",
        "é",
        "ß",
        "中",
        "\U0001f600",
        "\U0010ffff",
    ]
)


def text(source: random.Random) -> str:
    return "".join(source.choices(_CHARACTERS, k=source.randrange(12)))


def number(source: random.Random) -> int:
    return source.choice(
        (0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 10**40)
    ) + (source.randrange(-3, 4))


def floating(source: random.Random) -> float:
    return source.choice(
        (0.0, -0.0, 1.0, 1e16, 1e22, 1e-7, 1.5e300, 5e-324, 0.1 + 0.2, source.random() * 1e18)
    )


def value(source: random.Random, depth: int = 0) -> Any:
    leaves: list[Callable[[random.Random], Any]] = [
        text,
        text,
        number,
        lambda s: s.randrange(-1000, 1000),
        floating,
        lambda s: s.choice((True, False, None)),
    ]
    if depth > 4:
        return source.choice(leaves)(source)
    nested: list[Callable[[random.Random], Any]] = [
        lambda s: {text(s): value(s, depth + 1) for _ in range(s.randrange(5))},
        lambda s: [value(s, depth + 1) for _ in range(s.randrange(5))],
    ]
    return source.choice(leaves + nested)(source)


def rows(count: int) -> list[dict[str, Any]]:
    source = random.Random(8)
    return [{text(source): value(source) for _ in range(source.randrange(8))} for _ in range(count)]


def differing(
    encode: Callable[[Mapping[str, Any]], bytes], wanted: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns the rows that `encode` and the standard library write differently, or that only one of them refuses."""
    return [row for row in wanted if outcome(encode, row) != outcome(standard_json, row)]


def outcome(encode: Callable[[Mapping[str, Any]], bytes], row: Mapping[str, Any]) -> bytes | str:
    try:
        return encode(row)
    except (TypeError, ValueError, RecursionError) as error:
        return type(error).__name__


def test_every_row_has_the_bytes_of_the_standard_library() -> None:
    wanted = rows(20_000)
    assert differing(canonical_json, wanted) == []
    # The fast encoder writes enough of the rows, and the slow one writes enough of them.
    fast = [
        row for row in wanted if audit_records._is_plain(row) and outcome(orjson.dumps, row) != "TypeError"
    ]
    assert len(wanted) > len(fast) > len(wanted) // 4


def stored(row: Mapping[str, Any]) -> Any:
    """Returns a row as it is read back from the database."""
    return json.loads(standard_json(row))


def test_stored_json_is_written_without_checking_each_value() -> None:
    wanted = [
        stored(row) for row in rows(20_000) if outcome(standard_json, row) not in ("TypeError", "ValueError")
    ]
    assert len(wanted) > 10_000
    assert differing(canonical_stored, wanted) == []


@pytest.mark.parametrize(
    "number", ["1.0", "-0.0", "1e16", "1E22", "5e-324", "12345678901234567890123", "-1.5e-7"]
)
@pytest.mark.parametrize("around", ["{}", "[{}]", "[1,{}]", '{{"a":{}}}', '{{"a":["x",{}]}}'])
def test_numbers_that_are_not_integers_are_detected_at_any_place(number: str, around: str) -> None:
    value = msgspec.json.decode(around.format(number))
    assert outcome(canonical_stored, value) == outcome(standard_json, value)


class _Word(str):
    pass


class _Kind(Enum):
    ONE = "one"


def test_values_outside_json_are_refused_by_both_or_written_alike() -> None:
    deep: Any = "bottom"
    for _ in range(300):
        deep = [deep]
    values: list[Any] = [
        float("nan"), float("inf"), "\ud800", uuid4(), datetime.now(UTC), _Kind.ONE, _Word("word"), (1, 2), {1: 2},
        {None: 1}, {_Word("key"): 1}, {True: 1}, b"bytes", {1, 2}, deep,
    ]  # fmt: skip
    assert differing(canonical_json, [{"value": item} for item in values]) == []
    assert differing(canonical_json, [{"list": [item]} for item in values]) == []


def test_the_fast_encoder_alone_would_differ() -> None:
    def careless(row: Mapping[str, Any]) -> bytes:
        return orjson.dumps(row, option=orjson.OPT_SORT_KEYS)

    found = differing(careless, rows(2_000))
    assert found
    assert differing(orjson.dumps, [{"b": 1, "a": 2}])
    assert differing(careless, [{"value": uuid4()}])


@pytest.mark.parametrize("hours", [-11, 0, 5.5])
def test_a_time_is_written_in_utc_with_six_digits(hours: float) -> None:
    source = random.Random(9)
    zone = timezone(timedelta(hours=hours))
    for _ in range(1_000):
        moment = datetime(1971, 1, 1, tzinfo=zone) + timedelta(
            seconds=source.randrange(4 * 10**9), microseconds=source.choice((0, 1, 999_999))
        )
        assert canonical_time(moment) == moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_the_row_of_a_record_has_each_of_its_fields() -> None:
    names = AuditRecord.__struct_fields__
    moment, number = datetime.now(UTC), uuid4()
    times, numbers = ("started_at", "completed_at"), ("operation_id", "stream_id")
    given: dict[str, Any] = {name: name for name in names}
    given |= dict.fromkeys(times, moment) | dict.fromkeys(numbers, number)
    wanted = given | dict.fromkeys(times, canonical_time(moment)) | dict.fromkeys(numbers, str(number))
    assert AuditRecord(**given).as_row() == wanted
