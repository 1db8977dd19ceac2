"""Every check of the conventions detects its fault, and accepts correct code.

The samples contain the faults only while the test runs: they are assembled from parts if the checks would otherwise
report this file itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import CheckConstraint, Column, Integer, MetaData, Table, UniqueConstraint

from tests.conventions import checks, library_text, migrations, noun_tables, shared_servers, tables, waits
from tests.conventions.sources import Source, load

pytestmark = pytest.mark.full

COMMANDS = "client/pilothouse_client/commands/"


def _raising(kinds: str, said: str) -> str:
    """Returns a module that puts such a text of a caught exception into a message."""
    return (
        "from pilothouse_server.errors import KINDS, OursError\n"
        f"try:\n    work()\nexcept {kinds} as error:\n    raise OursError({said}) from None\n"
    )


def _sharing(scope: str, patching: str = "pass") -> str:
    """Returns a test file with a server of this scope, and with another test that runs `patching`."""
    return (
        "from pilothouse_server import app\nfrom pilothouse_server.app import Application\n"
        "def started():\n    return Application()\n"
        'def patched(monkeypatch):\n    monkeypatch.setattr(app, "LIMIT", 2)\n'
        f'@pytest.fixture(scope="{scope}")\ndef server():\n    yield started()\n'
        "def test_a(server):\n    assert server\n"
        f"def test_b(monkeypatch):\n    {patching}\n"
    )


_OWNING = 'OWNED = NounTables(tables=frozenset({"ships", "boats"}))\n'

CASES: Sequence[tuple[checks.Check, Source, Source]] = [
    # (check, a source that breaks it, a source that passes)
    (
        checks.file_length,
        Source("server/a.py", "x = 1\n" * (checks.LONGEST_FILE_LINES + 1)),
        Source("server/a.py", "x = 1\n" * checks.LONGEST_FILE_LINES),
    ),
    (
        # The module is its own only user here.
        checks.small_modules_have_several_users,
        Source(
            "server/pilothouse_server/a.py", "from pilothouse_server import a\n" * (checks.SMALL_LINES - 1)
        ),
        Source("server/pilothouse_server/a.py", "from pilothouse_server import a\n" * checks.SMALL_LINES),
    ),
    (checks.telling_names, Source("server/utils/a.py", ""), Source("server/utilities_of_ships.py", "")),
    (checks.telling_names, Source("tests/helpers.py", ""), Source("tests/helpful.py", "")),
    (checks.module_docstrings, Source("server/a.py", "x = 1"), Source("server/a.py", '"""Why."""\nx = 1')),
    (
        checks.nothing_left_open,
        Source("server/a.py", "# TO" + "DO: later"),
        Source("server/a.py", "todo = list_of_work()"),
    ),
    (
        waits.no_sleeps_in_tests,
        Source("tests/a.py", "async def f():\n    await asyncio.sleep(0.1)"),
        Source("tests/a.py", "async def f():\n    await asyncio.sleep(0)"),
    ),
    (
        waits.no_sleeps_in_tests,
        Source("tests/a.py", "from time import sleep\nsleep(1)"),
        Source("server/a.py", "from time import sleep\nsleep(1)"),
    ),
    # The forms in which tests have polled.
    *(
        (waits.one_way_to_poll, Source("tests/a.py", loop), Source(waits.WAITING, loop))
        for loop in (
            "async def f():\n    while not holds():\n        await asyncio.sleep(0)",
            "async def f():\n    while True:\n        if holds():\n            return\n        await asyncio.sleep(0)",
            "async def f():\n    for _ in range(9):\n        if holds():\n            return\n"
            "        await pass_time(1)",
            "async def f():\n    while not holds():\n        await asyncio.wait_for(asyncio.Event().wait(), x)",
            "async def f():\n    while not holds():\n        with suppress(TimeoutError):\n            await g()",
            "async def f():\n    while not holds():\n        try:\n            await g()\n"
            "        except TimeoutError:\n            continue",
        )
    ),
    (
        waits.one_way_to_poll,
        Source("tests/a.py", "while more():\n    sleep(0)"),
        Source("tests/a.py", "for _ in range(3):\n    await asyncio.sleep(0)\nwhile await more():\n    pass"),
    ),
    (
        waits.no_elapsed_time,
        Source("tests/a.py", "began = monotonic()\nassert monotonic() - began < 5"),
        Source("tests/a.py", "client = Leased(monotonic() + 30)"),
    ),
    (
        waits.no_elapsed_time,
        Source("tests/a.py", "assert waited.passed() < 5"),
        Source("tests/a.py", "assert waited.passed() >= 0.2\nassert 4 <= waited.passed()"),
    ),
    (
        waits.no_elapsed_time,
        Source("tests/a.py", "ends = 5\nwhile asyncio.get_running_loop().time() < ends:\n    pass"),
        Source(
            "tests/a.py", "@pytest.mark.soak(part='time')\ndef test_a():\n    took = perf_counter() - began"
        ),
    ),
    (
        waits.patient_deadlines,
        Source("tests/a.py", "async with asyncio.timeout(10):\n    pass"),
        Source("tests/a.py", "async with within(10):\n    pass"),
    ),
    (
        waits.patient_deadlines,
        Source("tests/a.py", "asyncio.wait_for(x, LIMIT_SECONDS + 1)"),
        Source("tests/a.py", "asyncio.wait_for(x, patient(LIMIT_SECONDS + 1))"),
    ),
    (
        waits.patient_deadlines,
        Source("tests/a.py", "call(timeout=0.5)"),
        Source("tests/a.py", "call(timeout=runs_out(0.5))\ncall(timeout=timeout)\ncall(timeout=None)"),
    ),
    *(
        (
            waits.patience_once,
            Source("tests/a.py", text),
            Source("tests/a.py", "within(30)\npoll_until(f, seconds=3)\ncall(timeout=patient(2))"),
        )
        for text in ("within(patient(30))", "poll_until(f, seconds=patient(3))", "patient(1 + patient(2))")
    ),
    (
        shared_servers.servers_end_with_their_module,
        Source("tests/a.py", _sharing("session")),
        Source("tests/a.py", _sharing("module")),
    ),
    *(
        (
            shared_servers.nothing_patched_beside_shared_servers,
            Source("tests/a.py", _sharing("module", patching)),
            Source("tests/a.py", _sharing("function", patching)),
        )
        for patching in (
            'monkeypatch.setattr(app, "LIMIT", 1)',
            'monkeypatch.setattr(app.Application, "stop", stop)',
            'monkeypatch.setattr("pilothouse_server.app.LIMIT", 1)',
            "app.LIMIT = 1",
            "with capture_logs() as lines:\n        pass",
            "patched(monkeypatch)",
        )
    ),
    (
        shared_servers.nothing_patched_beside_shared_servers,
        Source("tests/a.py", _sharing("module", 'monkeypatch.setattr(app, "LIMIT", 1)')),
        Source("tests/a.py", _sharing("module", 'monkeypatch.setattr(server.pool, "limit", 1)')),
    ),
    (
        checks.no_bare_tests,
        Source("tests/a.py", "def test_a():\n    call()"),
        Source("tests/a.py", "def test_a():\n    with pytest.raises(ValueError):\n        call()"),
    ),
    (
        checks.no_bare_tests,
        Source("tests/a.py", "async def test_a():\n    await call()"),
        Source("tests/a.py", "async def test_a():\n    assert await call()"),
    ),
    (
        checks.one_way_to_the_terminal,
        Source(f"{COMMANDS}a.py", "click.echo(name)"),
        Source(f"{COMMANDS}a.py", "say(name)\n_print(answer)"),
    ),
    (
        checks.one_way_to_the_terminal,
        Source(f"{COMMANDS}a.py", "sys.stdout.write(name)"),
        Source(f"{COMMANDS}terminal.py", "sys.stdout.write(name)"),
    ),
    (checks.no_machine_paths, Source("a.md", "see /" + "root/a"), Source("a.md", "see protos/root/a")),
    (checks.no_machine_paths, Source("a.md", "/" + "work/a"), Source("a.md", "at/work/a, ./work/")),
    (
        checks.no_registry_hosts,
        Source("a.lock", "--index https://py" + "pi.org/simple"),
        Source("a.lock", "a==1 --hash=sha256:00"),
    ),
    (checks.no_registry_hosts, Source("uv.lock", ""), Source("requirements.lock", "")),
    (
        checks.nothing_unused,
        Source("server/a.py", "class Used:\n    dead: int = 0\n\nUsed()"),
        Source("server/a.py", "class Used:\n    kept: int = 0\n\nUsed().kept"),
    ),
    (
        checks.nothing_unused,
        Source("server/a.py", "def command(): ..."),  # only a test names it
        Source("client/pilothouse_client/nouns/a.py", "def command(): ..."),
    ),
    (
        checks.modules_under_their_own_names,
        Source("server/a.py", "from tests import test_a as somebody"),
        Source("server/a.py", "from tests import test_a\nfrom tests.test_a import command as word"),
    ),
    (
        checks.modules_under_their_own_names,
        Source("server/a.py", "import datetime as dt"),
        Source("server/a.py", "import datetime"),
    ),
    (
        checks.settings_are_read,
        Source(checks.SETTINGS, "class Settings:\n    level: int = 0\n    depth: int = 0\n"),
        Source(
            checks.SETTINGS,
            "class Settings:\n    level: int = 0\n    depth: int = 0\n\n"
            "    def deep(self):\n        return self.depth\n",
        ),
    ),
    *(
        (
            checks.cancellations_go_on,
            Source("server/a.py", broken),
            Source("server/a.py", kept),
        )
        for broken, kept in (
            (
                "with contextlib.suppress(TimeoutError, asyncio.CancelledError):\n    await task",
                "with contextlib.suppress(TimeoutError):\n    await task",
            ),
            (
                "try:\n    await task\nexcept asyncio.CancelledError:\n    pass",
                "try:\n    await task\nexcept asyncio.CancelledError:\n    task.cancel()\n    raise",
            ),
            (
                "while a:\n    try:\n        b()\n    except BaseException:\n"
                "        if c:\n            continue\n        raise",
                "try:\n    b()\nexcept BaseException:\n    c()\n    raise",
            ),
            (
                "try:\n    await task\nexcept:\n    pass",
                "try:\n    await task\nexcept CancelledError:\n    if me.uncancel():\n        raise",
            ),
        )
    ),
    (
        checks.tasks_end_one_way,
        Source(
            "tests/a.py",
            "async def f():\n    a.cancel()\n    await asyncio.gather(a, return_exceptions=True)",
        ),
        Source("tests/a.py", "async def f():\n    await cancel_and_wait(a)"),
    ),
    (
        checks.one_logger,
        Source("server/a.py", "logger = structlog.get_logger(__name__)"),
        Source("server/a.py", "log = structlog.get_logger(__name__)"),
    ),
    (
        checks.one_logger,
        Source("server/pilothouse_simulator/a.py", "log = structlog.get_logger(__name__)"),
        Source("server/pilothouse_simulator/a.py", "log = logging.getLogger(__name__)"),
    ),
    (
        checks.messages_are_converted,
        Source("server/pilothouse_server/a.py", f"pb.Thing({', '.join(f'a{n}=1' for n in range(8))})"),
        Source("server/pilothouse_server/a.py", f"pb.Thing({', '.join(f'a{n}=1' for n in range(7))})"),
    ),
    *(
        (
            library_text.no_words_of_libraries,
            Source("server/pilothouse_server/a.py", _raising(f"({kinds})", said)),
            Source("server/pilothouse_server/a.py", _raising("OursError", said)),
        )
        for kinds, said in (
            ("OSError", 'f"it failed: {error}"'),
            ("OSError, OursError", 'f"it failed: {error!r}"'),
            ("OSError", "str(error)"),
            ("KINDS", "repr(error)"),
            ("OSError", 'f"{str(error).lower()}"'),
            ("http.ClientError", 'f"{error.message}"'),
        )
    ),
    (
        library_text.no_words_of_libraries,
        Source("server/pilothouse_server/a.py", _raising("OSError", "str(error)")),
        Source(
            "server/pilothouse_server/a.py", _raising("OSError", 'f"{failure(error)} {type(error).__name__}"')
        ),
    ),
    (
        noun_tables.store_names_no_table,
        Source(f"{noun_tables.STORE}tables.py", _OWNING + 'READ = text("SELECT id FROM ships WHERE id = 1")'),
        Source(f"{noun_tables.STORE}tables.py", _OWNING + 'READ = text("SELECT ships FROM events")'),
    ),
]
A_READER = Source("server/reader.py", '"""Reads."""\nprint(settings.level, self.settings.deep)\n')
A_TEST = Source("tests/test_a.py", '"""A test."""\ncommand = "pilothouse is-tested"\n')


@pytest.mark.parametrize(("check", "broken", "kept"), CASES, ids=[case[0].__name__ for case in CASES])
def test_each_check_reports_the_broken_source_and_passes_the_other(
    check: checks.Check, broken: Source, kept: Source
) -> None:
    found = list(check([broken, A_READER, A_TEST]))
    assert len(found) == 1
    assert found[0].startswith(f"{broken.path}:")
    assert list(check([kept, A_READER, A_TEST])) == []


def test_every_check_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(checks.CHECKS)


def test_sources_are_the_projects_own() -> None:
    paths = {source.path for source in load()}
    assert "tests/conventions/test_checks.py" in paths
    assert not any(path.startswith(("client/gen/", ".venv/")) for path in paths)


def test_the_schema_check_reports_missing_comments_and_names() -> None:
    bare = Table("bare", MetaData(), Column("a", Integer, primary_key=True), UniqueConstraint("a"))
    found = list(tables.findings([bare]))
    assert [finding.split(":")[1] for finding in found[:1]] == [" no comment"]
    assert {"PrimaryKeyConstraint", "UniqueConstraint"} <= {word for line in found for word in line.split()}


def test_the_schema_check_passes_a_table_with_both() -> None:
    named = Table(
        "named",
        MetaData(),
        Column("a", Integer),
        CheckConstraint("a > 0", name="a_positive"),
        comment="one row each",
    )
    assert list(tables.findings([named])) == []


def test_the_migrations_check_reports_a_long_lock() -> None:
    risky = "ALTER TABLE containers ADD COLUMN weight integer NOT NULL;"
    found = list(migrations.findings(Path(sys.executable).parent / "squawk", [("9999", risky)]))
    assert [line for line in found if line.startswith("migration 9999: adding-required-field")]


def test_the_migrations_check_passes_a_harmless_statement() -> None:
    harmless = "ALTER TABLE containers ADD COLUMN weight integer;"
    assert list(migrations.findings(Path(sys.executable).parent / "squawk", [("9999", harmless)])) == []


def test_every_exception_is_still_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = set(migrations.EXCEPTIONS)
    monkeypatch.setattr(migrations, "EXCEPTIONS", {})
    found = migrations.findings(Path(sys.executable).parent / "squawk", migrations.rendered())
    assert {tuple(line.removeprefix("migration ").split(": ")[:2]) for line in found} == expected
