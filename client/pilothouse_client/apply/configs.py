"""Config maps and secrets of an `apply`: planning and executing the steps.

They come before the containers, which may read them. Of a config map only the fields that differ are changed. The
content of a secret on the server is not known here, so its values are always sent: the server changes nothing if they
are the same, and its etag shows whether it did. A difference shows the keys of
a secret and the sizes of its values, never a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import yaml
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2 as pb
from pilothouse.resource.v1.resource_pb2 import Warning
from pilothouse_client.apply.execute import ApplyOutcome, ends_the_run
from pilothouse_client.apply.messages import config_message
from pilothouse_client.apply.outcome import Say
from pilothouse_client.apply.plan import Action
from pilothouse_client.errors import PilothouseError
from pilothouse_client.nouns.config import Config
from pilothouse_client.transport import BlockingTransport
from pilothouse_manifests.translator.manifest import ManifestConfig
from pilothouse_manifests.translator.problems import InputProblem, Problems

_WORDS = {"config_map": "configmap", "secret": "secret"}
_COMPARED = {
    "config_map": ("data", "binary_data", "immutable", "labels", "annotations"),
    "secret": ("immutable", "labels", "annotations"),
}


@dataclass(frozen=True, slots=True)
class ConfigStep:
    """One config map or secret: `before` is the server's, None if there is none; `update_mask` names the fields that
    are sent.

    `message`: the wanted object as a message.
    """

    wanted: ManifestConfig
    message: pb.ConfigMap | pb.Secret
    before: pb.ConfigMap | pb.Secret | None = None
    update_mask: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return f"{_WORDS[self.wanted.kind]}/{self.wanted.name}"


def plan_configs(
    wanted: Iterable[ManifestConfig],
    config_maps: Iterable[pb.ConfigMap],
    secrets: Iterable[pb.Secret],
    problems: Problems,
) -> list[ConfigStep]:
    """One step each, in the order given. A secret whose type would change is a problem."""
    existing: dict[tuple[str, str], pb.ConfigMap | pb.Secret] = {}
    existing |= {("config_map", each.name): each for each in config_maps if not each.HasField("delete_time")}
    existing |= {("secret", each.name): each for each in secrets if not each.HasField("delete_time")}
    steps = []
    for each in wanted:
        before, message = existing.get((each.kind, each.name)), config_message(each)
        if before is None:
            steps.append(ConfigStep(each, message))
            continue
        if isinstance(before, pb.Secret) and isinstance(message, pb.Secret):
            _check_type(each, before, message, problems)
        steps.append(ConfigStep(each, message, before, _mask(each.kind, message, before)))
    return steps


class ConfigExecutor:
    """Carries out steps in one namespace."""

    def __init__(self, config: Config[BlockingTransport], namespace: str, *, say: Say, complain: Say) -> None:
        self._config = config
        self._namespace = namespace
        self._say = say
        self._complain = complain

    def carry_out(self, steps: Iterable[ConfigStep], outcome: ApplyOutcome) -> None:
        """Executes each step in order, with a line for each; the results are added to the outcome.

        Raises:
            UnauthenticatedError, UnavailableError: the server cannot be asked.
        """
        for step in steps:
            try:
                after = send(self._config, self._namespace, step)
            except PilothouseError as error:
                if ends_the_run(error):
                    raise
                outcome.failed.append(step.subject)
                self._complain(f"{step.wanted.place}: {step.subject} failed: {error}")
                continue
            action = action_of(step, after)
            outcome.done[action] += 1
            self._say(f"{step.subject} {action.value}")


def action_of(step: ConfigStep, after: pb.ConfigMap | pb.Secret) -> Action:
    """Returns the effect of a step, by the server's answer."""
    if step.before is None:
        return Action.CREATE
    return Action.NOTHING if after.etag == step.before.etag else Action.UPDATE


def send(
    config: Config[BlockingTransport],
    namespace: str,
    step: ConfigStep,
    *,
    validate_only: bool = False,
    warnings: list[Warning] | None = None,
) -> pb.ConfigMap | pb.Secret:
    """Sends one step to the server; returns the resulting object, and adds the response's warnings to `warnings`.

    Raises PilothouseError.
    """
    if step.before is not None and not step.update_mask:
        return step.before
    where: dict[str, Any] = {"namespace": namespace, "validate_only": validate_only}
    if step.before is not None:
        where |= {
            "name": step.wanted.name,
            "update_mask": FieldMask(paths=step.update_mask),
            "etag": step.before.etag,
        }
    response = (
        _config_map(config, step, where) if step.wanted.kind == "config_map" else _secret(config, step, where)
    )
    if warnings is not None:
        warnings.extend(response.warnings)
    return response.secret if isinstance(response, _OF_SECRETS) else response.config_map


_OF_SECRETS = (pb.CreateSecretResponse, pb.UpdateSecretResponse)


def _config_map(
    config: Config[BlockingTransport], step: ConfigStep, where: dict[str, Any]
) -> pb.CreateConfigMapResponse | pb.UpdateConfigMapResponse:
    message = cast("pb.ConfigMap", step.message)
    if step.before is None:
        return config.create_config_map.send(pb.CreateConfigMapRequest(config_map=message, **where))
    return config.update_config_map.send(pb.UpdateConfigMapRequest(config_map=message, **where))


def _secret(
    config: Config[BlockingTransport], step: ConfigStep, where: dict[str, Any]
) -> pb.CreateSecretResponse | pb.UpdateSecretResponse:
    message = cast("pb.Secret", step.message)
    if step.before is None:
        return config.create_secret.send(pb.CreateSecretRequest(secret=message, **where))
    return config.update_secret.send(pb.UpdateSecretRequest(secret=message, **where))


def _check_type(wanted: ManifestConfig, before: pb.Secret, message: pb.Secret, problems: Problems) -> None:
    if message.type != before.type:
        words = f"cannot be changed: it is {before.type!r} on the server; delete the secret first"
        problems.add(InputProblem(wanted.place, f"secret/{wanted.name}", "type", words))


def _mask(kind: str, wanted: pb.ConfigMap | pb.Secret, before: pb.ConfigMap | pb.Secret) -> tuple[str, ...]:
    paths = [name for name in _COMPARED[kind] if getattr(before, name) != getattr(wanted, name)]
    return ("data", *paths) if kind == "secret" else tuple(paths)


def difference(step: ConfigStep, after: pb.ConfigMap | pb.Secret) -> str:
    """Returns a unified diff from the server's present object to the desired one, as YAML."""
    lines = difflib.unified_diff(
        [] if step.before is None else _lines(step.before),
        _lines(after),
        "/dev/null" if step.before is None else f"{step.subject} (server)",
        f"{step.subject} ({step.wanted.place})",
    )
    # Values of a secret may change without a size that tells.
    return "".join(lines) or f"{step.subject}: values change"


def _lines(message: pb.ConfigMap | pb.Secret) -> list[str]:
    shown: dict[str, Any] = {"name": message.name}
    if isinstance(message, pb.ConfigMap):
        shown["data"] = _sorted(message.data)
        shown["binary_data"] = {
            key: f"({len(value)} bytes)" for key, value in _sorted(message.binary_data).items()
        }
    else:
        shown["type"] = message.type
        shown["data"] = {key: f"({size} bytes)" for key, size in _sorted(message.key_sizes).items()}
    shown["immutable"] = message.immutable
    shown["labels"], shown["annotations"] = _sorted(message.labels), _sorted(message.annotations)
    said = {name: value for name, value in shown.items() if value not in ({}, False)}
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True, width=100).splitlines(keepends=True)


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(values.items()))
