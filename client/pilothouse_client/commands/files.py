"""`pilothouse diff -f` and `pilothouse delete -f`: show the effect of Kubernetes YAML, and delete its objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.apply.outcome import ApplyOutput, ApplyResult, Options
from pilothouse_client.apply.run import apply
from pilothouse_client.apply.sent_documents import subject_of
from pilothouse_client.commands import apply_report, verbs
from pilothouse_client.commands.failures import CommandError, as_json, failure_of
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    Namespace,
    ValidateOnly,
    Yes,
    confirm,
    namespace_or_default,
)
from pilothouse_client.commands.options import dry_run as is_dry_run
from pilothouse_client.commands.own_documents import read_documents
from pilothouse_client.commands.terminal import say, say_prose
from pilothouse_client.errors import NotFoundError
from pilothouse_manifests.translator.nodes import Document, Mapping, Node, ScalarNode
from pilothouse_manifests.translator.problems import Problems, counts, listed
from pilothouse_manifests.workloads import WORKLOAD_PARTS

if TYPE_CHECKING:
    from pilothouse_client import Client

_DIFFERENT, _WRONG_COMMAND_LINE = 1, 2
Files = Annotated[
    list[str] | None,
    verbs.Option("-f", "--filename", metavar="FILE", help="File, folder, or - for standard input; repeat."),
]
MoreFiles = Annotated[
    list[str] | None, verbs.Argument(metavar="[FILE]...", help="Further files, so that -f *.yaml works.")
]


def _sources(files: Sequence[str] | None, more: Sequence[str] | None) -> list[str]:
    found = [*(files or ()), *(more or ())]
    if not found:
        raise CommandError("name the manifests with -f FILE", _WRONG_COMMAND_LINE)
    return found


def diff(files: Files = None, more_files: MoreFiles = None, namespace: Namespace = "") -> None:
    """Show the changes that `apply` would make, as a diff; exits with 0 for none, 1 for any, 3 for refused files."""
    differs = False

    def show(line: str) -> None:
        nonlocal differs
        # The last lines are the dry run's summary, which is not a difference.
        if line.startswith("--- "):
            differs = True
            for each in line.split("\n"):
                say_prose(each, err=False)

    options = Options(_sources(files, more_files))
    request = pb.ApplyApplicationRequest(namespace=namespace_or_default(namespace), validate_only=True)
    with connect() as client:
        lines = ApplyOutput(show, apply_report.complain)
        result = apply(client, options, request, lines, read=read_documents)
    apply_report.check(lines, result)
    if result not in (ApplyResult.DONE, ApplyResult.LEFT_OUT):
        raise verbs.Exit(apply_report.REFUSED)
    if differs:
        raise verbs.Exit(_DIFFERENT)


# Workloads are deleted first, because they use the other objects.
_DELETIONS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(WORKLOAD_PARTS, lambda client: client.containers.delete),
    "Service": lambda client: client.network.delete_service,
    "PersistentVolumeClaim": lambda client: client.storage.delete_volume,
    "ConfigMap": lambda client: client.config.delete_config_map,
    "Secret": lambda client: client.config.delete_secret,
}
_ORDER = [*WORKLOAD_PARTS, "Service", "", "PersistentVolumeClaim", "ConfigMap", "Secret"]


def delete(
    files: Files = None,
    more_files: MoreFiles = None,
    namespace: Namespace = "",
    validate_only: ValidateOnly = False,
    yes: Yes = False,
) -> None:
    """Delete the objects of Kubernetes YAML; objects that do not exist are skipped."""
    problems = Problems()
    documents = read_documents(_sources(files, more_files), problems)
    if problems.all:
        for line in listed(problems.all):
            apply_report.complain(line)
        refused = apply_report.refusal(problems.all, f"nothing was deleted: {counts(problems.all)}")
        raise refused if as_json.get() else verbs.Exit(apply_report.REFUSED)
    meant = sorted(filter(None, map(_meant, documents)), key=lambda each: _ORDER.index(_place(each[1])))
    where = namespace_or_default(namespace)
    if not meant:
        raise CommandError(
            "the files contain no object with apiVersion, kind and metadata.name", _WRONG_COMMAND_LINE
        )
    if not validate_only:
        shown = ", ".join(subject_of(kind, name) for _, kind, name in meant[:10])
        more = f" and {len(meant) - 10} more" if len(meant) > 10 else ""
        confirm(f"Delete {shown}{more} in {where}?", yes)
    codes, gone, missing = [], 0, 0
    with connect() as client:
        for api_version, kind, name in meant:
            code = _delete(client, where, (api_version, kind, name), validate_only)
            gone += code == 0
            missing += code is None and kind != "ServiceAccount"
            codes.append(code or 0)
    failed = sum(map(bool, codes))
    words = [f"{gone} deleted{' (dry run)' if is_dry_run.get() else ''}"]
    words += [f"{missing} not found"] if missing else []
    words += [f"{failed} failed"] if failed else []
    say(", ".join(words))
    if failed:
        raise verbs.Exit(max(codes))


def _place(kind: str) -> str:
    return kind if kind in _DELETIONS else ""


def _delete(client: Client, namespace: str, meant: tuple[str, str, str], validate_only: bool) -> int | None:
    """Deletes one object; returns 0, None if it does not exist, or the exit code of a failure."""
    api_version, kind, name = meant
    call_of = _DELETIONS.get(kind, lambda client: client.objects.delete)
    of_kind = {} if kind in _DELETIONS else {"api_version": api_version, "kind": kind}
    subject = subject_of(kind, name)
    try:
        call_of(client)(namespace=namespace, name=name, validate_only=validate_only, **of_kind)
    except NotFoundError:
        # A container includes its service account, which is then not an object of its own.
        if kind != "ServiceAccount":
            say(f"{subject} does not exist", err=True)
        return None
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        failure.message = f"{subject}: {failure.message}"
        failure.write()
        return failure.exit_code
    say(f"{subject} deleted{' (dry run)' if validate_only else ''}")
    return 0


def _meant(document: Document) -> tuple[str, str, str] | None:
    """Returns version, kind and name of a document; None if it has none."""
    found = tuple(_text(document.root, *keys) for keys in (("apiVersion",), ("kind",), ("metadata", "name")))
    return found if all(found) else None  # type: ignore[return-value]


def _text(node: Node | None, *keys: str) -> str:
    for key in keys:
        entry = node.entries.get(key) if isinstance(node, Mapping) else None
        node = None if entry is None else entry.value
    return node.text if isinstance(node, ScalarNode) else ""
