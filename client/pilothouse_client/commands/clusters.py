"""`pilothouse clusters`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.cluster_credentials import (
    ApiServer,
    CaFile,
    Context,
    InCluster,
    Kubeconfig,
    ProxyUrl,
    TokenStdin,
    credentials,
)
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import ScopeOptions
from pilothouse_client.commands.name_completion import complete_cluster
from pilothouse_client.commands.options import (
    Etag,
    Filter,
    Format,
    Limit,
    OrderBy,
    Output,
    ValidateOnly,
    Wait,
    WaitSeconds,
    Yes,
    check_changes,
    confirm,
    enum_number,
    pairs,
)
from pilothouse_client.commands.output import OutputColumn, show, show_all
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.values import age, enum_label, moment
from pilothouse_client.retry import RetryPolicy
from pilothouse_client.waiting import wait_until_deregistered

if TYPE_CHECKING:
    from pilothouse_client import Client

app = verbs.VerbGroup(no_args_is_help=True, help="The Kubernetes clusters.")
app.command("describe")(describe.of("clusters"))
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAME", lambda cluster: cluster.name),
    OutputColumn("STATUS", lambda cluster: enum_label(cluster, "status")),
    OutputColumn("VERSION", lambda cluster: cluster.version),
    OutputColumn("API SERVER", lambda cluster: cluster.api_server),
    OutputColumn("LEADER", lambda cluster: cluster.leader or "-"),
    OutputColumn("SEEN", lambda cluster: age(cluster.last_seen_time)),
    OutputColumn("MESSAGE", lambda cluster: "; ".join(_messages(cluster))),
    OutputColumn("LAST SEEN", lambda cluster: moment(cluster.last_seen_time), wide=True),
]
_RIGHTS: list[OutputColumn[Any]] = [
    OutputColumn("API GROUP", lambda right: right.api_group),
    OutputColumn("RESOURCE", lambda right: right.resource),
    OutputColumn("VERB", lambda right: right.verb),
    OutputColumn("GRANTED", lambda right: "no" if right.denied else "yes"),
    OutputColumn("OPTIONAL", lambda right: "yes" if right.optional else ""),
    OutputColumn("FOR", lambda right: right.purpose),
]
_ORPHANS: list[OutputColumn[Any]] = [
    OutputColumn("KIND", lambda orphan: orphan.kind),
    OutputColumn("NAMESPACE", lambda orphan: orphan.kubernetes_namespace),
    OutputColumn("NAME", lambda orphan: orphan.name),
    OutputColumn("STATE", lambda orphan: enum_label(orphan, "state")),
    OutputColumn("FIRST SEEN", lambda orphan: moment(orphan.first_seen_time), whole=True),
    OutputColumn("UID", lambda orphan: orphan.uid, wide=True),
]
_RESOLVED: list[OutputColumn[Any]] = [
    OutputColumn("KIND", lambda result: result.orphan.kind),
    OutputColumn("NAMESPACE", lambda result: result.orphan.kubernetes_namespace),
    OutputColumn("NAME", lambda result: result.orphan.name),
    OutputColumn("IMPORTED AS", lambda result: result.imported_as or "-"),
    OutputColumn("PROBLEMS", lambda result: "; ".join(result.problems)),
    OutputColumn("NOTES", lambda result: "; ".join(result.notes)),
]
# An unreachable cluster is reported without a retry: the user who typed its address is waiting, and may correct it.
_ONCE = RetryPolicy(attempts=1)
_Name = Annotated[str, verbs.Argument(help="Name of the cluster.", complete=complete_cluster)]
_DisplayName = Annotated[str | None, verbs.Option("--display-name", help="Name for people.")]
_ObjectKinds = Annotated[
    list[str] | None,
    verbs.Option(
        "--object-kind",
        metavar="API-VERSION/KIND[,KEY=VALUE…]",
        help="Kind of custom resource that objects may have; keys: open-to (privileged or tenants), max, secret, "
        "refused (paths); repeat; '': none.",
    ),
]
_SharedGateways = Annotated[
    list[str] | None,
    verbs.Option(
        "--shared-gateway",
        metavar="NAMESPACE/NAME",
        help="Gateway that routes of all namespaces may name; repeat; '': none.",
    ),
]
_ForbidBudgets = Annotated[
    bool | None,
    verbs.Option(
        "--forbid-blocking-budgets/--allow-blocking-budgets",
        help="Whether to refuse disruption budgets that block every drain of a node.",
    ),
]
_Labels = Annotated[list[str] | None, verbs.Option("--label", metavar="KEY=VALUE", help="Repeat for more.")]


def _object_kind(text: str) -> pb.ObjectKind:
    """Returns the kind that an option names: `postgresql.cnpg.io/v1/Cluster,open-to=tenants,secret=spec.password`."""
    name, *settings = text.split(",")
    api_version, _, kind = name.rpartition("/")
    found = pb.ObjectKind(api_version=api_version, kind=kind)
    for setting in settings:
        key, _, value = setting.partition("=")
        if key == "open-to":
            number = enum_number(pb.KindOpenTo, value, "--object-kind open-to")
            found.open_to = pb.KindOpenTo.ValueType(number)
        elif key == "max" and value.isdecimal():
            found.max_per_namespace = int(value)
        elif key in ("secret", "refused"):
            getattr(found, f"{key}_paths").append(value)
        else:
            raise CommandError(
                f"--object-kind: {setting} is not open-to=, max=NUMBER, secret=PATH or refused=PATH", 2
            )
    return found


def _messages(cluster: Any) -> list[str]:
    """Returns the messages of a cluster, including those of conditions that need an administrator."""
    return [each for each in (cluster.message, *(item.message for item in cluster.conditions)) if each]


@app.command("register")
def register(
    name: _Name,
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    api_server: ApiServer = "",
    token_stdin: TokenStdin = False,
    ca_file: CaFile = "",
    proxy_url: ProxyUrl = "",
    in_cluster: InCluster = False,
    display_name: _DisplayName = None,
    label: _Labels = None,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Register a cluster, with --kubeconfig, with --api-server and --token-stdin, or with --in-cluster.

    The server tries the credentials out first. It stores them encrypted and never shows them again.
    """
    given = credentials(kubeconfig, context, api_server, token_stdin, ca_file, proxy_url, in_cluster)
    if given is None:
        raise CommandError("give --kubeconfig, --api-server with --token-stdin, or --in-cluster", 2)
    cluster = pb.Cluster(name=name, display_name=display_name or "", labels=pairs(label or [], "--label"))
    with connect() as client:
        answer = client.with_options(retry=_ONCE).namespaces.register_cluster(
            cluster=cluster, credentials=given, validate_only=validate_only
        )
    show(answer.cluster, COLUMNS, output)
    _warn(answer.missing_rights)


@app.command("update")
def update(
    name: _Name,
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    api_server: ApiServer = "",
    token_stdin: TokenStdin = False,
    ca_file: CaFile = "",
    proxy_url: ProxyUrl = "",
    in_cluster: InCluster = False,
    display_name: _DisplayName = None,
    label: _Labels = None,
    object_kind: _ObjectKinds = None,
    shared_gateway: _SharedGateways = None,
    forbid_blocking_budgets: _ForbidBudgets = None,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Change a cluster or its credentials. New labels replace all existing ones."""
    given = credentials(kubeconfig, context, api_server, token_stdin, ca_file, proxy_url, in_cluster)
    cluster, paths = pb.Cluster(name=name), []
    if display_name is not None:
        cluster.display_name = display_name
        paths.append("display_name")
    if label is not None:
        cluster.labels.update(pairs(label, "--label"))
        paths.append("labels")
    if object_kind is not None:
        cluster.object_kinds.extend(_object_kind(each) for each in object_kind if each)
        paths.append("object_kinds")
    if shared_gateway is not None:
        cluster.shared_gateways.extend(each for each in shared_gateway if each)
        paths.append("shared_gateways")
    if forbid_blocking_budgets is not None:
        cluster.forbid_blocking_budgets = forbid_blocking_budgets
        paths.append("forbid_blocking_budgets")
    check_changes(paths, given)
    with connect() as client:
        answer = client.with_options(retry=_ONCE).namespaces.update_cluster(
            name=name,
            cluster=cluster,
            update_mask=FieldMask(paths=paths) if paths else None,
            credentials=given,
            etag=etag,
            validate_only=validate_only,
        )
    show(answer.cluster, COLUMNS, output)
    _warn(answer.missing_rights)


@app.command("deregister")
def deregister(
    names: Annotated[list[str], many.names_of("clusters", complete_cluster, required=True)],
    objects: Annotated[
        str,
        verbs.Option(
            "--objects",
            help=(
                "Treatment of its namespaces: orphan (remove them here, leave them on the cluster) or delete "
                "(remove both). Default: refuse if there are any."
            ),
        ),
    ] = "",
    etag: Etag = "",
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    validate_only: ValidateOnly = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Deregister clusters. A cluster with namespaces is refused without --objects."""
    many.check_etag(etag, names)
    number = enum_number(pb.DeregisteredObjects, objects, "--objects")
    if not validate_only:
        what = {
            pb.DEREGISTERED_OBJECTS_ORPHAN: ", and leave the objects unmanaged",
            pb.DEREGISTERED_OBJECTS_DELETE: ", and delete all namespaces there and everything in them",
        }.get(pb.DeregisteredObjects.ValueType(number), "")
        confirm(f"Deregister {many.in_words('cluster', 'clusters', names)}{what}?", yes)

    def act(client: Client, name: str) -> tuple[pb.Cluster, many.Wait | None]:
        gone = client.namespaces.deregister_cluster(
            name=name,
            objects=pb.DeregisteredObjects.ValueType(number),
            etag=etag,
            validate_only=validate_only,
        ).cluster
        if not wait or validate_only:
            return gone, None
        return gone, lambda seconds: wait_until_deregistered(client, gone, timeout=seconds)

    with connect() as client:
        many.act_on(
            client,
            COLUMNS,
            list(dict.fromkeys(names)),
            act,
            output,
            is_batch=len(names) > 1,
            done="deregistered",
            timeout=wait_timeout,
        )


@app.command("rbac")
def rbac(
    name: Annotated[
        str,
        verbs.Argument(help="Name of a cluster; shows which rights it grants.", complete=complete_cluster),
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Print the rights that a cluster must grant, as YAML for `kubectl apply`; with NAME, whether it grants each."""
    with connect() as client:
        answer = client.namespaces.get_required_rights(name=name)
    if name or not output.is_table:
        show_all(answer.rights, _RIGHTS, output)
        return
    say(answer.manifest, nl=False)


@app.command("orphans")
def orphans(
    name: _Name,
    import_: Annotated[
        bool, verbs.Option("--import", help="Import them into the database, without a restart.")
    ] = False,
    keep: Annotated[
        bool, verbs.Option("--keep", help="Leave them on the cluster until somebody deletes them.")
    ] = False,
    delete: Annotated[bool, verbs.Option("--delete", help="Delete them from the cluster.")] = False,
    uid: Annotated[
        list[str] | None, verbs.Option("--uid", help="Uid of an orphan, as listed; repeat for more.")
    ] = None,
    all_: Annotated[bool, verbs.Option("--all", help="Decide about every orphan that is UNDECIDED.")] = False,
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 0,
    validate_only: ValidateOnly = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """List the objects on a cluster that the database does not contain, or decide about them.

    After a restore, the server deletes none of them until an administrator decides: with --import, --keep or --delete,
    and with --uid or --all. Filter the list by kind, kubernetes_namespace, name, uid, state, first_seen_time.
    """
    chosen = [
        action
        for action, given in (
            (pb.ORPHAN_ACTION_IMPORT, import_),
            (pb.ORPHAN_ACTION_KEEP, keep),
            (pb.ORPHAN_ACTION_DELETE, delete),
        )
        if given
    ]
    if not chosen:
        if uid or all_:
            raise CommandError("give --import, --keep or --delete with --uid or --all", 2)
        with connect() as client:
            listed = client.namespaces.list_orphans(cluster_name=name, filter=filter_, order_by=order_by)
            show_all(listed, _ORPHANS, output, limit)
        return
    if len(chosen) > 1 or bool(uid) == all_:
        raise CommandError("give one of --import, --keep and --delete, with --uid or --all", 2)
    if delete and not validate_only:
        confirm(f"Delete {'all undecided orphans' if all_ else f'{len(uid or [])} orphans'} of {name}?", yes)
    with connect() as client:
        answer = client.namespaces.resolve_orphans(
            cluster_name=name, action=chosen[0], uids=uid or [], all=all_, validate_only=validate_only
        )
    show_all(answer.results, _RESOLVED, output)
    held = "; leftovers are not deleted until all are decided" if answer.deletion_held else ""
    say(f"{answer.resolved} decided, {answer.undecided} undecided{held}", err=True)
    if any(result.problems for result in answer.results):
        raise verbs.Exit(1)


def _warn(missing: Any) -> None:
    """Writes to standard error which features will not work; the result is not affected."""
    for right in missing:
        resource = right.resource + (f".{right.api_group}" if right.api_group else "")
        say(f"note: the cluster denies: {right.verb} {resource} (for {right.purpose})", err=True)


@app.command("get")
def get(
    name: Annotated[str, verbs.Argument(help="Name of the cluster.", complete=complete_cluster)],
    output: Output = Format.TABLE,
) -> None:
    """Show a cluster."""
    with connect() as client:
        show(client.namespaces.get_cluster(name=name), COLUMNS, output)


@app.command("list")
def list_clusters(options: ScopeOptions) -> None:
    """List clusters, or watch them. Filter by name, status, labels.KEY."""
    options.show(COLUMNS, lambda client: client.namespaces.list_clusters, "cluster")
