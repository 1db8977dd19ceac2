"""`pilothouse clusters`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Filter, Format, Limit, OrderBy, Output
from pilothouse_client.commands.output import Column, show, show_all
from pilothouse_client.commands.values import enum_label, moment

app = typer.Typer(no_args_is_help=True, help="The Kubernetes clusters.", rich_markup_mode=None)
COLUMNS: list[Column[Any]] = [
    Column("NAME", lambda cluster: cluster.name),
    Column("STATUS", lambda cluster: enum_label(cluster, "status")),
    Column("VERSION", lambda cluster: cluster.version),
    Column("API SERVER", lambda cluster: cluster.api_server),
    Column("LAST SEEN", lambda cluster: moment(cluster.last_seen_time)),
    Column("MESSAGE", lambda cluster: cluster.message),
]


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="Name of the cluster.")], output: Output = Format.TABLE
) -> None:
    """Show a cluster."""
    with connect() as client:
        show(client.namespaces.get_cluster(name=name), COLUMNS, output)


@app.command("list")
def list_clusters(
    filter_: Filter = "", order_by: OrderBy = "", limit: Limit = 0, output: Output = Format.TABLE
) -> None:
    """List clusters. Filter by name, status, labels.KEY."""
    with connect() as client:
        show_all(client.namespaces.list_clusters(filter=filter_, order_by=order_by), COLUMNS, output, limit)
