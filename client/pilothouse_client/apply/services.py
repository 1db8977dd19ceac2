"""Services of an `apply`: planned, tried and sent, before the containers whose pods they select.

A Service that a container owns by its ports is no step here: `pilothouse_manifests.translator.attach` joins the two.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.network.v1 import network_pb2 as pb
from pilothouse.resource.v1.resource_pb2 import Warning
from pilothouse_client.apply.execute import ApplyOutcome, ends_the_run
from pilothouse_client.apply.messages import message, values
from pilothouse_client.apply.outcome import Say
from pilothouse_client.apply.plan import Action
from pilothouse_client.errors import PilothouseError
from pilothouse_client.nouns.network import Network
from pilothouse_client.transport import BlockingTransport
from pilothouse_manifests.services import SPEC
from pilothouse_manifests.table import fields_of
from pilothouse_manifests.translator.manifest import ManifestService

_DECIDED = tuple(
    field.name
    for field in pb.Service.DESCRIPTOR.fields
    if field.name
    in {"headless", "labels", "annotations", "ports", *(each.name for each in fields_of(SPEC.entries))}
)
_DEFAULTS = {field.name: field.default for field in fields_of(SPEC.entries) if field.default is not None}


@dataclass(frozen=True, slots=True)
class ServiceStep:
    """One Service: `before` is the server's, None if there is none; `update_mask` names the fields that differ."""

    wanted: ManifestService
    message: pb.Service
    before: pb.Service | None = None
    update_mask: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return f"service/{self.wanted.name}"

    @property
    def action(self) -> Action:
        if self.before is None:
            return Action.CREATE
        return Action.UPDATE if self.update_mask else Action.NOTHING


def plan_services(wanted: Iterable[ManifestService], existing: Iterable[pb.Service]) -> list[ServiceStep]:
    """One step each, in the order given."""
    on_server = {service.name: service for service in existing if not service.HasField("delete_time")}
    steps = []
    for each in wanted:
        before, described = on_server.get(each.name), message(pb.Service, each.values)
        steps.append(ServiceStep(each, described, before, () if before is None else _mask(described, before)))
    return steps


class ServiceExecutor:
    """Carries out steps in one namespace."""

    def __init__(
        self, network: Network[BlockingTransport], namespace: str, *, say: Say, complain: Say
    ) -> None:
        self._network = network
        self._namespace = namespace
        self._say = say
        self._complain = complain

    def carry_out(self, steps: Iterable[ServiceStep], outcome: ApplyOutcome) -> None:
        """Sends each step in order, with a line for each, and adds its result to the outcome.

        Raises:
            UnauthenticatedError, UnavailableError: the server cannot be asked.
        """
        for step in steps:
            try:
                send(self._network, self._namespace, step)
            except PilothouseError as error:
                if ends_the_run(error):
                    raise
                outcome.failed.append(step.subject)
                self._complain(f"{step.wanted.place}: {step.subject} failed: {error}")
                continue
            outcome.done[step.action] += 1
            self._say(f"{step.subject} {step.action.value}")


def send(
    network: Network[BlockingTransport],
    namespace: str,
    step: ServiceStep,
    *,
    validate_only: bool = False,
    warnings: list[Warning] | None = None,
) -> pb.Service:
    """Sends one step to the server, and returns the Service then; adds the response's warnings to `warnings`.

    Raises PilothouseError.
    """
    before = step.before
    if before is not None and not step.update_mask:
        return before
    response: pb.CreateServiceResponse | pb.UpdateServiceResponse
    if before is None:
        response = network.create_service.send(
            pb.CreateServiceRequest(namespace=namespace, service=step.message, validate_only=validate_only)
        )
    else:
        response = network.update_service.send(
            pb.UpdateServiceRequest(
                namespace=namespace,
                name=step.message.name,
                service=step.message,
                update_mask=FieldMask(paths=step.update_mask),
                etag=before.etag,
                validate_only=validate_only,
            )
        )
    if warnings is not None:
        warnings.extend(response.warnings)
    return response.service


def _mask(wanted: pb.Service, before: pb.Service) -> tuple[str, ...]:
    old, new = _canonical(before), _canonical(wanted)
    for port in new.ports:
        # A node port that the cluster chose stays.
        chosen = [
            each.node_port for each in old.ports if (each.port, each.protocol) == (port.port, port.protocol)
        ]
        port.node_port = port.node_port or next(iter(chosen), 0)
    return tuple(name for name in _DECIDED if getattr(old, name) != getattr(new, name))


def _canonical(service: pb.Service) -> pb.Service:
    """The fields that a manifest decides, with the API's defaults, and ports in one order."""
    result = pb.Service()
    result.CopyFrom(service)
    for field, _ in service.ListFields():
        if field.name not in _DECIDED:
            result.ClearField(field.name)  # type: ignore[arg-type]
    said = values(result)
    result.MergeFrom(
        message(pb.Service, {name: each for name, each in _DEFAULTS.items() if name not in said})
    )
    for port in result.ports:
        port.protocol = port.protocol or pb.PROTOCOL_TCP
        port.target = port.target or str(port.port)
    result.ports.sort(key=lambda each: (each.port, each.protocol))
    return result


def difference(step: ServiceStep) -> str:
    """A unified diff from the server's Service to the wanted one, as YAML."""
    before, after = step.before, pb.Service()
    after.CopyFrom(step.message if before is None else before)
    for name in step.update_mask:
        after.ClearField(name)  # type: ignore[arg-type]
        after.MergeFrom(pb.Service(**{name: getattr(step.message, name)}))
    lines = difflib.unified_diff(
        [] if before is None else _lines(before),
        _lines(after),
        "/dev/null" if before is None else f"{step.subject} (server)",
        f"{step.subject} ({step.wanted.place})",
    )
    return "".join(lines)


def _lines(service: pb.Service) -> list[str]:
    fields: dict[str, Any] = json_format.MessageToDict(service, preserving_proto_field_name=True)
    shown = {name: fields[name] for name in ("name", *_DECIDED) if name in fields}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100).splitlines(keepends=True)
