"""`pilothouse applications create NAME --from-containers`: makes an application of containers that already run.

The documents of the containers, and of the Services, config maps and volumes that only they use, are written as
`-o manifest` writes them, and applied with `take_over`. A trial comes first: if an object would change, nothing is
applied. So nothing changes on the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse.container.v1 import container_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.apply.run import difference_lines
from pilothouse_client.apply.sent_documents import subject_of
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.manifests import NAME_LABEL, manifests_of
from pilothouse_client.commands.terminal import plain, say
from pilothouse_client.errors import NotFoundError

if TYPE_CHECKING:
    from pilothouse_client import Client

_REFUSED = 3
_SOURCES: dict[int, str] = {
    container_pb2.ENV_VALUE_FROM_CONFIG_MAP: "config_map",
    container_pb2.ENV_VALUE_FROM_SECRET: "secret",
}


def adopt(
    client: Client, namespace: str, name: str, chosen: Sequence[str], *, validate_only: bool
) -> pb.ApplyApplicationResponse:
    """Makes an application of these containers and of the objects that only they use.

    Returns the server's response.

    Raises:
        CommandError: the application exists, an object would change, or belongs to another application.
    """
    _refuse_existing(client, namespace, name)
    everything = {each.name: each for each in client.containers.list(namespace=namespace)}
    missing = sorted(set(chosen) - everything.keys())
    if missing:
        raise CommandError(f"there is no container {missing[0]} in {namespace}", 6, "NOT_FOUND")
    own = [everything[each] for each in chosen]
    others = [each for each in everything.values() if each.name not in chosen]
    documents = [
        manifest
        for each in (*_belongings(client, namespace, own, others), *own)
        for manifest in manifests_of(each)
    ]
    request = pb.ApplyApplicationRequest(namespace=namespace, name=name, take_over=True, validate_only=True)
    for document in documents:
        subject = subject_of(document["kind"], document["metadata"]["name"])
        request.documents.add(json=json.dumps(document), source=subject)
    trial = client.applications.apply.send(request)
    _refuse_changes(trial)
    if validate_only:
        return trial
    request.validate_only = False
    return client.applications.apply.send(request)


def _refuse_existing(client: Client, namespace: str, name: str) -> None:
    try:
        found = client.applications.get(namespace=namespace, name=name)
    except NotFoundError:
        return
    raise CommandError(
        f"application {name} exists, at revision {found.revision}; change it by `pilothouse apply --application "
        f"{name}`",
        7,
        "ALREADY_EXISTS",
    )


def _belongings(
    client: Client,
    namespace: str,
    own: Sequence[container_pb2.Container],
    others: Sequence[container_pb2.Container],
) -> Iterator[Message]:
    """Yields the Services, config maps and volumes that only these containers use; reports which are left out."""
    names = {each.name for each in own}
    used, used_elsewhere = _sources(own), _sources(others)
    for kind, name in sorted(used):
        subject = subject_of("ConfigMap" if kind == "config_map" else "Secret", name)
        if kind == "secret":
            _leave_out(
                subject, "its values are not shown; apply its document to make it part of the application"
            )
        elif (kind, name) in used_elsewhere:
            _leave_out(subject, "other containers read it, too")
        else:
            yield client.config.get_config_map(namespace=namespace, name=name)
    for volume in client.storage.list_volumes(namespace=namespace):
        if not names.intersection(volume.mounted_by) or volume.type not in (
            storage_pb2.VOLUME_TYPE_UNSPECIFIED,
            storage_pb2.VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM,
        ):
            continue
        if names.issuperset(volume.mounted_by):
            yield volume
        else:
            _leave_out(subject_of("Volume", volume.name), "other containers mount it, too")
    for service in client.network.list_services(namespace=namespace):
        if service.owner or not any(_leads_to(service, each) for each in own):
            continue
        if any(_leads_to(service, each) for each in others):
            _leave_out(subject_of("Service", service.name), "it also selects other containers")
        else:
            yield service


def _leads_to(service: network_pb2.Service, container: container_pb2.Container) -> bool:
    """Returns whether a Service names a container, or selects its pods."""
    if service.containers:
        return container.name in service.containers
    labels = {NAME_LABEL: container.name, **container.pod_labels, **container.selector}
    return bool(service.selector) and service.selector.items() <= labels.items()


def _leave_out(subject: str, why: str) -> None:
    say(plain(f"left out: {subject}: {why}"), err=True)


def _sources(containers: Collection[Message]) -> set[tuple[str, str]]:
    """Returns the platform's config maps and secrets that containers read, as kind and name."""
    return {source for each in containers for source in _named_sources(each, "")}


def _named_sources(message: Message, field_name: str) -> Iterator[tuple[str, str]]:
    name = getattr(message, "source_name", "")
    if name and not getattr(message, "external", False):
        kind = _SOURCES.get(getattr(message, "value_from", 0), field_name)
        if kind in _SOURCES.values():
            yield kind, name
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            yield from _named_sources(each, field.name)


def _refuse_changes(trial: pb.ApplyApplicationResponse) -> None:
    changed = [each for each in trial.changes if each.action != pb.CHANGE_ACTION_UNCHANGED]
    if not (trial.problems or changed):
        return
    for problem in trial.problems:
        subject = subject_of(problem.kind, problem.name)
        say(plain(": ".join(filter(None, (subject, problem.path, problem.message)))), err=True)
    for change in changed:
        say(plain(f"{subject_of(change.kind, change.name)} would change"), err=True)
        for line in difference_lines(change):
            say(plain(f"  {line}"), err=True)
    raise CommandError(
        "nothing was adopted, because objects would change or are refused; write their YAML by `-o manifest` and use "
        "`pilothouse apply --application NAME --take-over`",
        _REFUSED,
    )
