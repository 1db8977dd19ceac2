"""Controls of the lint step `words`: each rule reports a sentence that breaks it, and passes a correct one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.conventions import words
from tests.conventions.sources import Source

pytestmark = pytest.mark.full

CASES: Sequence[tuple[str, Source, Source]] = [
    # (rule, a source with one finding, a source without)
    *(
        ("headless", Source("server/a.py", broken), Source("server/a.py", kept))
        for broken, kept in (
            ('"""Reads. Who waits is sent away."""', '"""Reads. A caller that waits is sent away."""'),
            (
                '"""Reads.\n\n    What is sent is bounded.\n    """',
                '"""Reads.\n\n    Who may read it?\n    """',
            ),
            ("# Comments go on\n# in a line. Whose lease it is", "# A server\n# Whose lease it is"),
            ("work()  # Whatever stands there", "work()  # Whatever next?"),
            ('raise E("no. Who waits comes back")', 'raise E("no. A caller comes back")'),
        )
    ),
    ("headless", Source("docs/a.md", "- Who waits is sent away"), Source("docs/a.md", "# Who may do what")),
    (
        "headless",
        Source("docs/a.md", "One.\n\n| a | Who waits |\n"),
        Source("docs/a.md", "```text\nWho waits\n```\nA server\nWho `Who waits`"),
    ),
    (
        "headless",
        Source("protos/a.proto", "// Sent. Who asks for\n// nothing gets all."),
        Source("protos/a.proto", 'string a = 1 [x = "Who waits"];'),
    ),
    (
        "headless",
        Source("migrations/a.sql", "-- Who waits\n-- longer"),
        Source("migrations/a.sql", "-- A backend\nSELECT 'Who waits'"),
    ),
    *(
        ("docstring", Source("tests/a.py", f'"""{broken}"""'), Source("tests/a.py", f'"""{kept}"""'))
        for broken, kept in (
            ("Returns what is left.", "Returns the rows that are left."),
            ("Raises for who waits.", "Raises for a caller who waits."),
            ("Of whose lease it is.", "Ends a server whose lease is over."),
        )
    ),
    ("docstring", Source("tests/a.py", '"""Keeps whatever it is."""'), Source("tests/a.py", "# what it is")),
    *(
        (
            "banned",
            Source("server/a.py", f'"""Reads {word}."""'),
            Source("server/a.py", '"""Reads `beside`."""'),
        )
        for word in (
            "it all the same",
            "besides",
            "beside it",
            "meanwhile",
            "a row of ours",
            "anew",
            "at once",
            "when you have come",
            "for strangers",
            "for outsiders",
            "trickles",
            "way_in",
            "way_back",
            "homeless",
            "far_ahead",
            "lost_sessions",
        )
    ),
    ("banned", Source("docs/a.md", "it waits\nat\nonce"), Source("docs/a.md", "they are all the same.")),
    (
        words.CLASS_NAMES,
        Source("server/b.py", "class Taken: ..."),
        Source("server/b.py", "class _Taken: ...\nclass TakenLease: ..."),
    ),
]
OTHER = Source("server/c.py", '"""Another module."""\nclass Taken: ...\n')


@pytest.mark.parametrize(
    ("rule", "broken", "kept"), CASES, ids=[f"{case[0]}-{number}" for number, case in enumerate(CASES)]
)
def test_each_rule_reports_the_broken_source_and_passes_the_other(
    rule: str, broken: Source, kept: Source
) -> None:
    part = words.part_of(broken.path)
    assert part is not None
    (found,) = words.findings([broken, OTHER])[rule, part]
    assert found.startswith(f"{broken.path}:")
    assert not words.findings([kept, OTHER])[rule, part]


def test_every_rule_has_a_case() -> None:
    assert {case[0] for case in CASES} == {*words.LIMITS}


def test_a_headless_sentence_is_reported_with_its_line() -> None:
    source = Source("server/a.py", '"""Reads.\n\nWhat is sent\nis bounded.\n"""\n')
    (found,) = words.findings([source])["headless", "server"]
    assert found.startswith("server/a.py:3:")


def test_a_limit_allows_an_equal_number_of_findings() -> None:
    found = {("headless", "docs"): ["a.md:1: x", "a.md:2: x"]}
    assert not list(words.over_limits(found, {"headless": {"docs": 2}}))


def test_a_limit_is_broken_by_one_more_finding() -> None:
    found = {("headless", "docs"): ["a.md:1: x", "a.md:2: x"]}
    told = list(words.over_limits(found, {"headless": {"docs": 1}}))
    assert told[0].startswith("headless, docs: 2 findings, 1 allowed")
    assert told[1:] == ["a.md:1: x", "a.md:2: x"]


def test_generated_and_quoting_files_belong_to_no_part() -> None:
    assert words.part_of("client/gen/a.py") is None
    assert words.part_of("tests/conventions/words.py") is None
    assert words.part_of("client/README.md") == "docs"
    assert words.part_of("benchmarks/a.py") is None
