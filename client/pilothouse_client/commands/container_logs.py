"""`pilothouse containers logs`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import CommandError, exit_code_of
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.name_completion import complete_container
from pilothouse_client.commands.options import Namespace, Selector, namespace_or_default
from pilothouse_client.commands.terminal import plain, say, write_program_output
from pilothouse_client.commands.times import parse_time, to_timestamp

_CODE_OF_PROBLEM = {"CLUSTER_REFUSED": "FAILED_PRECONDITION", "CLUSTER_UNAVAILABLE": "UNAVAILABLE"}


def logs(
    name: Annotated[
        str, verbs.Argument(help="Name of the container; or use --selector.", complete=complete_container)
    ] = "",
    namespace: Namespace = "",
    selector: Selector = "",
    follow: Annotated[bool, verbs.Option("-f", "--follow", help="Continue with new lines.")] = False,
    previous: Annotated[
        bool, verbs.Option("--previous", help="Show the log of the run before the last restart.")
    ] = False,
    tail: Annotated[
        int, verbs.Option("--tail", min=-1, help="Only the last lines of each pod; -1: all.")
    ] = -1,
    since: Annotated[
        str, verbs.Option("--since", help="Only newer lines: a time, or how long ago, such as 5m.")
    ] = "",
    until: Annotated[
        str, verbs.Option("--until", help="Only older lines, likewise; with --tail, the last of them.")
    ] = "",
    timestamps: Annotated[
        bool, verbs.Option("--timestamps", help="Show when each line was written.")
    ] = False,
    pod: Annotated[str, verbs.Option("--pod", help="Only this pod.")] = "",
    run: Annotated[
        int, verbs.Option("--run", min=0, help="Only this run of a Job or CronJob, by its number.")
    ] = 0,
    program: Annotated[
        list[str] | None,
        verbs.Option(
            "-c",
            "--container",
            help="Sidecar or init container of the pods; default the main program; repeat for more.",
        ),
    ] = None,
    all_programs: Annotated[
        bool,
        verbs.Option("--all-programs", "--all-containers", help="Show the logs of all programs of the pods."),
    ] = False,
    init_container: Annotated[
        str, verbs.Option("--init-container", help="The same as --container.", hidden=True)
    ] = "",
    grep: Annotated[str, verbs.Option("--grep", metavar="REGEX", help="Only lines that match.")] = "",
    prefix: Annotated[
        bool | None,
        verbs.Option(
            "--prefix/--no-prefix",
            help=(
                "Begin each line with CONTAINER/POD, and with the program if there are several; default if "
                "there may be several logs."
            ),
        ),
    ] = None,
) -> None:
    """Show the log of a container, or of several; after an interruption, -f continues without duplicates.

    Of several logs, those that can be read are shown. The others are named on standard error, and the exit code is then
    7, or 9 if the cluster fails. A pod that is being deleted and has no log is left out.
    """
    request: dict[str, Any] = {
        "namespace": namespace_or_default(namespace),
        "name": name,
        "label_selector": selector,
        "follow": follow,
        "previous": previous,
        "pod": pod,
        "run": run,
        "all_programs": all_programs,
    }
    chosen = [*(program or []), *([init_container] if init_container else [])]
    # Servers before 0.3 have only the field for one program.
    request |= {"program": chosen[0]} if len(chosen) == 1 else {"programs": chosen}
    pattern, programs = _pattern(grep), all_programs or len(chosen) > 1
    if tail >= 0:
        request["tail_lines"] = tail
    for field, text, option in (("since_time", since, "--since"), ("end_time", until, "--until")):
        if text:
            request[field] = to_timestamp(parse_time(text, option))
    many, exit_code, said = bool(selector), 0, False
    with connect() as client, client.containers.stream_logs(**request) as answers:
        for answer in answers:
            # A server before 0.3 does not set `several`.
            many = many or answer.several or answer.pods > 1
            if answer.programs and not said:
                # Written once, although a stream that continues after a cut has a first response again.
                said, names = True, ", ".join(answer.programs)
                say(plain(f'defaulted to program "{answer.programs[0]}" out of: {names}'), err=True)
            named = many if prefix is None else prefix
            write_program_output(
                b"".join(
                    _line(entry, timestamps=timestamps, named=named, programs=programs)
                    for entry in answer.entries
                    if pattern is None or pattern.search(entry.line)
                )
            )
            for problem in answer.problems:
                does = "waiting for" if follow else "error:"
                words = f"{does} {_name(problem, programs=programs)}: {problem.message}"
                say(words, err=True)
                exit_code = exit_code or exit_code_of(_CODE_OF_PROBLEM.get(problem.reason, ""))
    raise verbs.Exit(0 if follow else exit_code)


def _pattern(text: str) -> re.Pattern[bytes] | None:
    try:
        return re.compile(text.encode()) if text else None
    except re.error as error:
        raise CommandError(f"--grep {text!r} is not a regular expression: {error}", 2) from error


def _name(origin: pb.LogEntry | pb.LogProblem, *, programs: bool) -> str:
    of_program = f"/{origin.program}" if programs else ""
    return plain(f"{origin.container}/{origin.pod}{of_program}")


def _line(entry: pb.LogEntry, *, timestamps: bool, named: bool, programs: bool) -> bytes:
    parts = [_name(entry, programs=programs).encode()] if named else []
    parts += [entry.timestamp.ToJsonString().encode()] if timestamps else []
    return b" ".join([*parts, entry.line]) + b"\n"
