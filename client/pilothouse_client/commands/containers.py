"""`pilothouse containers`: creates, shows and changes containers.

The commands that move containers between states are in `container_actions`.
"""

from __future__ import annotations

import importlib
from typing import Annotated

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import (
    verbs,
)
from pilothouse_client.commands.container_columns import (
    COLUMNS,
    DETAILS_COLUMNS,
    HISTORY_COLUMNS,
    PROGRAM_COLUMNS,
    ContainerName,
    programs,
)
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.kubernetes_events import note, show_with_events
from pilothouse_client.commands.listing import NamespacedOptions
from pilothouse_client.commands.options import (
    Format,
    Limit,
    Namespace,
    Output,
    Watch,
    complete_words,
    namespace_or_default,
)
from pilothouse_client.commands.output import show, show_all, show_changes
from pilothouse_client.commands.terminal import plain, say

app = verbs.VerbGroup(no_args_is_help=True, help="Workloads: create, change, start, stop, watch.")
for _verb, _place, _summary in (
    ("create", "container_making:create", "Create and start a container."),
    ("update", "container_making:update", "Change a container."),
    ("set", "container_set:app", "Change the image, variables or resources of a container."),
    ("edit", "container_set:edit", "Change a container in your editor."),
    ("start", "container_actions:start", "Start stopped containers with the replicas they had."),
    ("stop", "container_actions:stop", "Stop containers and remember their replicas."),
    ("pause", "container_actions:pause", "Pause containers, and print which data and connections are lost."),
    ("resume", "container_actions:resume", "End a pause."),
    ("restart", "container_actions:restart", "Replace every pod, a few at a time."),
    ("scale", "container_actions:scale", "Set the number of pods."),
    ("delete", "container_actions:delete", "Delete containers."),
    ("run", "container_actions:run", "Start a new run of a Job or CronJob."),
    ("runs", "container_actions:runs", "List the runs of a Job or CronJob, newest first, or watch them."),
    ("revisions", "container_revisions:revisions", "List the revisions of a container, newest first."),
    ("rollback", "container_revisions:rollback", "Restore all fields of an earlier revision."),
    ("logs", "container_logs:logs", "Show the log of a container, or of several."),
    ("pods", "container_pods:list_pods", "List the pods of a container."),
    ("port-forward", "container_port_forward:port_forward", "Forward ports of this machine to a container."),
    ("cp", "container_copy:copy", "Copy files out of a container, or into one."),
    (
        "import",
        "container_import:import_deployments",
        "Import existing workloads without restarting a pod.",
    ),
):
    app.later(_verb, _place, _summary)
app.later(
    "exec",
    "container_exec:execute",
    "Run a program in a container. -it gives a terminal.",
    context_settings={"ignore_unknown_options": True},
)
app.later(
    "describe",
    lambda: importlib.import_module("pilothouse_client.commands.describe").of("containers"),
    "Show a container's state, conditions, events and changes.",
)


@app.command("get")
def get(
    name: ContainerName, namespace: Namespace = "", watch: Watch = False, output: Output = Format.TABLE
) -> None:
    """Show a container with the programs of its pods and its Kubernetes events, or watch it."""
    where = namespace_or_default(namespace)
    with connect() as client:
        if not watch:
            answer = client.containers.get.send(
                pb.GetContainerRequest(namespace=where, name=name, include_events=True)
            )
            found = answer.container
            show_with_events(found, answer, COLUMNS, output, programs(found), PROGRAM_COLUMNS)
            if found.message:
                say(plain(f"{name}: {found.reason}: {found.message}"), err=True)
            note(found, found.warnings)
            return
        with client.containers.watch(namespace=where, name=name) as changes:
            show_changes(changes, COLUMNS, output)


@app.command("list")
def list_containers(
    *,
    options: NamespacedOptions,
    status: Annotated[
        str, verbs.Option("--status", complete=complete_words(pb.ContainerStatus), help="Such as running.")
    ] = "",
) -> None:
    """List containers, or watch them. Filter by name, status, phase, reason, image, labels.KEY."""
    options.show(
        COLUMNS,
        lambda client: client.containers.list,
        lambda client: client.containers.watch,
        statuses=pb.ContainerStatus,
        status=status,
    )


@app.command("history")
def history(
    name: ContainerName, namespace: Namespace = "", limit: Limit = 0, output: Output = Format.TABLE
) -> None:
    """Show how a container's status changed, newest first."""
    with connect() as client:
        changes = client.containers.list_status_history(namespace=namespace_or_default(namespace), name=name)
        show_all(changes, HISTORY_COLUMNS, output, limit)


@app.command("details")
def details(name: ContainerName, namespace: Namespace = "", output: Output = Format.TABLE) -> None:
    """Show a container with its image, creator, uptime and newest usage."""
    with connect() as client:
        found = client.metrics.get_container_details(namespace=namespace_or_default(namespace), name=name)
        show(found, DETAILS_COLUMNS, output)
