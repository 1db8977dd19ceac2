"""`pilothouse containers pods`: the pods of a container, and the programs in each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.container_columns import (
    ContainerName,
    last_exit,
    program_kind,
    program_state,
)
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Format, Limit, Namespace, Output, namespace_or_default
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, show_all
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.values import moment


def ready_programs(pod: pb.Pod) -> str:
    """Returns how many of a pod's programs are ready, of how many that should be, as kubectl counts them."""
    stay = [each for each in pod.programs if each.kind != pb.PROGRAM_KIND_INIT]
    # A server before 0.3 returns a pod without its programs.
    return f"{sum(each.ready_pods for each in stay)}/{len(stay)}" if stay else ("yes" if pod.ready else "no")


def pod_state(pod: pb.Pod) -> str:
    """Returns why a pod is not ready in one word, else its phase."""
    return str(pod.reason or pod.phase)


POD_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAME", lambda pod: pod.name),
    OutputColumn("READY", ready_programs),
    OutputColumn("STATUS", pod_state),
    OutputColumn("RESTARTS", lambda pod: pod.restart_count),
    OutputColumn("NODE", lambda pod: pod.node_name),
    *AGE_COLUMNS,
    OutputColumn("IP", lambda pod: pod.pod_ip, wide=True),
    OutputColumn("REVISION", lambda pod: pod.revision, wide=True),
    OutputColumn("MESSAGE", lambda pod: pod.message, wide=True),
]


@dataclass(frozen=True, slots=True)
class _PodProgram:
    pod: str
    program: pb.ProgramStatus


_PROGRAM_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("POD", lambda row: row.pod),
    OutputColumn("PROGRAM", lambda row: row.program.name),
    OutputColumn("READY", lambda row: "yes" if row.program.ready_pods else "no"),
    OutputColumn("STATE", lambda row: program_state(row.program)),
    OutputColumn("RESTARTS", lambda row: row.program.restart_count),
    OutputColumn("LAST EXIT", lambda row: last_exit(row.program)),
    OutputColumn("KIND", lambda row: program_kind(row.program), wide=True),
    OutputColumn("IMAGE", lambda row: row.program.image, wide=True),
    OutputColumn("IMAGE ID", lambda row: row.program.image_id, wide=True),
]


def list_pods(
    name: ContainerName,
    namespace: Namespace = "",
    programs: Annotated[
        bool, verbs.Option("--programs", help="In tables, a line for each program of each pod.")
    ] = False,
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """List the pods of a container: node, readiness, restarts, and why one is not ready."""
    with connect() as client:
        found: Iterable[pb.Pod] = client.containers.list_pods(
            namespace=namespace_or_default(namespace), name=name
        )
        found = _noting_staleness(found)
        if programs and output.is_table:
            rows = (_PodProgram(pod.name, program) for pod in found for program in pod.programs)
            show_all(rows, _PROGRAM_COLUMNS, output, limit)
        else:
            show_all(found, POD_COLUMNS, output, limit)


def _noting_staleness(pods: Iterable[pb.Pod]) -> Iterator[pb.Pod]:
    """Yields the pods; writes once that they are stale if their cluster has stopped responding."""
    said = False
    for pod in pods:
        if not said and pod.HasField("stale_since"):
            said = True
            say(
                f"the cluster has not responded since {moment(pod.stale_since)}: pods as observed before",
                err=True,
            )
        yield pod
