"""New passwords: length, the user's name, and a list of stolen passwords.

The rules apply to every call that sets a password.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse_server.errors import InvalidArgument, Unavailable
from pilothouse_server.identity.credentials import password_policy
from pilothouse_server.identity.credentials.local_reset import reset_locally
from pilothouse_server.identity.credentials.password_policy import BreachedPasswords, PasswordPolicy
from pilothouse_server.settings.model import Settings, SettingsError, load
from tests.conftest import Database
from tests.identity.factors import challenged, complete
from tests.identity.server import PASSWORD, Refused, running

STOLEN = "correct horse battery staple again"


def hashed(passwords: Sequence[str], count: str = ":17", end: str = "\n") -> bytes:
    """Returns a list in the format of Have I Been Pwned."""
    digests = sorted(hashlib.sha1(each.encode()).hexdigest().upper() for each in passwords)
    return "".join(f"{digest}{count}{end}" for digest in digests).encode()


def plain(passwords: Sequence[str]) -> bytes:
    """Returns a list as `LC_ALL=C sort -u` writes it."""
    return b"".join(each + b"\n" for each in sorted({each.encode() for each in passwords}))


_WORDS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(
    st.sets(_WORDS, min_size=1, max_size=60), st.sets(_WORDS, max_size=10), st.sampled_from(["sha1", "plain"])
)
def test_the_search_finds_exactly_the_listed_passwords(
    tmp_path_factory: pytest.TempPathFactory, there: set[str], others: set[str], form: str
) -> None:
    file = tmp_path_factory.getbasetemp() / f"breached-{os.getpid()}"
    file.write_bytes(hashed([*there]) if form == "sha1" else plain([*there]))
    breached = BreachedPasswords(file)
    assert all(breached.holds(each) for each in there)
    assert not any(breached.holds(each) for each in others - there)


@pytest.mark.parametrize(("count", "end"), [("", "\n"), (":3", "\r\n"), (":3", "\n")])
def test_lists_are_read_in_all_formats(tmp_path: Path, count: str, end: str) -> None:
    file = tmp_path / "list"
    words = [f"word {number}" for number in range(500)]
    # The last line may lack its line end.
    file.write_bytes(hashed(words, count, end).removesuffix(end.encode()))
    breached = BreachedPasswords(file)
    assert all(breached.holds(each) for each in words)
    assert not any(breached.holds(f"other {number}") for number in range(500))


def test_a_large_list_is_not_read_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "list"
    with file.open("wb") as written:
        written.writelines(b"%012d\n" % number for number in range(200_000))
    read = 0
    lines = BreachedPasswords._search.__globals__["_line_from"]

    def counted(opened: object, place: int) -> object:
        nonlocal read
        read += 1
        return lines(opened, place)

    breached = BreachedPasswords(file)
    monkeypatch.setitem(BreachedPasswords._search.__globals__, "_line_from", counted)
    assert breached.holds("000000199999")
    assert not breached.holds("0000001999990")
    # Twice the number of halvings of 2.6 MB.
    assert read <= 2 * 22


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"b\na\n", "order"),
        (b"x" * 5000 + b"\n", "too long"),
        (b"\nb\n", "empty"),
        (b"\n".join(reversed(hashed(["a", "b", "c"]).splitlines())), "order"),
    ],
)
def test_an_invalid_list_is_reported_at_start(tmp_path: Path, content: bytes, word: str) -> None:
    file = tmp_path / "list"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=f"PASSWORD_BREACHED_FILE.*{word}"):
        PasswordPolicy(Settings(password_breached_file=file))
    with pytest.raises(SettingsError, match=r"PASSWORD_BREACHED_FILE.*no such file"):
        PasswordPolicy(Settings(password_breached_file=tmp_path / "nowhere"))


async def test_a_deleted_list_causes_all_passwords_to_be_refused(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_bytes(hashed([STOLEN]))
    policy = PasswordPolicy(Settings(password_breached_file=file))
    file.unlink()
    with pytest.raises(Unavailable) as caught:
        await policy.check("password", "a long enough password", "anna")
    assert caught.value.reason == "BREACHED_LIST_UNREADABLE"


@pytest.mark.parametrize("length", [11, 129])
def test_the_minimum_length_has_limits(length: int) -> None:
    with pytest.raises(SettingsError, match="PASSWORD_MIN_LENGTH must be from 12 to 128"):
        load({"PILOTHOUSE_PASSWORD_MIN_LENGTH": str(length)})


@pytest.mark.parametrize(
    ("username", "password", "rule"),
    [
        ("anna", "fifteen letters", "16 to 1024"),
        ("anna", "x" * 1025, "16 to 1024"),
        ("annamaria-of-the-hill", "ANNAMARIA-of-the-hill", "must not be the user name"),
        ("anna", "my name is Anna, you know", "must not contain the user name"),
        ("anna", "my name is \uff21\uff2e\uff2e\uff21, you know", "must not contain the user name"),
        ("anna", STOLEN, "stolen"),
        ("ann", "my name is ann, you know", None),
        ("anna", "sixteen letters.", None),
    ],
)
async def test_a_refusal_names_the_violated_rule(
    tmp_path: Path, username: str, password: str, rule: str | None
) -> None:
    file = tmp_path / "list"
    file.write_bytes(hashed([STOLEN]))
    policy = PasswordPolicy(Settings(password_breached_file=file, password_min_length=16))
    if rule is None:
        await policy.check("password", password, username)
        return
    with pytest.raises(InvalidArgument, match=rule) as caught:
        await policy.check("password", password, username)
    assert password not in str(caught.value)
    (violation,) = caught.value.violations
    assert violation.field == "password"


@pytest.mark.parametrize(
    "password",
    [
        "password1234",
        "PASSWORD1234",
        "Password2026!",
        "qwertyuiop123",
        "1q2w3e4r5t6y",
        "sunshine_1234!",
        "123456789012",
    ],
)
async def test_common_passwords_are_refused_in_any_variation(password: str) -> None:
    with pytest.raises(InvalidArgument, match="must not be a common password"):
        await PasswordPolicy(Settings()).check("password", password, "anna")


@pytest.mark.parametrize(
    "password", [PASSWORD, "correct horse battery staple", "x" * 12 + "y1", "password of the shop"]
)
async def test_other_passwords_are_not_common(password: str) -> None:
    await PasswordPolicy(Settings()).check("password", password, "anna")


def test_the_list_is_shipped_with_its_licence() -> None:
    folder = Path(password_policy.__file__).parent
    assert "MIT License" in (folder / "common_passwords.LICENSE").read_text()
    common = (folder / "common_passwords.txt").read_bytes()
    assert len(gzip.compress(common)) < 100_000
    assert common.splitlines() == sorted({*common.splitlines()})


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        (STOLEN, "BREACHED_PASSWORD"),
        ("anna, anna and anna", "WEAK_PASSWORD"),
        ("password1234", "WEAK_PASSWORD"),
    ],
)
async def test_the_rules_apply_wherever_a_password_is_set(
    database: Database, tmp_path: Path, password: str, reason: str
) -> None:
    file = tmp_path / "list"
    file.write_bytes(hashed([STOLEN]))
    async with running(database, password_breached_file=file) as server:
        admin = await server.admin()
        anna = await server.user(admin, "anna")
        change = pb.ChangePasswordRequest(current_password=PASSWORD, new_password=password)
        outcomes = [await _refusal(lambda: anna.ChangePassword(change))]
        user = pb.User(username="anna-2", email="anna2@example.org")
        create = pb.CreateUserRequest(user=user, password=password.replace("anna", "anna-2"))
        outcomes.append(await _refusal(lambda: admin.CreateUser(create)))
        reset = pb.ResetPasswordRequest(username="anna", new_password=password)
        outcomes.append(await _refusal(lambda: admin.ResetPassword(reset)))
        outcomes.append(
            await _refusal(lambda: reset_locally(server.store, server.new_passwords, "anna", password, {}))
        )
        code = await admin.ResetPassword(pb.ResetPasswordRequest(username="anna", one_time_code=True))
        given = await challenged(server.stranger, "anna", code.one_time_code)
        outcomes.append((await complete(server.stranger, given.challenge, new_password=password)).reason)
        assert outcomes == [reason] * 5


async def _refusal(call: Callable[[], Awaitable[object]]) -> str:
    try:
        await call()
    except (Refused, InvalidArgument) as refusal:
        return refusal.reason
    return ""
