"""Names: accepted and refused examples of every form, and dangerous names, which all forms refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pilothouse_server.values import names

Problem = Callable[[str], str | None]

ALLOWED: list[tuple[Problem, list[str]]] = [
    (names.dns_label_problem, ["a", "0", "a-b", "a--b", "1a", "a" * 63]),
    (names.dns_subdomain_problem, ["a", "a.b", "a-b.c-d", "1.2.3", ".".join(["a" * 49] * 5)]),
    (names.environment_name_problem, ["A", "_a", "A.b-c", "-x", ".x"]),
    (names.port_name_problem, ["http", "h", "1a", "web-80", "a" * 15]),
    (names.label_key_problem, ["app", "a.b_c-d", "app.kubernetes.io/name", "A" * 63, "a" * 253 + "/x"]),
    (names.label_value_problem, ["", "a", "A.b_c-1", "x" * 63]),
    (names.annotation_key_problem, ["Example.com/Key", "key"]),
    (names.config_key_problem, ["a", ".env", "tls.crt", "A_b-c", "x" * 253]),
    (names.username_problem, ["a", "A.b_c-d@e", "x" * 50]),
    (names.email_problem, ["a@b.co", "first.last+tag@sub.example.org"]),
    (names.permission_problem, ["*", "container.*", "container.get", "api_key.list"]),
    (names.uuid_problem, ["00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000A"]),
    (names.absolute_path_problem, ["/", "/a/b", "/a..b", "/data/.x"]),
    (names.relative_path_problem, ["a", "a/b", "a..b", ".x"]),
    (names.text_problem, ["Überschrift – 文字", "a/b", ""]),
    (names.resource_name_problem, ["a", "A_b", "web.1", ".hidden"]),
]

REFUSED: list[tuple[Problem, list[str]]] = [
    (names.dns_label_problem, ["", "A", "-a", "a-", "a.b", "a_b", "a" * 64, "a\n"]),
    (names.dns_subdomain_problem, ["", ".", "a.", ".a", "a..b", "a.-b", "A", "a" * 254]),
    (names.environment_name_problem, ["", "1a", "a b", "a=b", ".", "..", "..a"]),
    (names.port_name_problem, ["", "80", "a--b", "-a", "a-", "A", "a" * 16, "a_b"]),
    (names.label_key_problem, ["", "/", "/a", "a/", "a/b/c", "A/b", "-a", "a" * 64, "a" * 254 + "/x"]),
    (names.label_value_problem, ["-a", "a-", "a b", "a/b", "x" * 64]),
    (names.annotation_key_problem, ["", "a/b/c", "-a"]),
    (names.config_key_problem, ["", ".", "..", "..a", "a/b", "x" * 254]),
    (names.username_problem, ["", ".a", "-a", "@a", "a b", "a..b", "x" * 51, "ädmin"]),
    (names.email_problem, ["", "a", "a@", "a@b", "@b.co", "a@@b.co", "a b@c.de", "a@-b.co", "a.@b.co"]),
    (names.email_problem, ["x" * 65 + "@b.co", "a@" + "b." * 130 + "co"]),
    (names.permission_problem, ["", "container", "container.", ".get", "*.get", "*.*", "a.get.x", "A.get"]),
    (
        names.uuid_problem,
        ["", "0" * 32, f"{{{'0' * 8}-0000-4000-8000-{'0' * 12}}}", "00000000-0000-4000-8000-00000000000g"],
    ),
    (names.absolute_path_problem, ["", "a", "/a/..", "/../a", "/a:b", "/a\x00", "/a\n"]),
    (names.relative_path_problem, ["/a", "..", "a/../b", "a\x00"]),
    (names.text_problem, ["a\x00", "a\nb", "\x7f", "a\u202eb", "a\u200bb", "\ufeff"]),
    (
        names.resource_name_problem,
        ["..", ".", "a/b", "a%2fb", "a%2Fb", "a%2e", "a\x00", "a\\b", "ａ", "a..b"],
    ),
]


@pytest.mark.parametrize(
    ("problem", "text"), [(problem, text) for problem, texts in ALLOWED for text in texts]
)
def test_a_valid_name_is_accepted(problem: Problem, text: str) -> None:
    assert problem(text) is None


@pytest.mark.parametrize(
    ("problem", "text"), [(problem, text) for problem, texts in REFUSED for text in texts]
)
def test_an_invalid_name_is_refused(problem: Problem, text: str) -> None:
    assert problem(text) is not None


NAMES = [
    names.dns_label_problem,
    names.dns_subdomain_problem,
    names.environment_name_problem,
    names.port_name_problem,
    names.label_key_problem,
    names.label_value_problem,
    names.config_key_problem,
    names.username_problem,
    names.resource_name_problem,
]
DANGEROUS = ["..", "\x00", "%2f", "%2F", "\n", "\x1b", "а", "ａ", "\u202e", "\u200b", "\ud800", "\\"]


# Two dots inside a name do not lead to a parent folder, and Kubernetes' grammar allows them in these forms.
DOTS_ALLOWED = (
    names.environment_name_problem,
    names.label_key_problem,
    names.label_value_problem,
    names.config_key_problem,
)


@given(
    st.sampled_from(NAMES), st.sampled_from(DANGEROUS), st.text("ab1", min_size=1, max_size=5), st.text("ab1")
)
def test_every_form_refuses_dangerous_characters(
    problem: Problem, dangerous: str, before: str, after: str
) -> None:
    assume(dangerous != ".." or problem not in DOTS_ALLOWED)
    assert problem(before + dangerous + after) is not None


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("pаypal", "must be plain ASCII: U+0430 (CYRILLIC SMALL LETTER A) is not"),
        ("a\x00b", "must not contain U+0000 (a control or unnamed character)"),
        ("a/b", "must not contain / or \\"),
        ("a..b", "must not be . and must not contain .."),
        ("a%2Fb", "must not contain percent-encoded characters such as %2f"),
    ],
)
def test_the_rule_names_the_dangerous_character(text: str, rule: str) -> None:
    assert names.dns_label_problem(text) == rule


@given(st.text())
def test_a_rule_never_repeats_a_long_value(text: str) -> None:
    secret = f"CANARY{text}CANARY"
    for problem in (*NAMES, names.email_problem, names.text_problem, names.absolute_path_problem):
        found = problem(secret)
        assert found is None or "CANARY" not in found


@pytest.mark.parametrize("text", ["Admin", "ADMIN", "ａｄｍｉｎ", "ＡＤＭＩＮ", "admin"])
def test_all_spellings_of_a_username_are_one_account(text: str) -> None:
    assert names.normalise_username(text) == "admin"


@given(st.text())
def test_normalising_a_username_is_idempotent(text: str) -> None:
    assert names.normalise_username(names.normalise_username(text)) == names.normalise_username(text)


@given(st.from_regex(r"[A-Za-z0-9._@-]{1,50}", fullmatch=True))
def test_case_never_distinguishes_accounts(text: str) -> None:
    assert names.normalise_username(text.upper()) == names.normalise_username(text.lower())


def test_the_total_size_of_annotations_is_limited() -> None:
    assert names.annotations_size_problem({"a": "x" * (256 * 1024 - 1)}) is None
    assert names.annotations_size_problem({"a": "x" * (256 * 1024)}) is not None
