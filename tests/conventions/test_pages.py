"""Every check of the pages detects its fault, and accepts correct pages."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pilothouse_server.flowcontrol.admission import IN_USE, WAITING, CallAdmission
from pilothouse_server.flowcontrol.classes import CallLimits
from pilothouse_server.settings.model import ADMISSION
from tests.conventions import pages
from tests.conventions.checks import Check
from tests.conventions.sources import Source, load

pytestmark = pytest.mark.full

TREE = [
    Source(pages.CLIENT, '_MODULE_OF = {"shown": "names"}\n'),
    Source("tests/test_a.py", '"""A test."""\ncommand = "pilothouse is-tested"\n'),
    Source("server/house/containers/operations.py", "def create_container(): ...\n"),
    Source(pages.SETTINGS, 'ADMISSION = ("max_calls", "request_seconds")\n'),
    Source(
        f"{pages.FLOWCONTROL}admission.py",
        'IN_USE = Gauge("pilothouse_admission_in_use", "Seats.")\n'
        'CLUSTER_CALLS = SeatClass(\n    "cluster calls", 1)\nself._pending("health_w", 1)\n',
    ),
    Source(
        "docs/api.md", "# The API\n\n`PILOTHOUSE_SEEN`\n\n## `From` Python, typed\n\n## Twice\n\n## Twice\n"
    ),
]
CONTRACT = Source("pyproject.toml", '[[tool.importlinter.contracts]]\nid = "layers"\n')
LISTED = "[api](docs/api.md#twice)\n"

_SETTINGS = 'ADMISSION = ()\nclass Settings:\n    """All."""\n'
_LIMITS = "`PILOTHOUSE_MAX_CALLS` `PILOTHOUSE_REQUEST_SECONDS` `pilothouse_admission_in_use` `cluster_calls` `health_w`"
CASES: Sequence[tuple[Check, Source, Source]] = [
    # (check, a source that breaks it, a source that passes)
    (
        pages.commands_are_tested,
        Source("README.md", "```console\n$ pilothouse  never-tested \\\n    --at-all\nits answer\n```"),
        Source(
            "README.md", "```console\n$ pilothouse is-tested\nits answer\n```\n```text\n$ no command\n```"
        ),
    ),
    (
        pages.commands_are_tested,
        Source("docs/operating.md", "```sh\n# a comment\npilothouse never-tested\n```"),
        Source("docs/operating.md", "```sh\n# a comment\npilothouse is-tested\n```"),
    ),
    (
        pages.commands_are_tested,
        Source("CONTRIBUTING.md", "```sh\npilothouse never-tested\n```"),
        Source("CHANGELOG.md", "```sh\npilothouse never-tested\n```"),
    ),
    (
        pages.readme_is_short,
        Source("README.md", "word " * 20 + "word\n" * (pages.README_WORDS - 19)),
        Source("README.md", "word\n" * pages.README_WORDS),
    ),
    (
        pages.readme_is_short,
        Source("README.md", "x" * (pages.README_COLUMNS + 1)),
        Source("README.md", "x" * pages.README_COLUMNS),
    ),
    (
        pages.security_is_short,
        Source(pages.SECURITY, "word\n" * (pages.SECURITY_WORDS + 1)),
        Source(pages.SECURITY, "word\n" * pages.SECURITY_WORDS),
    ),
    (
        pages.links_lead_somewhere,
        Source("README.md", "see [it](docs/gone.md)"),
        Source("README.md", "see [it](docs/api.md), [them](docs/), [all](https://example.org/gone.md)"),
    ),
    (
        pages.links_lead_somewhere,
        Source("README.md", "![it](docs/gone.png)"),
        Source("README.md", "![it](docs/console.png)"),
    ),
    (
        pages.links_lead_somewhere,
        Source("CHANGELOG.md", "see [it](docs/api.md#from-python)"),
        Source("CHANGELOG.md", "see [it](docs/api.md#from-python-typed), [it](docs/api.md#twice-1)"),
    ),
    (
        pages.links_lead_somewhere,
        Source("docs/a.md", "# Here\n[up](../README.md), [here](#here)"),
        Source("docs/a.md", "# Here\n[down](../server/house), [here](#here)\n```sh\n[x](gone)\n```"),
    ),
    (
        pages.links_lead_somewhere,
        Source("docs/a.md", "# Here\n[there](#there)"),
        Source("docs/a.md", "# There\n[there](#there)"),
    ),
    (
        pages.docs_are_listed,
        Source("README.md", "`docs/api.md`"),
        Source("README.md", LISTED),
    ),
    (
        pages.paths_exist,
        Source("ARCHITECTURE.md", "`containers/operation.py`"),
        Source(
            "ARCHITECTURE.md",
            "`containers/`, `<noun>/operations.py`, `house/*/operations.py`, `.venv/bin/x`, `a.dev/b`",
        ),
    ),
    (
        pages.paths_exist,
        Source("CONTRIBUTING.md", "`perations.py`"),
        Source("CONTRIBUTING.md", "`operations.py`, `.py`, `a word`, `read_it`, `client/gen`"),
    ),
    (
        pages.contracts_are_explained,
        Source("ARCHITECTURE.md", "## Rooms\n| `layers` | down |"),
        Source("ARCHITECTURE.md", f"{pages.CONTRACTS_HEADING}\n| `layers` | `any` |\n"),
    ),
    (
        pages.contracts_are_explained,
        Source("ARCHITECTURE.md", f"{pages.CONTRACTS_HEADING}\n| `layers`, `gone` | down |\n"),
        Source("ARCHITECTURE.md", f"{pages.CONTRACTS_HEADING}\n| `layers` | down |\n## More\n| `gone` | |"),
    ),
    *(
        (
            pages.limits_are_listed,
            Source(pages.LIMITS, _LIMITS.replace(left_out, "")),
            Source(pages.LIMITS, _LIMITS),
        )
        for left_out in _LIMITS.split()
    ),
    (
        pages.settings_are_on_pages,
        Source(pages.SETTINGS, _SETTINGS + "    seen: int = 1\n    unseen: int = 1\n"),
        Source(pages.SETTINGS, _SETTINGS + "    seen: int = 1\n"),
    ),
    (
        pages.names_exist,
        Source("ARCHITECTURE.md", "`containers.operations.make_container`"),
        Source("ARCHITECTURE.md", "`operations.create_container()`, `SELECT`, `pilothouse`, `a b_c`"),
    ),
    (
        pages.names_exist,
        Source("CONTRIBUTING.md", "`UnitOfWork`"),
        Source("CONTRIBUTING.md", "```python\nUnitOfWork\n```"),
    ),
    (
        pages.public_names_have_examples,
        Source("client/pilothouse_client/names.py", 'def shown():\n    "Shows."\n'),
        Source("client/pilothouse_client/names.py", 'def shown():\n    ">>> shown()"\n'),
    ),
]


@pytest.mark.parametrize(("check", "broken", "kept"), CASES, ids=[case[0].__name__ for case in CASES])
def test_each_check_reports_the_broken_source_and_passes_the_other(
    check: Check, broken: Source, kept: Source
) -> None:
    found = list(check([broken, *TREE, CONTRACT]))
    assert len(found) == 1
    assert found[0].startswith((f"{broken.path}:", "docs/api.md:"))
    assert list(check([kept, *TREE, CONTRACT])) == []


def test_every_check_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(pages.CHECKS)


def test_continued_lines_are_one_command() -> None:
    readme = Source("README.md", "```sh\npilothouse a \\\n  --b  c\npilothouse d\n```")
    assert list(pages.commands(readme)) == [(3, "pilothouse a --b c"), (4, "pilothouse d")]


def test_the_check_reads_the_limits_of_the_product() -> None:
    """A check that read no limits would pass for any page."""
    sources = {source.path: source for source in load()}
    assert tuple(pages._admission(sources[pages.SETTINGS])) == ADMISSION
    made = CallAdmission(CallLimits())
    shown = {
        sample.labels["class"]
        for gauge in (IN_USE, WAITING)
        for family in gauge.collect()
        for sample in family.samples
    }
    # Responses that are not read occupy no seat.
    found = [pages.classes(each) for path, each in sources.items() if path.startswith(pages.FLOWCONTROL)]
    assert set().union(*found) == shown | {"unsent_answers"}
    assert made.calls.in_use == 0
