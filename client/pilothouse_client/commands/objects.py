"""`pilothouse objects`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.object.v1 import object_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import NamespacedOptions
from pilothouse_client.commands.name_completion import complete_kind, complete_object
from pilothouse_client.commands.object_kinds import kind_of
from pilothouse_client.commands.options import (
    AllNamespaces,
    Etag,
    Format,
    Namespace,
    Output,
    Selector,
    ValidateOnly,
    Yes,
    check_changes,
    complete_words,
    enum_number,
    namespace_or_all,
    namespace_or_default,
)
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, show, show_all, show_changes
from pilothouse_client.commands.terminal import plain, say, say_prose
from pilothouse_client.commands.values import enum_label, moment

if TYPE_CHECKING:
    from pilothouse_client import Client

app = verbs.VerbGroup(no_args_is_help=True, help="Ingresses, policies, roles and other objects.")
app.command("describe")(describe.describe_objects)

_WRONG_COMMAND_LINE = 2
_EXIT_NOT_ALL = 1


def _why(found: Any) -> str:
    stale = f"stale since {moment(found.stale_since)}" if found.HasField("stale_since") else ""
    gone = "being deleted" if found.HasField("delete_time") else ""
    return "; ".join(filter(None, (found.reason, stale, gone)))


COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda found: found.namespace),
    OutputColumn("KIND", lambda found: found.kind),
    OutputColumn("NAME", lambda found: found.name),
    OutputColumn("STATUS", lambda found: enum_label(found, "status")),
    OutputColumn("HEALTH", lambda found: enum_label(found, "health")),
    OutputColumn("ADDRESSES", lambda found: ",".join(found.addresses)),
    OutputColumn("REASON", _why),
    *AGE_COLUMNS,
]
_IMPORT_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAME", lambda result: result.name),
    OutputColumn("IMPORTED", lambda result: "yes" if result.HasField("object") else "no"),
    OutputColumn("WHY", lambda result: "; ".join([*result.problems, *result.notes])),
]
_KIND_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("KIND", lambda kind: kind.kind, whole=True),
    OutputColumn("API VERSION", lambda kind: kind.api_version, whole=True),
    OutputColumn("FOR", lambda kind: enum_label(kind, "access")),
    OutputColumn("MOST", lambda kind: kind.max_per_namespace or ""),
    OutputColumn("WHY", lambda kind: kind.message or kind.reason, wide=True),
]
_Kind = Annotated[
    str,
    verbs.Argument(
        help="Kind, such as ingress or postgresql.cnpg.io/v1/Cluster.",
        metavar="KIND",
        complete=complete_kind,
    ),
]
_Name = Annotated[str, verbs.Argument(help="Name of the object.", metavar="NAME", complete=complete_object)]
_File = Annotated[str, verbs.Option("--file", "-f", help="YAML or JSON of one object; -: standard input.")]
_Policy = Annotated[
    str, verbs.Option("--drift-policy", help="repair, report or adopt changes by others on the cluster.")
]
_Protected = Annotated[
    bool | None,
    verbs.Option("--protected/--no-protected", help="Whether only privileged callers may change it."),
]


def _document(file: str) -> str:
    """Returns the one object of a file as JSON."""
    from pilothouse_client.apply.documents import load
    from pilothouse_manifests.translator.nodes import plain as json_of
    from pilothouse_manifests.translator.problems import Problems, listed

    problems = Problems()
    documents = load([file], problems, sys.stdin.buffer)
    if problems.all:
        raise CommandError("\n".join(listed(problems.all)), _WRONG_COMMAND_LINE)
    if len(documents) != 1:
        raise CommandError(f"--file {file}: has {len(documents)} objects, not one", _WRONG_COMMAND_LINE)
    return json.dumps(json_of(documents[0].root), ensure_ascii=False)


def _policy(text: str) -> resource_pb2.DriftPolicy.ValueType:
    policies = resource_pb2.DriftPolicy
    return policies.ValueType(enum_number(policies, text, "--drift-policy"))


@app.command("create")
def create(
    file: _File,
    namespace: Namespace = "",
    drift_policy: _Policy = "",
    protected: _Protected = None,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create an object from its YAML."""
    wanted = pb.Object(
        document=_document(file), drift_policy=_policy(drift_policy), protected=bool(protected)
    )
    with connect() as client:
        made = client.objects.create(
            namespace=namespace_or_default(namespace), object=wanted, validate_only=validate_only
        )
    show(made, COLUMNS, output)


@app.command("get")
def get(
    kind: _Kind,
    name: _Name,
    namespace: Namespace = "",
    document: Annotated[bool, verbs.Option("--document", help="Print its document as JSON.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Show an object."""
    version, of_kind = kind_of(kind)
    with connect() as client:
        found = client.objects.get(
            namespace=namespace_or_default(namespace), api_version=version, kind=of_kind, name=name
        )
    if document:
        say(plain(json.dumps(json.loads(found.document), indent=2, ensure_ascii=False)))
        return
    show(found, COLUMNS, output)
    if found.message:
        say(plain(f"{name}: {found.reason}: {found.message}"), err=True)


@app.command("list")
def list_objects(
    kind: Annotated[
        str, verbs.Argument(help="Only this kind, such as ingress.", metavar="[KIND]", complete=complete_kind)
    ] = "",
    *,
    options: NamespacedOptions,
    status: Annotated[
        str, verbs.Option("--status", complete=complete_words(pb.ObjectStatus), help="Such as active.")
    ] = "",
) -> None:
    """List objects, or watch them. Filter by name, kind, status, health, labels.KEY."""
    version, of_kind = kind_of(kind) if kind else ("", "")
    wanted = f'kind = "{of_kind}" AND api_version = "{version}"'

    def listed(client: Client) -> Callable[..., Any]:
        return lambda filter, **narrowed: client.objects.list(
            filter=" AND ".join([*([f"({filter})"] if filter else []), wanted]), **narrowed
        )

    def watched(client: Client) -> Callable[..., Any]:
        return lambda **narrowed: client.objects.watch(api_version=version, kind=of_kind, **narrowed)

    options.show(
        COLUMNS,
        listed if kind else lambda client: client.objects.list,
        watched,
        statuses=pb.ObjectStatus,
        status=status,
    )


@app.command("watch")
def watch_objects(
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    output: Output = Format.TABLE,
) -> None:
    """Watch objects, as `list --watch`."""
    where = namespace_or_all(namespace, all_namespaces)
    with connect() as client, client.objects.watch(namespace=where, label_selector=selector) as changes:
        show_changes(changes, COLUMNS, output)


@app.command("update")
def update(
    kind: _Kind,
    name: _Name,
    namespace: Namespace = "",
    file: Annotated[str, verbs.Option("--file", "-f", help="Its new YAML or JSON; -: standard input.")] = "",
    drift_policy: _Policy = "",
    protected: _Protected = None,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Change an object. A file replaces its whole document."""
    version, of_kind = kind_of(kind)
    wanted = pb.Object(
        document=_document(file) if file else "",
        drift_policy=_policy(drift_policy),
        protected=bool(protected),
    )
    given = {"document": bool(file), "drift_policy": bool(drift_policy), "protected": protected is not None}
    paths = [path for path, is_given in given.items() if is_given]
    check_changes(paths)
    with connect() as client:
        changed = client.objects.update(
            namespace=namespace_or_default(namespace),
            api_version=version,
            kind=of_kind,
            name=name,
            object=wanted,
            update_mask=FieldMask(paths=paths),
            etag=etag,
            validate_only=validate_only,
        )
    show(changed, COLUMNS, output)


@app.command("import")
def import_objects(
    kind: _Kind,
    names: Annotated[
        list[str] | None,
        verbs.Argument(
            help="Names on the cluster; default: all that the platform did not create.", metavar="[NAME]..."
        ),
    ] = None,
    namespace: Namespace = "",
    selector: Selector = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Import existing objects of a kind as they are.

    Exits with 1 if a named object is not imported.
    """
    version, of_kind = kind_of(kind)
    with connect() as client:
        answer = client.objects.import_(
            namespace=namespace_or_default(namespace),
            api_version=version,
            kind=of_kind,
            names=names or [],
            label_selector=selector,
            validate_only=validate_only,
        )
    show_all(answer.results, _IMPORT_COLUMNS, output)
    if names and any(not result.HasField("object") for result in answer.results):
        raise verbs.Exit(_EXIT_NOT_ALL)


@app.command("kinds")
def kinds(namespace: Namespace = "", output: Output = Format.TABLE) -> None:
    """List the kinds that objects of the namespace may have, with the callers that may create them; with -o wide, also
    the kinds of the cluster that no object may have, and why."""
    with connect() as client:
        found = list(client.objects.kinds(namespace=namespace_or_default(namespace)))
    show_kinds(found, output)


def show_kinds(kinds: Sequence[pb.ObjectKind], output: Format) -> None:
    """Shows kinds; a table has only the kinds that are possible, and the number of the others is written below."""
    possible = [each for each in kinds if each.access != pb.KIND_ACCESS_NEVER]
    chosen = possible if output is Format.TABLE else kinds
    show_all(chosen, _KIND_COLUMNS, output)
    if missing := len(kinds) - len(chosen):
        say_prose(f"kinds that no object may have: {missing}; -o wide lists them with the reasons")


@app.command("delete")
def delete(
    kind: _Kind,
    names: Annotated[list[str] | None, many.names_of("objects", complete_object)] = None,
    namespace: Namespace = "",
    selector: Selector = "",
    everything: Annotated[bool, verbs.Option("--all", help="All of this kind.")] = False,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Delete objects of a kind."""
    where = namespace_or_default(namespace)
    version, of_kind = kind_of(kind)
    wanted = f'kind = "{of_kind}" AND api_version = "{version}"'
    noun = many.ListedNoun(
        of_kind,
        f"objects of the kind {of_kind}",
        COLUMNS,
        lambda client, where, labels: client.objects.list(
            namespace=where, label_selector=labels, filter=wanted
        ),
        complete_object,
    )

    def act(client: Client, name: str) -> tuple[pb.Object, None]:
        gone = client.objects.delete(
            namespace=where,
            api_version=version,
            kind=of_kind,
            name=name,
            etag=etag,
            validate_only=validate_only,
        )
        return gone, None

    meant = many.Meant(names, selector, everything)
    many.delete(noun, meant, where, act, output, many.Deletion(etag, validate_only, yes))
