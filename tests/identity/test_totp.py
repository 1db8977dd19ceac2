"""Codes of authenticators, by the vectors of RFC 6238, and codes from paper."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.identity.credentials import totp
from tests.identity.factors import authenticator_code

SEED = b"12345678901234567890"
# RFC 6238, appendix B, the column of SHA-1.
VECTORS = {
    59: "94287082",
    1111111109: "07081804",
    1111111111: "14050471",
    1234567890: "89005924",
    2000000000: "69279037",
    20000000000: "65353130",
}
NOW = datetime(2026, 11, 27, 12, 0, 10, tzinfo=UTC)
STEP = int(NOW.timestamp()) // 30


@pytest.mark.parametrize(("moment", "code"), VECTORS.items())
def test_codes_equal_the_vectors_of_the_rfc(moment: int, code: str) -> None:
    assert totp.code_at(SEED, moment // 30, digits=8) == code
    assert authenticator_code(SEED, moment, digits=8) == code


@given(st.binary(min_size=20, max_size=20), st.integers(0, 2**40))
def test_codes_equal_those_of_another_implementation(seed: bytes, moment: int) -> None:
    assert totp.code_at(seed, moment // 30) == authenticator_code(seed, moment)


@pytest.mark.parametrize("steps", range(-3, 4))
def test_a_code_is_valid_in_its_step_and_the_adjacent_ones(steps: int) -> None:
    code = authenticator_code(SEED, NOW.timestamp() + 30 * steps)
    found = totp.matching_step(SEED, code, NOW, after=0)
    assert found == (STEP + steps if abs(steps) <= 1 else None)


def test_used_and_earlier_steps_are_refused() -> None:
    for used in (-1, 0, 1):
        taken = [
            totp.matching_step(
                SEED, authenticator_code(SEED, NOW.timestamp() + 30 * steps), NOW, after=STEP + used
            )
            for steps in (-1, 0, 1)
        ]
        assert [each is not None for each in taken] == [steps > used for steps in (-1, 0, 1)]


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "ümlaut", "000 000 0"])
def test_an_invalid_code_matches_no_step(typed: str) -> None:
    assert totp.matching_step(SEED, typed, NOW, after=0) is None


def test_a_code_may_be_typed_in_two_halves() -> None:
    code = authenticator_code(SEED, NOW.timestamp())
    assert totp.matching_step(SEED, f"{code[:3]} {code[3:]}", NOW + timedelta(seconds=1), after=0) == STEP


def test_an_authenticator_reads_the_seed_from_the_uri() -> None:
    seed = totp.new_seed()
    parts = urlsplit(totp.otpauth_uri(seed, "anna@example"))
    assert (parts.scheme, parts.netloc, unquote(parts.path)) == (
        "otpauth",
        "totp",
        "/Pilothouse:anna@example",
    )
    assert {name: value[0] for name, value in parse_qs(parts.query).items()} == {
        "secret": totp.shown(seed),
        "issuer": "Pilothouse",
        "algorithm": "SHA1",
        "digits": "6",
        "period": "30",
    }


def test_recovery_codes_tolerate_typing_variations() -> None:
    made = totp.new_recovery_codes()
    assert len(set(made)) == 10
    for code in made:
        assert re.fullmatch(r"([0-9a-hj-km-np-tv-z]{4}-){3}[0-9a-hj-km-np-tv-z]{4}", code)
        spoken = code.upper().replace("-", " ").replace("0", "O").replace("1", "l")
        assert totp.recovery_hash(7, spoken) == totp.recovery_hash(7, code)
        assert totp.recovery_hash(8, code) != totp.recovery_hash(7, code)
    assert re.fullmatch(r"([0-9a-z]{5}-){3}[0-9a-z]{5}", totp.new_one_time_code())
