"""`pilothouse namespaces`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.namespace.v1 import namespace_pb2 as pb
from pilothouse.network.v1 import network_pb2
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.name_completion import complete_cluster, complete_namespace
from pilothouse_client.commands.options import (
    Etag,
    Filter,
    Format,
    Limit,
    OrderBy,
    Output,
    Selector,
    ValidateOnly,
    Wait,
    WaitSeconds,
    Watch,
    Yes,
    check_changes,
    check_watch,
    complete_words,
    enum_number,
    pairs,
)
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, show, show_all, show_changes
from pilothouse_client.commands.values import enum_label, labels, size
from pilothouse_client.waiting import wait_for_namespace

if TYPE_CHECKING:
    from pilothouse_client import Client

app = verbs.VerbGroup(no_args_is_help=True, help="Units of tenancy, with quotas.")
app.command("describe")(describe.of("namespaces"))
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAME", lambda namespace: namespace.name),
    OutputColumn("STATUS", lambda namespace: enum_label(namespace, "status")),
    OutputColumn("REASON", lambda namespace: namespace.reason),
    OutputColumn("PHASE", lambda namespace: namespace.phase, wide=True),
    OutputColumn("CLUSTER", lambda namespace: namespace.cluster_name),
    OutputColumn("KUBERNETES NAME", lambda namespace: namespace.kubernetes_name, wide=True),
    OutputColumn("POD SECURITY", lambda namespace: namespace.pod_security_level),
    OutputColumn("LABELS", lambda namespace: labels(namespace.labels)),
    *AGE_COLUMNS,
]
_QUOTA: list[OutputColumn[Any]] = [
    OutputColumn("RESOURCE", lambda row: row[0]),
    OutputColumn("USED", lambda row: row[1]),
    OutputColumn("LIMIT", lambda row: row[2] or "none"),
]
_SUMMARIES: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda summary: summary.namespace_name),
    OutputColumn("CONTAINERS", lambda summary: summary.total_containers),
    OutputColumn("RUNNING", lambda summary: summary.running_containers),
    OutputColumn("STOPPED", lambda summary: summary.stopped_containers),
    OutputColumn("FAILED", lambda summary: summary.failed_containers),
    OutputColumn("IMAGES", lambda summary: size(summary.total_size_bytes)),
]
_Name = Annotated[str, verbs.Argument(help="Name of the namespace.", complete=complete_namespace)]


@dataclass(frozen=True, slots=True)
class _Given:
    """The options that describe a namespace; None for options that were not given."""

    display_name: Annotated[str | None, verbs.Option("--display-name", help="Name for people.")] = None
    description: Annotated[str | None, verbs.Option("--description", help="Purpose, for people.")] = None
    status: Annotated[
        str | None,
        verbs.Option("--status", complete=complete_words(pb.NamespaceStatus), help="active or inactive."),
    ] = None
    label: Annotated[
        list[str] | None, verbs.Option("--label", metavar="KEY=VALUE", help="Repeat for more.")
    ] = None
    quota_containers: Annotated[
        int | None,
        verbs.Option("--quota-containers", min=0, help="Maximum number of containers; 0: no limit."),
    ] = None
    quota_cpu: Annotated[
        str | None, verbs.Option("--quota-cpu", help="Maximum cpu, such as 4 or 500m; '': no limit.")
    ] = None
    quota_memory: Annotated[
        str | None, verbs.Option("--quota-memory", help="Maximum memory, such as 8Gi; '': no limit.")
    ] = None
    quota_services: Annotated[
        int | None, verbs.Option("--quota-services", min=0, help="Maximum number of Services; 0: no limit.")
    ] = None
    quota_storage: Annotated[
        str | None,
        verbs.Option("--quota-storage", help="Maximum storage of claims, such as 100Gi; '': no limit."),
    ] = None
    service_types: Annotated[
        list[str] | None,
        verbs.Option(
            "--service-type", help="cluster_ip, node_port or load_balancer; repeat; '': all of them."
        ),
    ] = None
    external_sources: Annotated[
        list[str] | None,
        verbs.Option(
            "--external-source",
            metavar="PATTERN",
            help="Cluster-only config maps and secrets that may be used, such as shared-*; repeat; '': none.",
        ),
    ] = None
    allowed_hosts: Annotated[
        list[str] | None,
        verbs.Option(
            "--allowed-host",
            metavar="HOST",
            help="Hosts that its objects may name, such as shop.example or *.shop.example; repeat; '': none.",
        ),
    ] = None
    network_policies: Annotated[
        str | None,
        verbs.Option(
            "--network-policies", help="open, or protected: only privileged callers may change them."
        ),
    ] = None
    enforce_on_cluster: Annotated[
        bool | None,
        verbs.Option(
            "--enforce-on-cluster/--no-enforce-on-cluster",
            help="Whether the cluster refuses pods that exceed the cpu and memory of the quota, and pods that "
            "do not state theirs.",
        ),
    ] = None

    @property
    def quota(self) -> dict[str, Any]:
        """Returns the limits by their fields."""
        return {
            "containers": self.quota_containers,
            "cpu": self.quota_cpu,
            "memory": self.quota_memory,
            "services": self.quota_services,
            "storage": self.quota_storage,
        }

    def write_to(self, namespace: pb.Namespace) -> list[str]:
        """Writes the given options into the namespace.

        Returns the paths of an update mask that names them."""
        paths = []
        for field in ("display_name", "description", "enforce_on_cluster"):
            if (value := getattr(self, field)) is not None:
                setattr(namespace, field, value)
                paths.append(field)
        if self.status is not None:
            number = enum_number(pb.NamespaceStatus, self.status, "--status")
            namespace.status = pb.NamespaceStatus.ValueType(number)
            paths.append("status")
        if self.label is not None:
            namespace.labels.update(pairs(self.label, "--label"))
            paths.append("labels")
        if self.service_types is not None:
            types = (
                enum_number(network_pb2.ServiceType, each, "--service-type") for each in self.service_types
            )
            namespace.service_types.extend(network_pb2.ServiceType.ValueType(each) for each in types if each)
            paths.append("service_types")
        for field in ("external_sources", "allowed_hosts"):
            if (given := getattr(self, field)) is not None:
                getattr(namespace, field).extend(each for each in given if each)
                paths.append(field)
        if self.network_policies is not None:
            number = enum_number(pb.NetworkPolicies, self.network_policies, "--network-policies")
            namespace.network_policies = pb.NetworkPolicies.ValueType(number)
            paths.append("network_policies")
        limits = {field: value for field, value in self.quota.items() if value is not None}
        if limits:
            namespace.resource_quota.CopyFrom(pb.ResourceQuota(**limits))
            paths.append("resource_quota")
        return paths


@app.command("create")
def create(
    name: _Name,
    cluster: Annotated[
        str, verbs.Option("--cluster", complete=complete_cluster, help="Name of the cluster; default local.")
    ] = "",
    kubernetes_name: Annotated[
        str, verbs.Option("--kubernetes-name", help="Name on the cluster; default the same name.")
    ] = "",
    *,
    given: _Given,
    adopt: Annotated[
        bool, verbs.Option("--adopt", help="Take over an existing Kubernetes namespace.")
    ] = False,
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a namespace."""
    namespace = pb.Namespace(name=name, cluster_name=cluster, kubernetes_name=kubernetes_name)
    given.write_to(namespace)
    with connect() as client:
        made = client.namespaces.create(namespace=namespace, adopt=adopt, validate_only=validate_only)
        if wait and not validate_only:
            made = wait_for_namespace(client, made, gone=False, timeout=wait_timeout)
    show(made, COLUMNS, output)


@app.command("get")
def get(name: _Name, output: Output = Format.TABLE) -> None:
    """Show a namespace."""
    with connect() as client:
        show(client.namespaces.get(name=name), COLUMNS, output)


@app.command("list")
def list_namespaces(
    selector: Selector = "",
    filter_: Filter = "",
    order_by: OrderBy = "",
    limit: Limit = 0,
    watch: Watch = False,
    output: Output = Format.TABLE,
) -> None:
    """List namespaces, or watch them. Filter by name, status, cluster_name, labels.KEY."""
    with connect() as client:
        if not watch:
            namespaces = client.namespaces.list(label_selector=selector, filter=filter_, order_by=order_by)
            show_all(namespaces, COLUMNS, output, limit)
            return
        check_watch(filter_, order_by, limit)
        with client.namespaces.watch(label_selector=selector) as changes:
            show_changes(changes, COLUMNS, output)


@app.command("update")
def update(
    name: _Name,
    *,
    given: _Given,
    adopt: Annotated[
        bool, verbs.Option("--adopt", help="Take over the Kubernetes namespace that has its name.")
    ] = False,
    legal_hold: Annotated[
        bool | None,
        verbs.Option("--legal-hold/--no-legal-hold", help="Whether retention keeps its audit records."),
    ] = None,
    etag: Etag = "",
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Change a namespace. New labels replace all existing ones; only the given parts of the quota change."""
    namespace = pb.Namespace(name=name)
    paths = given.write_to(namespace)
    if legal_hold is not None:
        namespace.legal_hold = legal_hold
        paths.append("legal_hold")
    if not adopt:
        check_changes(paths)
    with connect() as client:
        if "resource_quota" in paths:
            # The mask names the quota as a whole, so limits that were not given are copied from the current quota.
            former = client.namespaces.get(name=name)
            etag = etag or former.etag
            for field, value in given.quota.items():
                if value is None:
                    setattr(namespace.resource_quota, field, getattr(former.resource_quota, field))
        changed = client.namespaces.update(
            name=name,
            namespace=namespace,
            update_mask=FieldMask(paths=paths),
            etag=etag,
            adopt=adopt,
            validate_only=validate_only,
        )
        if wait and not validate_only:
            changed = wait_for_namespace(client, changed, gone=False, timeout=wait_timeout)
    show(changed, COLUMNS, output)


@app.command("delete")
def delete(
    names: Annotated[list[str] | None, many.names_of("namespaces", complete_namespace)] = None,
    selector: Selector = "",
    everything: Annotated[bool, verbs.Option("--all", help="All namespaces that you may see.")] = False,
    cascade: Annotated[bool, verbs.Option("--cascade", help="Also delete their contents.")] = False,
    etag: Etag = "",
    wait: Wait = False,
    wait_timeout: WaitSeconds = 300.0,
    validate_only: ValidateOnly = False,
    yes: Yes = False,
    output: Output = Format.TABLE,
) -> None:
    """Delete namespaces. A namespace that is not empty is refused without --cascade."""
    noun = many.ListedNoun(
        "namespace",
        "namespaces",
        COLUMNS,
        lambda client, _, labels: client.namespaces.list(label_selector=labels),
        complete_namespace,
    )

    def act(client: Client, name: str) -> tuple[pb.Namespace, many.Wait | None]:
        gone = client.namespaces.delete(name=name, cascade=cascade, etag=etag, validate_only=validate_only)
        if not wait or validate_only:
            return gone, None
        return gone, lambda seconds: wait_for_namespace(client, gone, gone=True, timeout=seconds)

    more = " with all that they hold" if cascade else ""
    deletion = many.Deletion(etag, validate_only, yes, more)
    many.delete(
        noun, many.Meant(names, selector, everything), "", act, output, deletion, timeout=wait_timeout
    )


@app.command("quota")
def quota(name: _Name, output: Output = Format.TABLE) -> None:
    """Show the usage of a namespace's quota."""
    with connect() as client:
        usage = client.namespaces.get_quota_usage(name=name)
    if not output.is_table:
        show(usage, [], output)
        return
    rows = [
        (field, getattr(usage.used, field), getattr(usage.quota, field))
        for field in ("containers", "cpu", "memory", "services", "storage")
    ]
    show_all(rows, _QUOTA, output)


@app.command("summary")
def summary(
    name: Annotated[
        str, verbs.Argument(help="Name of the namespace; not given: all.", complete=complete_namespace)
    ] = "",
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """Show the contents of namespaces, as of the last hourly refresh."""
    with connect() as client:
        show_all(client.metrics.get_namespace_summary(namespace=name), _SUMMARIES, output, limit)
