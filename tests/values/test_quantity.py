"""Quantities are compared with the API server's own canonical forms, and with exact decimal arithmetic."""

from __future__ import annotations

from decimal import ROUND_UP, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.values import InvalidValueError
from pilothouse_server.values.quantity import Quantity, normalise, quantity_problem

FACTORS = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("n", "u", "m", "", *"kMGTPE"), -3)},
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)},
}

# The API server's canonical form of each input.
CANONICAL = [
    ("0", "0"),
    ("0.0Ki", "0"),
    ("-0", "0"),
    ("0.5", "500m"),
    (".5", "500m"),
    ("5.", "5"),
    ("+3", "3"),
    ("007", "7"),
    ("1000m", "1"),
    ("1500m", "1500m"),
    ("100m", "100m"),
    ("1.5Gi", "1536Mi"),
    ("1Ki", "1Ki"),
    ("1024", "1024"),
    ("1023Ki", "1023Ki"),
    ("1024Ki", "1Mi"),
    ("0.1Ki", "102400m"),
    ("1025.5Ki", "1050112"),
    ("1000Gi", "1000Gi"),
    ("1000G", "1T"),
    ("1e3", "1e3"),
    ("1E3", "1e3"),
    ("1E", "1E"),
    ("1e1", "10"),
    ("1500e3", "1500e3"),
    ("100e-3", "100e-3"),
    ("1e9", "1e9"),
    ("0.0000000001", "1n"),
    ("0.0000000015", "2n"),
    ("9223372036854775807", "9223372036854775807"),
]


@pytest.mark.parametrize(("given_text", "canonical"), CANONICAL)
def test_the_canonical_form_matches_the_api_server(given_text: str, canonical: str) -> None:
    assert Quantity.parse(given_text).text == canonical
    assert normalise(given_text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "1 ",
            " 1",
            "1 Ki",
            ".",
            "Ki",
            "m",
            "-",
            "+",
            "e3",
            "1.1.",
            "1..1",
            "1K",
            "1ki",
            "1mi",
            "1i",
        ),
        *("1Kii", "1KiB", "0x10", "1e", "1e+", "1e1.5", "1e3Ki", "１", "1\n", "1\x00", "inf", "nan", "1_000"),
        *("--1", "1e99999", "1" * 65),
    ],
)
def test_an_invalid_quantity_is_refused_with_the_rule(text: str) -> None:
    problem = quantity_problem(text)
    assert problem is not None
    assert problem.startswith("must be a Kubernetes quantity")


@pytest.mark.parametrize("text", ["9223372036854775808", "8Ei", "9.3E", "1e19", "1e9999", "9" * 60])
def test_a_quantity_above_64_bits_is_refused_instead_of_capped(text: str) -> None:
    assert quantity_problem(text) == "must not be above 2^63-1"


def test_negative_quantities_are_refused_unless_allowed() -> None:
    with pytest.raises(InvalidValueError, match="negative"):
        Quantity.parse("-1m")
    assert Quantity.parse("-1.5Gi", allow_negative=True).text == "-1536Mi"
    assert Quantity.parse("-1500m", allow_negative=True).whole == -1


suffixes = st.sampled_from(sorted(FACTORS))
numbers = st.decimals(min_value=0, max_value=10**6, places=3, allow_nan=False, allow_infinity=False)


def exact(number: Decimal, suffix: str) -> Decimal:
    """Returns the amount as Kubernetes reads it: rounded away from zero to a billionth."""
    with localcontext() as context:
        context.prec = 100
        return (number * FACTORS[suffix]).quantize(Decimal("1e-9"), rounding=ROUND_UP)


@given(numbers, suffixes)
def test_the_value_is_exact(number: Decimal, suffix: str) -> None:
    expected = exact(number, suffix)
    text = f"{number}{suffix}"
    if expected > 2**63 - 1:
        assert quantity_problem(text) == "must not be above 2^63-1"
    else:
        assert Decimal(Quantity.parse(text).nanos).scaleb(-9, None) == expected


@given(numbers, suffixes)
def test_the_canonical_form_keeps_the_value_and_is_stable(number: Decimal, suffix: str) -> None:
    text = f"{number}{suffix}"
    if quantity_problem(text) is None:
        quantity = Quantity.parse(text)
        again = Quantity.parse(quantity.text)
        assert again == quantity
        assert again.text == quantity.text


@given(numbers, suffixes, numbers, suffixes)
def test_order_and_sum_match_the_exact_values(a: Decimal, a_suffix: str, b: Decimal, b_suffix: str) -> None:
    first, second = f"{a}{a_suffix}", f"{b}{b_suffix}"
    if quantity_problem(first) or quantity_problem(second):
        return
    left, right = Quantity.parse(first), Quantity.parse(second)
    assert (left < right) == (exact(a, a_suffix) < exact(b, b_suffix))
    assert (left == right) == (exact(a, a_suffix) == exact(b, b_suffix))
    assert (left + right) - right == left
    assert left * 3 == left + left + left


@given(st.integers(0, 10**12), st.integers(0, 2**60))
def test_units_round_trip(millicores: int, count: int) -> None:
    assert Quantity.from_millicores(millicores).millicores == millicores
    assert Quantity.parse(f"{millicores}m").millicores == millicores
    assert Quantity.from_bytes(count).whole == count
    assert Quantity.parse(Quantity.from_bytes(count).text).whole == count


def test_units_round_towards_more() -> None:
    assert Quantity.parse("1u").millicores == 1
    assert Quantity.parse("1m").whole == 1


@given(st.text(max_size=12))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    problem = quantity_problem(text)
    if problem is None:
        assert Quantity.parse(text) == Quantity.parse(Quantity.parse(text).text)
    else:
        with pytest.raises(InvalidValueError):
            Quantity.parse(text)
