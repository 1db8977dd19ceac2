"""`pilothouse top`: a live table of usage on a terminal; elsewhere, or with `--once`, one table."""

from __future__ import annotations

import enum
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse.metrics.v1 import metrics_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    AllNamespaces,
    Format,
    Namespace,
    Output,
    namespace_or_all,
    one_namespace,
)
from pilothouse_client.commands.output import OutputColumn, as_data, fitted, rich_table, show_all
from pilothouse_client.commands.terminal import live, say, write_data
from pilothouse_client.commands.values import moment, optional, size

if TYPE_CHECKING:
    from pilothouse_client import Client

COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda sample: sample.namespace),
    OutputColumn("CONTAINER", lambda sample: sample.container),
    OutputColumn("CPU", lambda sample: f"{sample.cpu_cores_used:.3f}"),
    OutputColumn("CPU %", lambda sample: optional(sample, "cpu_usage_percent")),
    OutputColumn("MEMORY", lambda sample: size(sample.memory_bytes_used)),
    OutputColumn("MEMORY %", lambda sample: optional(sample, "memory_usage_percent")),
    OutputColumn(
        "RECEIVED",
        lambda sample: size(sample.network_bytes_rx) if sample.HasField("network_bytes_rx") else "",
    ),
    OutputColumn(
        "SENT", lambda sample: size(sample.network_bytes_tx) if sample.HasField("network_bytes_tx") else ""
    ),
    OutputColumn("MEASURED", lambda sample: moment(sample.timestamp), whole=True),
]
# Columns that are dropped, in this order, if the terminal is too narrow.
_DISPENSABLE = ("MEASURED", "SENT", "RECEIVED", "MEMORY %", "CPU %", "NAMESPACE")
# Seconds without a measurement after which a container is removed from the live table; by default, the server measures
# every 10 s.
_FORGET_SECONDS = 300


# Three times the server's default period.
FIRST_SAMPLE_SECONDS = 30.0
# The number of newest running containers to check.
_NEWEST = 100


class By(enum.StrEnum):
    """The order of the rows."""

    CPU = "cpu"
    MEMORY = "memory"


def command(
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    by: Annotated[By, verbs.Option("--by", help="Order of the containers.")] = By.CPU,
    limit: Annotated[int, verbs.Option("--limit", min=1, max=1000, help="How many to show.")] = 20,
    once: Annotated[bool, verbs.Option("--once", help="Show the table once.")] = False,
    watch: Annotated[
        bool, verbs.Option("-w", "--watch", help="Print every new sample, as JSON lines.")
    ] = False,
    programs: Annotated[
        bool, verbs.Option("--containers", help="Show each program of pods that run several.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show the containers with the highest usage; live on a terminal, until interrupted."""
    where = namespace_or_all(namespace, all_namespaces)
    with connect() as client:
        if watch:
            _write_samples(client, where)
        elif once or not output.is_table or not sys.stdout.isatty():
            order = pb.TOP_BY_CPU if by is By.CPU else pb.TOP_BY_MEMORY
            await_first_samples(client, where)
            samples = client.metrics.list_top_containers(namespace=where, by=order, page_size=limit)
            if not samples:
                say("no running container has been measured so far", err=True)
            if samples or not output.is_table:
                apart = programs and output.is_table
                show_all(by_program(samples) if apart else samples, COLUMNS, output)
        else:
            _live(client, where, by, limit, programs=programs)


def await_first_samples(client: Client, namespace: str) -> None:
    """Waits at most FIRST_SAMPLE_SECONDS until each container that has just started was measured once.

    Without the wait, such containers would be missing. If no container has just started, it waits only for a first
    sample of any running container.
    """
    from pilothouse_client.errors import DeadlineExceededError, PermissionDeniedError

    since = time.time() - FIRST_SAMPLE_SECONDS
    awaited: set[str] = set()
    # Missing containers are named only to a user who may list containers.
    with suppress(PermissionDeniedError):
        running = client.containers.list(
            namespace=namespace, filter="status = RUNNING", order_by="create_time desc", page_size=_NEWEST
        )
        newest = list(islice(running, _NEWEST))
        if not newest:
            return
        awaited = {each.uid for each in newest if each.started_at.seconds >= since}
    seen: set[str] = set()
    with (
        suppress(DeadlineExceededError),
        client.with_options(timeout=FIRST_SAMPLE_SECONDS).metrics.watch_usage(namespace=namespace) as answers,
    ):
        for answer in answers:
            seen.update(sample.container_uid for sample in answer.samples)
            if seen and awaited <= seen:
                return


def _write_samples(client: Client, namespace: str) -> None:
    import json

    with client.metrics.watch_usage(namespace=namespace) as answers:
        for answer in answers:
            for sample in answer.samples:
                write_data(json.dumps(as_data(sample), ensure_ascii=False))
            sys.stdout.flush()


def by_program(samples: Iterable[pb.UsageSample]) -> list[pb.UsageSample]:
    """Returns each sample; if it has programs, they follow as samples named CONTAINER/PROGRAM."""
    found: list[pb.UsageSample] = []
    for sample in samples:
        found.append(sample)
        found += [
            pb.UsageSample(
                namespace=sample.namespace,
                container=f"{sample.container}/{each.name}",
                timestamp=sample.timestamp,
                cpu_cores_used=each.cpu_cores_used,
                memory_bytes_used=each.memory_bytes_used,
            )
            for each in sorted(sample.programs, key=lambda each: each.name)
        ]
    return found


def _live(client: Client, namespace: str, by: By, limit: int, *, programs: bool) -> None:
    newest: dict[str, pb.UsageSample] = {}
    with (
        client.metrics.watch_usage(namespace=namespace) as answers,
        live("waiting for the first sample", auto_refresh=False, screen=True) as screen,
    ):
        for answer in answers:
            newest.update({sample.container_uid: sample for sample in answer.samples})
            if newest:
                # The width is read each time, because a terminal can be resized.
                shown = ordered(newest, by, limit)
                table = live_table(by_program(shown) if programs else shown, screen.console.width)
                screen.update(table, refresh=True)


def live_table(samples: list[pb.UsageSample], width: int) -> Any:
    """Returns a line for each sample, at any width of the terminal."""
    # As in any table, the namespace is left out if the command names one.
    left_out = "NAMESPACE" if one_namespace.get() else ""
    columns = [column for column in COLUMNS if column.heading != left_out]
    rows = [[column.text(sample) for column in columns] for sample in samples]
    dispensable = [each for each in _DISPENSABLE if each != left_out]
    headings, rows = fitted([column.heading for column in columns], rows, width, dispensable)
    return rich_table(headings, rows)


def ordered(newest: dict[str, pb.UsageSample], by: By, limit: int) -> list[pb.UsageSample]:
    """Returns the samples to show, with the greatest usage first.

    Containers without recent samples are dropped. The newest of all samples is the reference, so that this machine's
    clock does not matter."""
    latest = max((sample.timestamp.seconds for sample in newest.values()), default=0)
    for uid in [uid for uid, sample in newest.items() if sample.timestamp.seconds < latest - _FORGET_SECONDS]:
        del newest[uid]

    def weight(sample: pb.UsageSample) -> tuple[float, str, str]:
        used = sample.cpu_cores_used if by is By.CPU else float(sample.memory_bytes_used)
        return -used, sample.namespace, sample.container

    return sorted(newest.values(), key=weight)[:limit]
