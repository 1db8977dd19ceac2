"""`pilothouse audit`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Filter, Format, Limit, Namespace, OrderBy, Output
from pilothouse_client.commands.output import DRY_RUN, Column, show, show_all, show_changes
from pilothouse_client.commands.values import moment, span


def _action(operation: Any) -> str:
    metadata = operation.metadata
    tried_out = "validate_only" in metadata and metadata["validate_only"]
    return f"{operation.action} {DRY_RUN}" if tried_out else str(operation.action)


def _result(operation: Any) -> str:
    """A stream has two records: the one of its beginning has no result yet."""
    metadata = operation.metadata
    if "stream_event" in metadata and metadata["stream_event"] == "opened":
        return "opened"
    return operation.error_code or "OK"


app = typer.Typer(no_args_is_help=True, help="What was done, by whom.", rich_markup_mode=None)
COLUMNS: list[Column[Any]] = [
    Column("TIME", lambda operation: moment(operation.start_time)),
    Column("USER", lambda operation: operation.username or "-"),
    Column("ACTION", _action),
    Column("TYPE", lambda operation: operation.resource_type),
    Column("NAMESPACE", lambda operation: operation.namespace),
    Column("NAME", lambda operation: operation.resource_name),
    Column("RESULT", _result),
    Column("DURATION", lambda operation: span(operation.duration)),
    Column("ID", lambda operation: operation.operation_id),
]
_STATS: list[Column[Any]] = [
    Column("USERNAME", lambda stats: stats.username),
    Column("CALLS", lambda stats: stats.total_operations),
    Column("FAILED", lambda stats: stats.failed_operations),
    Column("CREATE", lambda stats: stats.create_operations),
    Column("START", lambda stats: stats.start_operations),
    Column("STOP", lambda stats: stats.stop_operations),
    Column("DELETE", lambda stats: stats.delete_operations),
    Column("LAST 30 DAYS", lambda stats: stats.operations_last_30_days),
    Column("LAST", lambda stats: moment(stats.last_operation_at)),
    Column("MEAN", lambda stats: span(stats.avg_duration)),
]
_DEFAULT_LIMIT = 50


@app.command("list")
def list_operations(
    namespace: Namespace = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = _DEFAULT_LIMIT,
    output: Output = Format.TABLE,
) -> None:
    """List records, newest first. Filter by username, action, resource_type, resource_name, error_code, start_time …"""
    with connect() as client:
        operations = client.audit.list_operations(
            namespace=namespace, filter=filter_, order_by=order_by, page_size=min(limit, 1000)
        )
        show_all(operations, COLUMNS, output, limit)


@app.command("get")
def get(
    operation_id: Annotated[str, typer.Argument(help="As `list` shows it.")], output: Output = Format.YAML
) -> None:
    """Show a record with all that was asked and answered."""
    with connect() as client:
        show(client.audit.get_operation(operation_id=operation_id), COLUMNS, output)


@app.command("tail")
def tail(
    namespace: Namespace = "",
    user: Annotated[str, typer.Option("--user", help="Only those of this user.")] = "",
    action: Annotated[str, typer.Option("--action", help="Only this action, such as create.")] = "",
    resource_type: Annotated[str, typer.Option("--type", help="Only this kind of thing.")] = "",
    resume_token: Annotated[
        str, typer.Option("--resume-token", help="Go on after the record that had it.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Show records as they are made, until interrupted."""
    with (
        connect() as client,
        client.audit.watch_operations(
            namespace=namespace,
            username=user,
            action=action,
            resource_type=resource_type,
            resume_token=resume_token,
        ) as changes,
    ):
        show_changes(changes, COLUMNS, output)


@app.command("stats")
def stats(
    user: Annotated[str, typer.Option("--user", help="Only this user.")] = "",
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """Show what users have done."""
    with connect() as client:
        show_all(client.audit.get_user_operation_stats(username=user), _STATS, output, limit)
