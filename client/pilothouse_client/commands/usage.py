"""`pilothouse usage`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pilothouse.metrics.v1 import metrics_pb2 as pb
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

_NAMED: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda row: row[0].namespace),
    OutputColumn("NAME", lambda row: row[0].container),
]
_TIME: OutputColumn[Any] = OutputColumn("TIME", lambda row: moment(row[1].timestamp), whole=True)
_VALUES: list[OutputColumn[Any]] = [
    OutputColumn("CPU", lambda row: f"{row[1].cpu_cores_avg:.3f}"),
    OutputColumn("CPU MAX", lambda row: f"{row[1].cpu_cores_max:.3f}"),
    OutputColumn("MEMORY", lambda row: size(row[1].memory_bytes_avg)),
    OutputColumn("MEM MAX", lambda row: size(row[1].memory_bytes_max)),
    OutputColumn("RECEIVED", lambda row: size(row[1].network_bytes_rx)),
    OutputColumn("SENT", lambda row: size(row[1].network_bytes_tx)),
    OutputColumn("DISK MAX", lambda row: size(row[1].disk_bytes_max)),
]
# The number of values that programs have, too.
_OF_PROGRAMS = 4


def summed_up(points: Sequence[pb.UsagePoint]) -> pb.UsagePoint:
    """Returns the usage over all steps: means weigh each step by its samples."""
    samples = sum(each.samples for each in points) or 1
    return pb.UsagePoint(
        samples=samples,
        cpu_cores_avg=sum(each.cpu_cores_avg * each.samples for each in points) / samples,
        cpu_cores_max=max((each.cpu_cores_max for each in points), default=0.0),
        memory_bytes_avg=sum(each.memory_bytes_avg * each.samples for each in points) // samples,
        memory_bytes_max=max((each.memory_bytes_max for each in points), default=0),
        network_bytes_rx=sum(each.network_bytes_rx for each in points),
        network_bytes_tx=sum(each.network_bytes_tx for each in points),
        disk_bytes_max=max((each.disk_bytes_max for each in points), default=0),
    )


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
    step: Annotated[
        str, verbs.Option("--step", help="Length of a step, such as 1m; default a hundredth of the range.")
    ] = "",
    program: Annotated[
        str, verbs.Option("-c", "--container", help="Only this program of the container's pods.")
    ] = "",
    run: Annotated[
        int,
        verbs.Option("--run", min=0, help="Only the time of this run of a Job or CronJob, by its number."),
    ] = 0,
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """Show usage over a range of time: one container in steps, or all with a line each. --limit counts containers.

    With -c, it shows CPU and memory of one program of the pods, as far back as samples are stored (default 14 days).
    """
    from itertools import islice

    with connect() as client:
        series = client.metrics.query_usage(
            namespace=namespace_or_all(namespace, all_namespaces),
            container=container,
            program=program,
            run=run,
            start_time=to_timestamp(parse_time(since, "--since")) if since else None,
            end_time=to_timestamp(parse_time(until, "--until")) if until else None,
            step=to_duration(parse_span(step, "--step")) if step else None,
        )
        if not output.is_table:
            show_all(series, [], output, limit)
            return
        chosen = islice(series, limit) if limit else series
        values = _VALUES[:_OF_PROGRAMS] if program else _VALUES
        if container:
            rows = ((one, point) for one in chosen for point in one.points)
            show_all(rows, [_TIME, *values], output)
        else:
            sums = ((one, summed_up(one.points)) for one in chosen if one.points)
            show_all(sums, [*_NAMED, *values], output)
