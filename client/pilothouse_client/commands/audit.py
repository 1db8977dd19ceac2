"""`pilothouse audit`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pilothouse_client.commands import audit_log, audit_sinks, verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    AllNamespaces,
    Filter,
    Format,
    Limit,
    Namespace,
    OrderBy,
    Output,
    given_or_all,
)
from pilothouse_client.commands.output import DRY_RUN, OutputColumn, as_data, show, show_all, show_changes
from pilothouse_client.commands.times import parse_time
from pilothouse_client.commands.values import age, moment, span


def _action(operation: Any) -> str:
    return f"{operation.action} {DRY_RUN}" if operation.validate_only else str(operation.action)


def _as_data(operation: Any) -> Any:
    """Returns the record with numbers as they were recorded; a Struct has only floating-point numbers."""
    data = as_data(operation)
    for field in ("request_body", "request_headers", "response_body", "metadata"):
        if text := data.pop(f"{field}_json"):
            data[field] = json.loads(text)
    for field in ("sequence", "user_id", "resource_id", "namespace_id", "duration_ms", "grant_id"):
        if field in data:
            data[field] = int(data[field])
    data["changes"] = [
        {"path": change.path, "before": json.loads(change.before), "after": json.loads(change.after)}
        for change in operation.changes
    ]
    return data


def _result(operation: Any) -> str:
    """Returns the result of a call; of a stream's two records, the one for its beginning has none yet."""
    metadata = operation.metadata
    if "stream_event" in metadata and metadata["stream_event"] == "opened":
        return "opened"
    return operation.error_code or "OK"


app = verbs.VerbGroup(no_args_is_help=True, help="The audit log: operations and their users.")
audit_log.register(app)
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("TIME", lambda operation: moment(operation.start_time), whole=True),
    OutputColumn("USER", lambda operation: operation.username or "-"),
    OutputColumn("ACTION", _action),
    OutputColumn("TYPE", lambda operation: operation.resource_type),
    OutputColumn("NAMESPACE", lambda operation: operation.namespace),
    OutputColumn("NAME", lambda operation: operation.resource_name),
    OutputColumn("RESULT", _result),
    OutputColumn("DURATION", lambda operation: span(operation.duration), wide=True),
    OutputColumn("ID", lambda operation: operation.operation_id, whole=True, wide=True),
]
_STATS: list[OutputColumn[Any]] = [
    OutputColumn("USERNAME", lambda stats: stats.username),
    OutputColumn("CALLS", lambda stats: stats.total_operations),
    OutputColumn("FAILED", lambda stats: stats.failed_operations),
    OutputColumn("CREATE", lambda stats: stats.create_operations),
    OutputColumn("START", lambda stats: stats.start_operations, wide=True),
    OutputColumn("STOP", lambda stats: stats.stop_operations, wide=True),
    OutputColumn("DELETE", lambda stats: stats.delete_operations),
    OutputColumn("30 DAYS", lambda stats: stats.operations_last_30_days),
    OutputColumn("AGO", lambda stats: age(stats.last_operation_at)),
    OutputColumn("MEAN", lambda stats: span(stats.avg_duration)),
    OutputColumn("LAST", lambda stats: moment(stats.last_operation_at), wide=True),
]
_DEFAULT_LIMIT = 50
app.add_command(audit_sinks.app, "sinks")


def _filter(given: str, parts: Mapping[str, str]) -> str:
    """Returns an AIP-160 filter that requires both the given filter and all options."""
    chosen = [f"{comparison} {value}" for comparison, value in parts.items() if value]
    return " AND ".join([f"({given})", *chosen] if given and chosen else [given] if given else chosen)


def _time(text: str, option: str) -> str:
    return f'"{parse_time(text, option).isoformat()}"' if text else ""


@app.command("list")
def list_operations(
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    user: Annotated[str, verbs.Option("--user", help="Only calls of this user.")] = "",
    action: Annotated[str, verbs.Option("--action", help="Only this action, such as create.")] = "",
    resource_type: Annotated[
        str, verbs.Option("--type", help="Only this type of resource, such as container.")
    ] = "",
    failed: Annotated[bool, verbs.Option("--failed", help="Only calls that were refused or failed.")] = False,
    since: Annotated[
        str,
        verbs.Option(
            "--since", help="Only calls that began at this time or later; or how long ago, such as 2h."
        ),
    ] = "",
    until: Annotated[
        str,
        verbs.Option("--until", help="Only calls that began before this time; or how long ago, such as 1h."),
    ] = "",
    dry_runs: Annotated[
        bool, verbs.Option("--dry-run", help="Only dry runs, which validated and changed nothing.")
    ] = False,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = _DEFAULT_LIMIT,
    output: Output = Format.TABLE,
) -> None:
    """List records, newest first. Filter by username, action, resource_type, resource_name, error_code, start_time …"""
    narrowed = _filter(
        filter_,
        {
            "username =": user and json.dumps(user),
            "action =": action and json.dumps(action),
            "resource_type =": resource_type and json.dumps(resource_type),
            "result =": "FAILURE" if failed else "",
            "start_time >=": _time(since, "--since"),
            "start_time <": _time(until, "--until"),
            "validate_only =": "true" if dry_runs else "",
        },
    )
    where = given_or_all(namespace, everywhere)
    with connect() as client:
        operations = client.audit.list_operations(
            namespace=where, filter=narrowed, order_by=order_by, page_size=min(limit, 1000)
        )
        show_all(operations, COLUMNS, output, limit, _as_data)


@app.command("get")
def get(
    operation_id: Annotated[str, verbs.Argument(help="As `list -o wide` shows it.")],
    output: Output = Format.YAML,
) -> None:
    """Show a record with the request and the response."""
    with connect() as client:
        show(client.audit.get_operation(operation_id=operation_id), COLUMNS, output, data_of=_as_data)


@app.command("tail")
def tail(
    namespace: Namespace = "",
    everywhere: AllNamespaces = False,
    user: Annotated[str, verbs.Option("--user", help="Only calls of this user.")] = "",
    action: Annotated[str, verbs.Option("--action", help="Only this action, such as create.")] = "",
    resource_type: Annotated[
        str, verbs.Option("--type", help="Only this type of resource, such as container.")
    ] = "",
    resume_token: Annotated[
        str, verbs.Option("--resume-token", help="Continue after the response with this token.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Show new records as they are written, until interrupted."""
    where = given_or_all(namespace, everywhere)
    with (
        connect() as client,
        client.audit.watch_operations(
            namespace=where,
            username=user,
            action=action,
            resource_type=resource_type,
            resume_token=resume_token,
        ) as changes,
    ):
        show_changes(changes, COLUMNS, output, _as_data)


@app.command("stats")
def stats(
    user: Annotated[str, verbs.Option("--user", help="Only this user.")] = "",
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """Show the operations of each user."""
    with connect() as client:
        show_all(client.audit.get_user_operation_stats(username=user), _STATS, output, limit)
