"""`pilothouse usage`."""

from __future__ import annotations

from typing import Annotated, Any

from pilothouse_client.commands import verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.name_completion import complete_container
from pilothouse_client.commands.options import (
    AllNamespaces,
    Format,
    Limit,
    Namespace,
    Output,
    namespace_or_all,
)
from pilothouse_client.commands.output import OutputColumn, show_all
from pilothouse_client.commands.times import parse_span, parse_time, to_duration, to_timestamp
from pilothouse_client.commands.values import moment, size

_POINTS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda row: row[0].namespace),
    OutputColumn("CONTAINER", lambda row: row[0].container),
    OutputColumn("TIME", lambda row: moment(row[1].timestamp), whole=True),
    OutputColumn("CPU", lambda row: f"{row[1].cpu_cores_avg:.3f}"),
    OutputColumn("CPU MAX", lambda row: f"{row[1].cpu_cores_max:.3f}"),
    OutputColumn("MEMORY", lambda row: size(row[1].memory_bytes_avg)),
    OutputColumn("MEMORY MAX", lambda row: size(row[1].memory_bytes_max)),
    OutputColumn("RECEIVED", lambda row: size(row[1].network_bytes_rx)),
    OutputColumn("SENT", lambda row: size(row[1].network_bytes_tx)),
    OutputColumn("DISK MAX", lambda row: size(row[1].disk_bytes_max)),
]
# The columns that programs have, too.
_OF_PROGRAMS = 7


def command(
    container: Annotated[
        str, verbs.Argument(help="Name of the container; not given: all.", complete=complete_container)
    ] = "",
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    since: Annotated[
        str, verbs.Option("--since", help="Time, or how long ago, such as 6h; default an hour.")
    ] = "",
    until: Annotated[str, verbs.Option("--until", help="Time, or how long ago; default now.")] = "",
    step: Annotated[str, verbs.Option("--step", help="Such as 1m; default a hundredth of the range.")] = "",
    program: Annotated[
        str, verbs.Option("-c", "--container", help="Only this program of the container's pods.")
    ] = "",
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """Show usage over a range of time, in steps. --limit counts containers.

    With -c the CPU and memory of one program of the pods, as far back as samples are stored (14 days).
    """
    from itertools import islice

    with connect() as client:
        series = client.metrics.query_usage(
            namespace=namespace_or_all(namespace, all_namespaces),
            container=container,
            program=program,
            start_time=to_timestamp(parse_time(since, "--since")) if since else None,
            end_time=to_timestamp(parse_time(until, "--until")) if until else None,
            step=to_duration(parse_span(step, "--step")) if step else None,
        )
        if not output.is_table:
            show_all(series, [], output, limit)
            return
        chosen = islice(series, limit) if limit else series
        columns = _POINTS[:_OF_PROGRAMS] if program else _POINTS
        show_all(((one, point) for one in chosen for point in one.points), columns, output)
