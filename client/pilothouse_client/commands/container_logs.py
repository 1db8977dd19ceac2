"""`pilothouse containers logs`."""

from __future__ import annotations

from typing import Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.container_columns import ProgramName
from pilothouse_client.commands.failures import exit_code_of
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Namespace, Selector, namespace_or_default
from pilothouse_client.commands.terminal import plain, say, write_program_output
from pilothouse_client.commands.times import parse_time, to_timestamp

_CODE_OF_PROBLEM = {"CLUSTER_REFUSED": "FAILED_PRECONDITION", "CLUSTER_UNAVAILABLE": "UNAVAILABLE"}


def logs(
    name: Annotated[str, verbs.Argument(help="Name of the container; or use --selector.")] = "",
    namespace: Namespace = "",
    selector: Selector = "",
    follow: Annotated[bool, verbs.Option("-f", "--follow", help="Continue with new lines.")] = False,
    previous: Annotated[bool, verbs.Option("--previous", help="Of the run before the last restart.")] = False,
    tail: Annotated[
        int, verbs.Option("--tail", min=-1, help="Only the last lines of each pod; -1: all.")
    ] = -1,
    since: Annotated[
        str, verbs.Option("--since", help="Only newer lines: a time, or how long ago, such as 5m.")
    ] = "",
    timestamps: Annotated[
        bool, verbs.Option("--timestamps", help="Show when each line was written.")
    ] = False,
    pod: Annotated[str, verbs.Option("--pod", help="Only this pod.")] = "",
    run: Annotated[
        int, verbs.Option("--run", min=0, help="Only of this run of a Job or CronJob, by its number.")
    ] = 0,
    program: ProgramName = "",
    init_container: Annotated[
        str, verbs.Option("--init-container", help="The same as --container.", hidden=True)
    ] = "",
    prefix: Annotated[
        bool | None,
        verbs.Option(
            "--prefix/--no-prefix",
            help=(
                "Begin each line with CONTAINER/POD; default with --selector, and if there are several pods."
            ),
        ),
    ] = None,
) -> None:
    """Show the log of a container, or of several; after a cut a followed one continues without duplicates.

    Of several logs those that can be read are shown; the others are named on standard error, and the exit code is then
    7, or 9 where the cluster fails.
    """
    request: dict[str, Any] = {
        "namespace": namespace_or_default(namespace),
        "name": name,
        "label_selector": selector,
        "follow": follow,
        "previous": previous,
        "pod": pod,
        "run": run,
        "program": program or init_container,
    }
    if tail >= 0:
        request["tail_lines"] = tail
    if since:
        request["since_time"] = to_timestamp(parse_time(since, "--since"))
    many, exit_code, said = bool(selector), 0, False
    with connect() as client, client.containers.stream_logs(**request) as answers:
        for answer in answers:
            many = many or answer.pods > 1
            if answer.programs and not said:
                # Once, although a stream that continues after a cut has a first response again.
                said, names = True, ", ".join(answer.programs)
                say(plain(f'defaulted to program "{answer.programs[0]}" out of: {names}'), err=True)
            named = many if prefix is None else prefix
            lines = (_line(entry, timestamps=timestamps, named=named) for entry in answer.entries)
            write_program_output(b"".join(lines))
            for problem in answer.problems:
                does = "waiting for" if follow else "error:"
                words = f"{does} {problem.container}/{problem.pod}: {problem.message}"
                say(words, err=True)
                exit_code = exit_code or exit_code_of(_CODE_OF_PROBLEM.get(problem.reason, ""))
    raise verbs.Exit(0 if follow else exit_code)


def _line(entry: pb.LogEntry, *, timestamps: bool, named: bool) -> bytes:
    parts = [plain(f"{entry.container}/{entry.pod}").encode()] if named else []
    parts += [entry.timestamp.ToJsonString().encode()] if timestamps else []
    return b" ".join([*parts, entry.line]) + b"\n"
