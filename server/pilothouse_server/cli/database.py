"""`pilothouse database`: maintenance of the database by hand.

    pilothouse database analyze [TABLE…]   statistics for the planner
    pilothouse database vacuum [TABLE…]    free the space of dead rows
    pilothouse database reindex [TABLE…]   rebuild indexes; without a table those that are largely empty
    pilothouse database stats              connections, bloat, growth and slow statements, from a server

The first three connect to the database of the settings with the maintenance login. Servers may run at the same time,
and do the same on schedule. The last one calls the server of the current context.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

from pilothouse_client.commands import verbs
from pilothouse_client.commands.terminal import say
from pilothouse_server.launch.processes.failures import words_of
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError, load

if TYPE_CHECKING:
    from pilothouse_server.store.maintenance import Maintenance

_FAULT = 1
_USAGE = 2
_MEBIBYTE = 1 << 20

app = verbs.VerbGroup(
    help="Maintain the database: analyze, vacuum, reindex, stats.",
    no_args_is_help=True,
)
_Tables = Annotated[list[str] | None, verbs.Argument(metavar="[TABLE]...", help="Default: all.")]


@app.command("analyze")
def analyze(tables: _Tables = None) -> None:
    """Update the planner's statistics of tables; a partitioned table includes its partitions."""
    _maintain(lambda maintenance: maintenance.analyze(tables or ()))


@app.command("vacuum")
def vacuum(tables: _Tables = None) -> None:
    """Reclaim the space of dead rows, and analyze."""
    _maintain(lambda maintenance: maintenance.vacuum(tables or ()))


@app.command("reindex")
def reindex(
    tables: _Tables = None,
    bloat_percent: Annotated[
        float | None,
        verbs.Option(
            "--bloat-percent",
            min=0,
            max=100,
            help="Without a table: rebuild indexes that are empty to this percentage; default 50.",
        ),
    ] = None,
) -> None:
    """Rebuild indexes while servers run: those of TABLE, or all that are largely empty."""
    names = tables or ()
    _maintain(
        lambda maintenance: (
            maintenance.reindex(names) if bloat_percent is None else maintenance.reindex(names, bloat_percent)
        )
    )


@app.command("stats")
def stats() -> None:
    """Show connections, bloat, growth and the slowest statements, as the server reports them."""
    from pilothouse_client.commands.invocation import connect

    with connect() as client:
        found = client.metrics.get_database_stats(slow_query_limit=10)
    say(f"PostgreSQL {found.server_version}, {_mebibytes(found.database_bytes)}")
    used = sum(each.count for each in found.connections)
    say(f"\nconnections: {used} of {found.max_connections}")
    for each in found.connections:
        say(f"  {each.count:>5}  {each.role_name}  {each.application_name}  {each.state}")
    say("\nbloat, estimated: of the table, of its indexes")
    for table in found.table_bloat[:10]:
        of_table, of_indexes = _mebibytes(table.table_bloat_bytes), _mebibytes(table.index_bloat_bytes)
        say(f"  {of_table:>12}  {of_indexes:>12}  {table.table_name}")
    say("\npartitions: size, and growth a day")
    for part in found.partition_growth:
        say(
            f"  {_mebibytes(part.total_bytes):>12}  {_mebibytes(part.bytes_per_day):>12}  {part.partition_name}"
        )
    if not found.slow_queries_available:
        say("\nslow statements are not available: pg_stat_statements is not set up (pilothouse migrate init)")
        return
    say("\nstatements by their time, all runs together: seconds, runs")
    for query in found.slow_queries:
        seconds = query.total_duration.ToTimedelta().total_seconds()
        say(f"  {seconds:>9.3f}  {query.calls:>8}  {' '.join(query.query.split())[:120]}")


def _mebibytes(count: float) -> str:
    return f"{count / _MEBIBYTE:,.1f} MiB"


def _maintain(work: Callable[[Maintenance], Awaitable[list[str]]]) -> None:
    """Runs the work, and prints a line before each statement."""
    settings = _settings()
    if not (settings.maintenance_database_url or settings.database_url):
        from pilothouse_server.launch.development import running_database

        url = running_database(settings)
        if not url:
            _fail(f"{PREFIX}MAINTENANCE_DATABASE_URL or {PREFIX}DATABASE_URL must be set", _USAGE)
        import msgspec

        settings = msgspec.structs.replace(settings, database_url=url, maintenance_database_url=url)

    async def run() -> list[str]:
        from pilothouse_server.store.engine import Database
        from pilothouse_server.store.maintenance import Maintenance

        database = Database.connect(settings)
        try:
            return await work(Maintenance(database.maintenance, report=say))
        finally:
            await database.close()

    try:
        done = asyncio.run(run())
    except Exception as error:
        if (words := words_of(error)) is None:
            raise
        _fail(words, _FAULT)
    if not done:
        say("nothing to do")


def _settings() -> Settings:
    try:
        return load()
    except SettingsError as error:
        _fail(str(error), _USAGE)


def _fail(message: str, code: int) -> NoReturn:
    say(f"pilothouse: {message}", err=True)
    raise verbs.Exit(code)
