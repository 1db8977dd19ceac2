"""`pilothouse services`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.network.v1 import network_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import NamespacedOptions
from pilothouse_client.commands.name_completion import complete_container, complete_service
from pilothouse_client.commands.options import (
    AllNamespaces,
    Etag,
    Format,
    Namespace,
    Output,
    Selector,
    ValidateOnly,
    Watch,
    check_changes,
    complete_words,
    enum_number,
    namespace_or_all,
    namespace_or_default,
    pairs,
)
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, show, show_all, show_changes
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.commands.values import enum_label, moment

app = verbs.VerbGroup(no_args_is_help=True, help="Stable addresses in front of pods.")
app.command("describe")(describe.of("services"))

_WRONG_COMMAND_LINE = 2


def _type(service: Any) -> str:
    return "headless" if service.headless else enum_label(service, "type").lower()


def _ports(service: Any) -> str:
    """Returns the ports as kubectl shows them: `80:30123/TCP`."""
    shown = []
    for number, port in enumerate(service.ports):
        node_port = service.node_ports[number] if number < len(service.node_ports) else port.node_port
        of_nodes = f":{node_port}" if node_port else ""
        shown.append(f"{port.port}{of_nodes}/{enum_label(port, 'protocol')}")
    return ",".join(shown)


def _why(service: Any) -> str:
    stale = f"stale since {moment(service.stale_since)}" if service.HasField("stale_since") else ""
    gone = "being deleted" if service.HasField("delete_time") else ""
    return "; ".join(filter(None, (service.reason, stale, gone)))


COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAMESPACE", lambda service: service.namespace),
    OutputColumn("NAME", lambda service: service.name),
    OutputColumn("TYPE", _type),
    OutputColumn("STATUS", lambda service: enum_label(service, "status")),
    OutputColumn("READY", lambda service: f"{service.ready_endpoints}/{service.endpoints}"),
    OutputColumn("ADDRESSES", lambda service: ",".join(service.addresses)),
    OutputColumn("PORTS", _ports),
    OutputColumn("REASON", _why),
    # The container whose ports create the Service.
    OutputColumn("OWNER", lambda service: service.owner, wide=True),
    *AGE_COLUMNS,
]
_IMPORT_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NAME", lambda result: result.name),
    OutputColumn("IMPORTED", lambda result: "yes" if result.HasField("service") else "no"),
    OutputColumn("WHY", lambda result: "; ".join([*result.problems, *result.notes])),
]
_EXIT_NOT_ALL = 1
_Name = Annotated[
    str, verbs.Argument(help="Name of the Service.", complete=complete_service, metavar="SERVICE")
]


def _port(text: str) -> pb.ServicePort:
    name, _, rest = text.rpartition("=")
    rest, _, protocol = rest.partition("/")
    number, _, target = rest.partition(":")
    if not number.isdecimal():
        raise CommandError(f"--port {text}: the form is [NAME=]PORT[:TARGET][/PROTOCOL]", _WRONG_COMMAND_LINE)
    return pb.ServicePort(
        name=name,
        port=int(number),
        target=target,
        protocol=pb.Protocol.ValueType(enum_number(pb.Protocol, protocol, "--port")),
    )


@dataclass(frozen=True, slots=True)
class _Given:
    """The options that describe a Service.

    None or empty for options that were not given."""

    type_: Annotated[
        str,
        verbs.Option(
            "--type", complete=complete_words(pb.ServiceType), help="cluster_ip, node_port or load_balancer."
        ),
    ] = ""
    port: Annotated[
        list[str] | None,
        verbs.Option("--port", help="[NAME=]PORT[:TARGET][/PROTOCOL], such as http=80:8080 or 53/udp."),
    ] = None
    select: Annotated[
        list[str] | None,
        verbs.Option("--select", help="Label KEY=VALUE of the pods that receive the traffic."),
    ] = None
    container: Annotated[
        str,
        verbs.Option(
            "--container", complete=complete_container, help="The container whose pods receive the traffic."
        ),
    ] = ""
    headless: Annotated[
        bool | None,
        verbs.Option("--headless/--no-headless", help="Whether its name resolves to the pods themselves."),
    ] = None
    drift_policy: Annotated[
        str, verbs.Option("--drift-policy", help="repair, report or adopt changes by others on the cluster.")
    ] = ""
    label: Annotated[list[str] | None, verbs.Option("--label", help="KEY=VALUE.")] = None
    annotation: Annotated[list[str] | None, verbs.Option("--annotation", help="KEY=VALUE.")] = None

    def service(self) -> tuple[pb.Service, list[str]]:
        """Returns the given fields, and their paths.

        A selector replaces a container, and a container a selector."""
        policies = resource_pb2.DriftPolicy
        service = pb.Service(
            type=pb.ServiceType.ValueType(enum_number(pb.ServiceType, self.type_, "--type")),
            ports=[_port(text) for text in self.port or []],
            selector=pairs(self.select or [], "--select"),
            containers=[self.container] if self.container else [],
            headless=bool(self.headless),
            drift_policy=policies.ValueType(enum_number(policies, self.drift_policy, "--drift-policy")),
            labels=pairs(self.label or [], "--label"),
            annotations=pairs(self.annotation or [], "--annotation"),
        )
        given = {
            "type": bool(self.type_),
            "ports": self.port is not None,
            "selector": self.select is not None or bool(self.container),
            "containers": self.select is not None or bool(self.container),
            "headless": self.headless is not None,
            "drift_policy": bool(self.drift_policy),
            "labels": self.label is not None,
            "annotations": self.annotation is not None,
        }
        return service, [path for path, is_given in given.items() if is_given]


@app.command("create")
def create(
    name: _Name,
    namespace: Namespace = "",
    *,
    given: _Given,
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Create a Service for the pods that have some labels, or for a container."""
    service, _ = given.service()
    if not service.selector and not service.containers:
        words = (
            "a Service needs pods: give --select KEY=VALUE with a label of theirs, or --container with the name "
            "of a container"
        )
        raise CommandError(words, _WRONG_COMMAND_LINE)
    service.name = name
    with connect() as client:
        made = client.network.create_service(
            namespace=namespace_or_default(namespace), service=service, validate_only=validate_only
        )
    show(made, COLUMNS, output)


@app.command("get")
def get(name: _Name, namespace: Namespace = "", watch: Watch = False, output: Output = Format.TABLE) -> None:
    """Show a Service, or watch it."""
    where = namespace_or_default(namespace)
    with connect() as client:
        if not watch:
            service = client.network.get_service(namespace=where, name=name)
            show(service, COLUMNS, output)
            if service.message:
                say(plain(f"{name}: {service.reason}: {service.message}"), err=True)
            return
        with client.network.watch_services(namespace=where, name=name) as changes:
            show_changes(changes, COLUMNS, output)


@app.command("list")
def list_services(
    *,
    options: NamespacedOptions,
    status: Annotated[
        str, verbs.Option("--status", complete=complete_words(pb.ServiceStatus), help="Such as active.")
    ] = "",
) -> None:
    """List Services, or watch them. Filter by name, type, status, ready_endpoints, labels.KEY."""
    options.show(
        COLUMNS,
        lambda client: client.network.list_services,
        lambda client: client.network.watch_services,
        statuses=pb.ServiceStatus,
        status=status,
    )


@app.command("watch")
def watch_services(
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    selector: Selector = "",
    output: Output = Format.TABLE,
) -> None:
    """Watch Services, as `list --watch`."""
    where = namespace_or_all(namespace, all_namespaces)
    with (
        connect() as client,
        client.network.watch_services(namespace=where, label_selector=selector) as changes,
    ):
        show_changes(changes, COLUMNS, output)


@app.command("update")
def update(
    name: _Name,
    namespace: Namespace = "",
    *,
    given: _Given,
    etag: Etag = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Change a Service. New ports, selected labels, labels and annotations replace all existing ones."""
    service, paths = given.service()
    check_changes(paths)
    with connect() as client:
        changed = client.network.update_service(
            namespace=namespace_or_default(namespace),
            name=name,
            service=service,
            update_mask=FieldMask(paths=paths),
            etag=etag,
            validate_only=validate_only,
        )
    show(changed, COLUMNS, output)


@app.command("import")
def import_services(
    names: Annotated[
        list[str] | None,
        verbs.Argument(
            help="Names on the cluster; default: all that the platform did not create.",
            metavar="[SERVICE]...",
        ),
    ] = None,
    namespace: Namespace = "",
    selector: Selector = "",
    validate_only: ValidateOnly = False,
    output: Output = Format.TABLE,
) -> None:
    """Import existing Services as they are.

    Exits with 1 if a named Service is not imported.
    """
    with connect() as client:
        answer = client.network.import_services(
            namespace=namespace_or_default(namespace),
            names=names or [],
            label_selector=selector,
            validate_only=validate_only,
        )
    show_all(answer.results, _IMPORT_COLUMNS, output)
    if names and any(not result.HasField("service") for result in answer.results):
        raise verbs.Exit(_EXIT_NOT_ALL)


_SERVICES = many.ListedNoun(
    "Service",
    "Services",
    COLUMNS,
    lambda client, where, selector: client.network.list_services(namespace=where, label_selector=selector),
    complete_service,
)
app.command("delete")(
    many.deletion_verb(
        _SERVICES,
        "Delete Services.",
        lambda client: client.network.delete_service,
    )
)
