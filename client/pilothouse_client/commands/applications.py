"""`pilothouse applications`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.container_actions import CONTAINERS, ContainerNames
from pilothouse_client.commands.failures import CommandError, reading_answers
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.name_completion import complete_application, complete_application_revision
from pilothouse_client.commands.options import (
    AllNamespaces,
    Etag,
    Filter,
    Format,
    Limit,
    Namespace,
    OrderBy,
    Output,
    Selector,
    ValidateOnly,
    Watch,
    Yes,
    check_watch,
    enum_number,
    namespace_or_all,
    namespace_or_default,
    with_status,
)
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, show, show_all, show_changes
from pilothouse_client.commands.terminal import plain, say, say_prose
from pilothouse_client.commands.values import enum_label, moment

if TYPE_CHECKING:
    from pilothouse_client import Client

app = verbs.VerbGroup(no_args_is_help=True, help="Objects that are changed and rolled back together.")
app.command("describe")(describe.of("applications"))

_Name = Annotated[
    str,
    verbs.Argument(help="Name of the application.", metavar="NAME", complete=complete_application),
]
_Replace = Annotated[
    bool,
    verbs.Option("--replace", help="Recreate a StatefulSet that Kubernetes does not let change."),
]
_DeleteClaims = Annotated[
    bool, verbs.Option("--delete-claims", help="Delete its volumes, too, with their data.")
]
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda found: found.namespace),
    OutputColumn("NAME", lambda found: found.name),
    OutputColumn("STATUS", lambda found: enum_label(found, "status")),
    OutputColumn("REVISION", lambda found: found.revision),
    OutputColumn("OBJECTS", lambda found: len(found.members)),
    OutputColumn("REASON", lambda found: ": ".join(filter(None, (found.reason, found.message)))),
    *AGE_COLUMNS,
]
_APPLICATIONS = many.ListedNoun(
    "application",
    "applications",
    COLUMNS,
    lambda client, where, selector: client.applications.list(namespace=where, label_selector=selector),
    complete_application,
)
_Names = Annotated[list[str] | None, many.names_of("applications", complete_application)]
_MEMBER_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("KIND", lambda member: member.kind),
    OutputColumn("NAME", lambda member: member.name),
    OutputColumn("STATUS", lambda member: enum_label(member, "status")),
    OutputColumn("REASON", lambda member: ": ".join(filter(None, (member.reason, member.message)))),
    OutputColumn("MODIFIED", lambda member: (member.modified_by or "yes") if member.modified else ""),
]
_STEP_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("PHASE", lambda each: _phase(each)),
    OutputColumn("WAVE", lambda each: each.wave),
]
REVISION_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("REVISION", lambda revision: revision.number),
    OutputColumn("TIME", lambda revision: moment(revision.create_time), whole=True),
    OutputColumn("BY", lambda revision: revision.created_by),
    OutputColumn("ROLLBACK TO", lambda revision: revision.origin or ""),
    OutputColumn("REASON", lambda revision: _why(revision), is_text=True),
    OutputColumn("OPERATION", lambda revision: revision.operation_id, whole=True, wide=True),
]
_CHANGE_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("KIND", lambda change: change.kind),
    OutputColumn("NAME", lambda change: change.name),
    OutputColumn("CHANGE", lambda change: enum_label(change, "action")),
]


def _phase(each: pb.ApplicationMember | pb.ApplicationChange) -> str:
    from pilothouse_client.apply.run import phase_word

    return phase_word(each.phase)


def _with_steps(
    columns: list[OutputColumn[Any]], shown: Iterable[pb.ApplicationMember | pb.ApplicationChange]
) -> list[OutputColumn[Any]]:
    """Returns the columns, with phase and wave if there are several phases or waves."""
    several = len({(each.phase, each.wave) for each in shown}) > 1
    return [*_STEP_COLUMNS, *columns] if several else columns


def say_difference(change: pb.ApplicationChange, before: str, after: str) -> None:
    """Writes how an object differs between two states, with both values of each field uncut."""
    from pilothouse_client.apply.run import difference

    for line in difference(change, before, after):
        say_prose(line, err=False)


def _why(revision: resource_pb2.Revision) -> str:
    """Returns why the server created a revision; empty if a caller created it."""
    failed = revision.failed_revision
    return f"revision {failed} failed: {revision.reason}" if failed else ""


def _say_kept(words: str, kept: Iterable[str]) -> None:
    if named := ", ".join(kept):
        say(plain(f"{words}: {named}"), err=True)


@app.command("create")
def create(
    name: _Name,
    containers: ContainerNames = None,
    namespace: Namespace = "",
    from_containers: Annotated[
        bool,
        verbs.Option(
            "--from-containers",
            help="From existing containers, with the Services, config maps and volumes that only they use.",
        ),
    ] = False,
    selector: Selector = "",
    everything: many.Everything = False,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create an application from existing containers. Nothing changes on the cluster."""
    if not from_containers:
        raise CommandError(
            "add --from-containers, with names, -l or --all; files become an application by "
            f"`pilothouse apply --application {name} -f FILE`",
            2,
        )
    # The modules that write manifests are slow to import.
    from pilothouse_client.commands.application_adoption import adopt

    where = namespace_or_default(namespace)
    with connect() as client:
        names = many.chosen(client, CONTAINERS, where, many.Meant(containers, selector, everything))
        answer = adopt(client, where, name, names, validate_only=validate_only)
    if not output.is_table:
        show(answer, COLUMNS, output)
        return
    show_all(answer.changes, _CHANGE_COLUMNS, output)
    if validate_only:
        say(f"{len(answer.changes)} objects would become application {name}; nothing was changed")
    else:
        say(f"{len(answer.changes)} objects are revision {answer.revision} of {name}")


@app.command("list")
def list_applications(
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    status: Annotated[str, verbs.Option("--status", help="Such as healthy.")] = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 0,
    watch: Watch = False,
    output: Output = Format.TABLE,
) -> None:
    """List applications, or watch them. Filter by name, status, reason, revision."""
    where = namespace_or_all(namespace, all_namespaces)
    number = pb.ApplicationStatus.ValueType(enum_number(pb.ApplicationStatus, status, "--status"))
    with connect() as client:
        if watch:
            check_watch(filter_, order_by, limit, goes_with="--status")
            with client.applications.watch(namespace=where, status=number) as changes:
                show_changes(changes, COLUMNS, output)
            return
        found = client.applications.list(
            namespace=where, filter=with_status(filter_, pb.ApplicationStatus, number), order_by=order_by
        )
        show_all(found, COLUMNS, output, limit)


@app.command("get")
def get(name: _Name, namespace: Namespace = "", output: Output = Format.TABLE) -> None:
    """Show an application with its objects and the changes that other calls made."""
    with connect() as client:
        found = client.applications.get(namespace=namespace_or_default(namespace), name=name)
    show(found, COLUMNS, output)
    if output.is_table and found.members:
        say("")
        show_all(found.members, _with_steps(_MEMBER_COLUMNS, found.members), output)


@app.command("watch")
def watch_applications(
    name: Annotated[str, verbs.Argument(help="Only this one.", metavar="[NAME]")] = "",
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    output: Output = Format.TABLE,
) -> None:
    """Watch applications, as `list --watch`."""
    where = namespace_or_all(namespace, all_namespaces)
    with connect() as client, client.applications.watch(namespace=where, name=name) as changes:
        show_changes(changes, COLUMNS, output)


def _change(
    meant: many.Meant, namespace: str, output: Format, done: str, call_of: Callable[[Client], Any], dry: bool
) -> None:
    """Pauses or resumes the chosen applications."""
    where = namespace_or_default(namespace)

    def act(client: Client, name: str) -> tuple[pb.Application, None]:
        return call_of(client)(namespace=where, name=name, validate_only=dry).application, None

    with connect() as client:
        names = many.chosen(client, _APPLICATIONS, where, meant)
        many.act_on(client, _APPLICATIONS.columns, names, act, output, is_batch=meant.is_batch, done=done)


@app.command("pause")
def pause(
    names: _Names = None,
    namespace: Namespace = "",
    selector: Selector = "",
    everything: many.Everything = False,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Pause all containers of applications."""
    meant = many.Meant(names, selector, everything)
    _change(meant, namespace, output, "paused", lambda client: client.applications.pause, validate_only)


@app.command("resume")
def resume(
    names: _Names = None,
    namespace: Namespace = "",
    selector: Selector = "",
    everything: many.Everything = False,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Resume all paused containers of applications."""
    meant = many.Meant(names, selector, everything)
    _change(meant, namespace, output, "resumed", lambda client: client.applications.resume, validate_only)


@app.command("revisions")
def revisions(
    name: _Name, namespace: Namespace = "", limit: Limit = 0, output: Output = Format.TABLE
) -> None:
    """List the revisions of an application, newest first."""
    with connect() as client:
        found = client.applications.list_revisions(namespace=namespace_or_default(namespace), name=name)
        show_all(found, REVISION_COLUMNS, output, limit)


@app.command("diff")
def diff(
    name: _Name,
    namespace: Namespace = "",
    before: Annotated[
        int,
        verbs.Option(
            "--before",
            min=0,
            complete=complete_application_revision,
            help="Revision; default the one before --after.",
        ),
    ] = 0,
    after: Annotated[
        int,
        verbs.Option(
            "--after", min=0, complete=complete_application_revision, help="Revision; default the newest."
        ),
    ] = 0,
    output: Output = Format.TABLE,
) -> None:
    """Show the differences between two revisions."""
    with connect() as client:
        found = client.applications.diff_revisions(
            namespace=namespace_or_default(namespace), name=name, before=before, after=after
        )
    if not output.is_table:
        show_all(found.changes, _CHANGE_COLUMNS, output)
        return
    for change in found.changes:
        say_difference(change, f"revision {found.before}", f"revision {found.after}")
    if not found.changes:
        say(f"nothing differs between revisions {found.before} and {found.after}", err=True)


@app.command("rollback")
def rollback(
    name: _Name,
    namespace: Namespace = "",
    revision: Annotated[
        int,
        verbs.Option(
            "--revision",
            min=0,
            complete=complete_application_revision,
            help="Revision to restore; default: the one before the newest.",
        ),
    ] = 0,
    rerun: Annotated[
        bool, verbs.Option("--rerun", help="Start a new run of each Job that changes, and run upgrade hooks.")
    ] = False,
    replace: _Replace = False,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Restore all objects of an earlier revision as a new revision; print the changes and the parts not restored."""
    with connect() as client:
        answer = client.applications.rollback(
            namespace=namespace_or_default(namespace),
            name=name,
            revision=revision,
            rerun_jobs=rerun,
            replace=replace,
            etag=etag,
            validate_only=validate_only,
        )
    if not output.is_table:
        show(answer, COLUMNS, output)
        return
    changed = [each for each in answer.changes if each.action != pb.CHANGE_ACTION_UNCHANGED]
    _say_rolled_back(changed, answer.origin, validate_only=validate_only)
    for problem in answer.problems:
        subject = "/".join(filter(None, (problem.kind, problem.name)))
        say(plain(": ".join(filter(None, (subject, problem.path, problem.message)))), err=True)
    for warning in answer.warnings:
        say(plain(": ".join(filter(None, ("warning", warning.path, warning.message)))), err=True)
    _say_kept("not restored", answer.not_restored)
    if answer.problems:
        say(f"nothing was rolled back: {answer.problem_count} problems", err=True)
        raise verbs.Exit(_REFUSED)
    if not changed:
        say(f"nothing differs from revision {answer.origin}", err=True)
    what = "would restore" if validate_only else "restores"
    say(f"revision {answer.revision} of {name} {what} revision {answer.origin}")


_REFUSED = 3


def _say_rolled_back(changed: list[pb.ApplicationChange], origin: int, *, validate_only: bool) -> None:
    from pilothouse_client.apply.run import results

    for change, line in zip(changed, results(changed, dry_run=validate_only), strict=True):
        say_difference(change, "now", f"revision {origin}")
        say(line)


@app.command("export")
def export(
    name: _Name,
    namespace: Namespace = "",
    revision: Annotated[
        int,
        verbs.Option(
            "--revision", min=0, complete=complete_application_revision, help="Default: the newest."
        ),
    ] = 0,
) -> None:
    """Print an application as Kubernetes YAML. It contains secrets only if you hold config.reveal."""
    import yaml

    with connect() as client:
        answer = client.applications.export(
            namespace=namespace_or_default(namespace), name=name, revision=revision
        )
    for document in answer.documents:
        with reading_answers():
            content = json.loads(document.json)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        say(plain("---\n" + text.rstrip("\n")))
    _say_kept("left out", answer.left_out)


@app.command("delete")
def delete(
    names: _Names = None,
    namespace: Namespace = "",
    selector: Selector = "",
    everything: many.Everything = False,
    delete_claims: _DeleteClaims = False,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Delete applications with their objects. Volumes stay, unless --delete-claims is given."""
    where, meant = namespace_or_default(namespace), many.Meant(names, selector, everything)

    def act(client: Client, name: str) -> tuple[pb.Application | pb.DeleteApplicationResponse, None]:
        answer = client.applications.delete(
            namespace=where, name=name, delete_claims=delete_claims, etag=etag, validate_only=validate_only
        )
        _say_kept(f"{name}: volumes that stay" if meant.is_batch else "volumes that stay", answer.kept_claims)
        return answer.application if meant.is_batch else answer, None

    def show_one(answer: pb.DeleteApplicationResponse) -> None:
        if output.is_table:
            show_all(answer.changes, _CHANGE_COLUMNS, output)
        else:
            show(answer, COLUMNS, output)

    more = " with their objects" + (" and the data of their volumes" if delete_claims else "")
    deletion = many.Deletion(etag, validate_only, yes, more)
    many.delete(_APPLICATIONS, meant, where, act, output, deletion, show_one=show_one)
