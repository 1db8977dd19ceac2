"""`pilothouse apply`: reads the arguments; `pilothouse_client.apply` does the work."""

from __future__ import annotations

import enum
from typing import Annotated

from pilothouse_client.apply.run import DEFAULT_TIMEOUT_SECONDS, ApplyResult, Options, apply
from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import LEFT_OUT, WAIT_FAILED, CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import Namespace, StableSeconds, WaitSeconds, namespace_or_default
from pilothouse_client.commands.terminal import say
from pilothouse_client.waiting import Patience
from pilothouse_manifests.translator.weights import ProblemWeight

_EXIT_CODE_OF = {
    ApplyResult.DONE: 0,
    ApplyResult.FAILED: 1,
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
        verbs.Argument(metavar="FILE", help="Further files, so that -f *.yaml works."),
    ] = None,
    namespace: Namespace = "",
    wait: Annotated[bool, verbs.Option("--wait", help="Wait until every container runs.")] = False,
    wait_timeout: WaitSeconds = DEFAULT_TIMEOUT_SECONDS,
    stable_for: StableSeconds = 10.0,
    dry_run: Annotated[
        bool,
        verbs.Option("--dry-run", help="Show what would change: the server checks it and changes nothing."),
    ] = False,
    replace: Annotated[
        bool,
        verbs.Option(
            "--replace",
            help="Change settings that are immutable: delete a StatefulSet, without its pods and claims, and "
            "create it again.",
        ),
    ] = False,
    skip_unsupported: Annotated[
        _Skipped | None,
        verbs.Option(
            "--skip-unsupported",
            help="Continue without fields and documents that cannot be represented, and list them: those whose "
            "loss is harmless, or also those that change behaviour, or also those that weaken security.",
        ),
    ] = None,
) -> None:
    """Take Kubernetes YAML over into the platform: Deployments, Services, ServiceAccounts, ConfigMaps,
    Secrets and PersistentVolumeClaims.

    Fields that cannot be represented, and objects that the server or the cluster would refuse, are refused with their
    file and line before anything is changed. Applying the same again changes nothing.
    """
    sources = [*(files or ()), *(more_files or ())]
    if not sources:
        raise CommandError("name the manifests with -f FILE", 2)
    options = Options(
        sources=sources,
        namespace=namespace_or_default(namespace),
        wait=wait,
        dry_run=dry_run,
        replace=replace,
        skip=ProblemWeight[skip_unsupported.name] if skip_unsupported else None,
        timeout_seconds=wait_timeout,
        patience=Patience(stable_for=stable_for),
    )
    with connect() as client:
        result = apply(
            client,
            options,
            say=lambda line: say(line),
            complain=lambda line: say(line, err=True),
        )
    if result is not ApplyResult.DONE:
        raise verbs.Exit(_EXIT_CODE_OF[result])
