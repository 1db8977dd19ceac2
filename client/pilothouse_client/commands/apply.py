"""`pilothouse apply`: reads the arguments; `pilothouse_client.apply` does the work."""

from __future__ import annotations

import enum
from typing import Annotated

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.apply.outcome import DEFAULT_TIMEOUT_SECONDS, ApplyResult, Options
from pilothouse_client.apply.run import apply
from pilothouse_client.commands import apply_report, verbs
from pilothouse_client.commands.failures import LEFT_OUT, WAIT_FAILED, CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.kustomized import kustomized
from pilothouse_client.commands.name_completion import complete_application
from pilothouse_client.commands.options import (
    Format,
    Namespace,
    Output,
    StableSeconds,
    WaitSeconds,
    namespace_or_default,
)
from pilothouse_client.commands.own_documents import read_documents
from pilothouse_client.waiting import Patience
from pilothouse_manifests.translator.weights import ProblemWeight

_EXIT_CODE_OF = {
    ApplyResult.DONE: 0,
    ApplyResult.REFUSED: 3,
    ApplyResult.NOT_RUNNING: WAIT_FAILED,
    ApplyResult.LEFT_OUT: LEFT_OUT,
}


class _Skipped(enum.Enum):
    """The values of `--skip-unsupported`."""

    HARMLESS = "harmless"
    BEHAVIOUR = "behaviour"
    SECURITY = "security"


def command(
    files: Annotated[
        list[str] | None,
        verbs.Option(
            "-f", "--filename", metavar="FILE", help="File, folder, or - for standard input; repeat."
        ),
    ] = None,
    more_files: Annotated[
        list[str] | None,
        verbs.Argument(metavar="[FILE]...", help="Further files, so that -f *.yaml works."),
    ] = None,
    namespace: Namespace = "",
    application: Annotated[
        str,
        verbs.Option(
            "--application",
            metavar="NAME",
            complete=complete_application,
            help="Make this application match the files: one change, one revision.",
        ),
    ] = "",
    kustomize: Annotated[
        str,
        verbs.Option("-k", "--kustomize", metavar="DIR", help="Apply the output of kustomize for a folder."),
    ] = "",
    prune: Annotated[
        bool,
        verbs.Option(
            "--prune", help="Delete objects of the application that are not in the files; volumes stay."
        ),
    ] = False,
    take_over: Annotated[
        bool, verbs.Option("--take-over", help="Take over objects that belong to no application.")
    ] = False,
    force: Annotated[
        bool, verbs.Option("--force", help="Overwrite what other calls changed since the last revision.")
    ] = False,
    delete_claims: Annotated[
        bool, verbs.Option("--delete-claims", help="With --prune: delete volumes, too, with their data.")
    ] = False,
    rollback_on_failure: Annotated[
        bool,
        verbs.Option(
            "--rollback-on-failure",
            help="Let the server roll back if the application is not healthy in time.",
        ),
    ] = False,
    deadline: Annotated[
        int,
        verbs.Option("--progress-deadline", min=0, help="Seconds to become healthy; 0: ten minutes."),
    ] = 0,
    wait: Annotated[
        bool, verbs.Option("--wait", help="Wait until all containers run and all objects are healthy.")
    ] = False,
    wait_timeout: WaitSeconds = DEFAULT_TIMEOUT_SECONDS,
    stable_for: StableSeconds = 10.0,
    dry_run: Annotated[
        bool,
        verbs.Option(
            "--dry-run",
            "--validate-only",
            help="Show what would change: the server checks it and changes nothing.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        verbs.Option(
            "--replace",
            help="Change immutable settings: delete a StatefulSet, but not its pods and claims, and recreate it.",
        ),
    ] = False,
    skip_unsupported: Annotated[
        _Skipped | None,
        verbs.Option(
            "--skip-unsupported",
            help="List and leave out fields and documents that cannot be represented, up to this class of loss: "
            "harmless, a change of behaviour, or weaker security.",
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Apply Kubernetes YAML to the platform: workloads, Services, ServiceAccounts, ConfigMaps, Secrets,
    PersistentVolumeClaims and other objects.

    If a field cannot be represented, or the server or the cluster would refuse an object, the command names file and
    line and changes nothing. Applying the same files again changes nothing.
    """
    if output not in (Format.TABLE, Format.JSON):
        raise CommandError(f"apply writes text or, with -o json, JSON, not {output}", 2)
    sources = [*(files or ()), *(more_files or ())]
    if kustomize and sources:
        raise CommandError("-k and -f exclude each other", 2)
    if not sources and not kustomize:
        raise CommandError("name the manifests with -f FILE", 2)
    given = {
        "--prune": prune,
        "--take-over": take_over,
        "--force": force,
        "--delete-claims": delete_claims,
        "--rollback-on-failure": rollback_on_failure,
        "--progress-deadline": deadline,
    }
    alone = [name for name, value in given.items() if value]
    if alone and not application:
        raise CommandError(f"{alone[0]} needs --application NAME", 2)
    request = pb.ApplyApplicationRequest(
        namespace=namespace_or_default(namespace),
        name=application,
        prune=prune,
        take_over=take_over,
        replace=replace,
        force=force,
        delete_claims=delete_claims,
        rollback_on_failure=rollback_on_failure,
        progress_deadline_seconds=deadline,
        validate_only=dry_run,
    )
    options = Options(
        sources=sources or ["-"],
        wait=wait,
        skip=ProblemWeight[skip_unsupported.name] if skip_unsupported else None,
        timeout_seconds=wait_timeout,
        patience=Patience(stable_for=stable_for),
    )

    standard_input = kustomized(kustomize) if kustomize else None
    lines = apply_report.lines_of(output is Format.JSON)
    with connect() as client:
        result = apply(client, options, request, lines, standard_input=standard_input, read=read_documents)
    code = _EXIT_CODE_OF[result]
    if output is Format.JSON:
        apply_report.write(lines, result, code, is_dry_run=dry_run, waits=wait)
    else:
        apply_report.check(lines, result)
    if code:
        raise verbs.Exit(code)
