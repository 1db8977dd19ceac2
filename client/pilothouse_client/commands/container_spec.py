"""Options that describe a container, and the message that they make.

A file can set the fields that have no option (probes, init containers, rights …). It contains the container in the
API's own fields, as `containers get -o yaml` writes it; options override it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.commands import kind_settings, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.message_data import FieldError, message_of
from pilothouse_client.commands.options import complete_words, enum_number, pairs

FromFile = Annotated[
    str, verbs.Option("-f", "--from-file", help="YAML or JSON with the container's fields; '-': stdin.")
]


@dataclass
class Specification:
    """The options of one command, each declared at its field.

    None or empty if the option was not given."""

    image: Annotated[str | None, verbs.Option("--image", help="Such as nginx:1.27.")] = None
    display_name: Annotated[str | None, verbs.Option("--display-name", help="Name for people.")] = None
    command: Annotated[
        list[str] | None,
        verbs.Option("--command", metavar="WORD", help="Program to run instead of the image's; repeat."),
    ] = None
    args: Annotated[list[str] | None, verbs.Argument(help="Arguments instead of the image's, after --.")] = (
        None
    )
    env: Annotated[
        list[str] | None, verbs.Option("-e", "--env", metavar="KEY=VALUE", help="Variable; repeat for more.")
    ] = None
    env_config: Annotated[
        list[str] | None,
        verbs.Option("--env-config", metavar="KEY=MAP/KEY", help="Variable from a config map."),
    ] = None
    env_secret: Annotated[
        list[str] | None,
        verbs.Option("--env-secret", metavar="KEY=SECRET/KEY", help="Variable from a secret."),
    ] = None
    ports: Annotated[
        list[str] | None,
        verbs.Option(
            "-p", "--port", metavar="[NAME=]PORT[:SERVICE_PORT][/udp]", help="Port and its service; repeat."
        ),
    ] = None
    service_type: Annotated[
        str,
        verbs.Option(
            "--service-type",
            complete=complete_words(pb.ServiceType),
            help="cluster_ip, node_port, load_balancer, headless or none.",
        ),
    ] = ""
    mounts: Annotated[
        list[str] | None,
        verbs.Option("--mount", metavar="VOLUME:/PATH[:ro]", help="Volume to mount at the path; repeat."),
    ] = None
    cpu_request: Annotated[str | None, verbs.Option("--cpu-request", help="Such as 100m.")] = None
    cpu_limit: Annotated[str | None, verbs.Option("--cpu-limit", help="Such as 1.")] = None
    memory_request: Annotated[str | None, verbs.Option("--memory-request", help="Such as 64Mi.")] = None
    memory_limit: Annotated[str | None, verbs.Option("--memory-limit", help="Such as 256Mi.")] = None
    replicas: Annotated[
        int | None, verbs.Option("--replicas", min=0, help="Number of pods while started.")
    ] = None
    labels: Annotated[
        list[str] | None, verbs.Option("--label", metavar="KEY=VALUE", help="Label; repeat for more.")
    ] = None
    annotations: Annotated[
        list[str] | None,
        verbs.Option("--annotation", metavar="KEY=VALUE", help="Annotation; repeat for more."),
    ] = None
    service_account: Annotated[
        str | None, verbs.Option("--service-account", help="Kubernetes service account.")
    ] = None
    image_pull_secrets: Annotated[
        list[str] | None,
        verbs.Option(
            "--image-pull-secret", metavar="SECRET", help="Secret with a registry's log-in; repeat."
        ),
    ] = None
    priority_class: Annotated[
        str | None, verbs.Option("--priority-class", help="PriorityClass of the cluster; '': its default.")
    ] = None
    pod_labels: Annotated[
        list[str] | None, verbs.Option("--pod-label", metavar="KEY=VALUE", help="Label of the pods; repeat.")
    ] = None
    pod_annotations: Annotated[
        list[str] | None,
        verbs.Option("--pod-annotation", metavar="KEY=VALUE", help="Annotation of the pods; repeat."),
    ] = None
    env_from_config: Annotated[
        list[str] | None,
        verbs.Option("--env-from-config", metavar="MAP", help="Variables of a whole config map; repeat."),
    ] = None
    env_from_secret: Annotated[
        list[str] | None,
        verbs.Option("--env-from-secret", metavar="SECRET", help="Variables of a whole secret; repeat."),
    ] = None
    requests: Annotated[
        list[str] | None,
        verbs.Option("--request", metavar="RESOURCE=AMOUNT", help="Such as ephemeral-storage=1Gi; repeat."),
    ] = None
    limits: Annotated[
        list[str] | None,
        verbs.Option("--resource-limit", metavar="RESOURCE=AMOUNT", help="Such as nvidia.com/gpu=1; repeat."),
    ] = None
    strategy: Annotated[
        str | None,
        verbs.Option("--strategy", help="How to roll out: RollingUpdate or Recreate; '': the default."),
    ] = None
    max_surge: Annotated[
        str | None,
        verbs.Option("--max-surge", help="Pods above the replicas in a rollout, such as 1 or 25%."),
    ] = None
    max_unavailable: Annotated[
        str | None,
        verbs.Option("--max-unavailable", help="Pods below the replicas in a rollout, such as 0 or 25%."),
    ] = None
    kind: Annotated[
        str,
        verbs.Option(
            "--kind",
            complete=complete_words(pb.WorkloadKind),
            help="deployment, stateful-set, daemon-set, job or cron-job; default deployment.",
        ),
    ] = ""
    settings: Annotated[
        list[str] | None,
        verbs.Option(
            "--setting", metavar="NAME=VALUE", help="Setting of the kind, such as update_partition=1; repeat."
        ),
    ] = None
    claims: Annotated[
        list[str] | None,
        verbs.Option(
            "--claim", metavar="NAME=SIZE", help="Claim that each pod of a StatefulSet gets; repeat."
        ),
    ] = None
    automount_token: Annotated[
        bool | None,
        verbs.Option(
            "--automount-token/--no-automount-token", help="Whether pods get a token of the service account."
        ),
    ] = None
    extra: Annotated[
        list[str] | None,
        verbs.Option("--extra", metavar="PATH=JSON", help="Another field of the Deployment; repeat."),
    ] = None
    drift_policy: Annotated[
        str | None,
        verbs.Option(
            "--drift-policy", complete=complete_words(pb.DriftPolicy), help="repair, report or adopt."
        ),
    ] = None

    def write_to(self, container: pb.Container) -> list[str]:
        """Writes the given options into the container.

        Returns the paths of an update mask that names them.

        Variables, labels and annotations are added to the current ones; ports, mounts, command, arguments and image
        pull secrets replace the current ones.
        """
        return [
            *self._write_plain(container),
            *self._write_lists(container),
            *kind_settings.write(container, self.kind, self.settings or (), self.claims or ()),
        ]

    def _write_plain(self, container: pb.Container) -> Iterator[str]:
        for name in ("image", "display_name", "replicas", "service_account", "priority_class"):
            value = getattr(self, name)
            if value is not None:
                setattr(container, name, value)
                yield name
        for name in ("strategy", "max_surge", "max_unavailable"):
            setting = getattr(self, name)
            if setting is not None:
                setattr(container.deployment, name, setting)
                yield f"deployment.{name}"
        if self.automount_token is not None:
            container.automount_service_account_token = self.automount_token
            yield "automount_service_account_token"
        for name in ("cpu_request", "cpu_limit", "memory_request", "memory_limit"):
            quantity = getattr(self, name)
            if quantity is not None:
                setattr(container.resources, name, quantity)
                yield f"resources.{name}"
        if self.drift_policy is not None:
            number = enum_number(pb.DriftPolicy, self.drift_policy, "--drift-policy")
            container.drift_policy = pb.DriftPolicy.ValueType(number)
            yield "drift_policy"

    def _write_lists(self, container: pb.Container) -> Iterator[str]:
        for name, words in (
            ("command", self.command),
            ("args", self.args),
            ("image_pull_secrets", self.image_pull_secrets),
        ):
            if words:
                getattr(container, name)[:] = words
                yield name
        if self.ports is not None:
            ports = [_port(text, self.service_type) for text in self.ports]
            del container.ports[:]
            container.ports.extend(ports)
            yield "ports"
        elif self.service_type:
            raise CommandError("--service-type needs --port", 2)
        if self.mounts is not None:
            mounts = [_mount(text) for text in self.mounts]
            del container.volume_mounts[:]
            container.volume_mounts.extend(mounts)
            yield "volume_mounts"
        variables = [*self._variables()]
        if variables:
            by_name = {variable.name: variable for variable in [*container.env, *variables]}
            del container.env[:]
            container.env.extend(by_name.values())
            yield "env"
        yield from self._write_maps(container)

    def _write_maps(self, container: pb.Container) -> Iterator[str]:
        sources = [
            pb.EnvFrom(value_from=kind, source_name=name)
            for names, kind in (
                (self.env_from_config, pb.ENV_VALUE_FROM_CONFIG_MAP),
                (self.env_from_secret, pb.ENV_VALUE_FROM_SECRET),
            )
            for name in names or ()
        ]
        if sources:
            del container.env_from[:]
            container.env_from.extend(sources)
            yield "env_from"
        for name, given, option in (
            ("labels", self.labels, "--label"),
            ("annotations", self.annotations, "--annotation"),
            ("pod_labels", self.pod_labels, "--pod-label"),
            ("pod_annotations", self.pod_annotations, "--pod-annotation"),
            ("resources.requests", self.requests, "--request"),
            ("resources.limits", self.limits, "--resource-limit"),
        ):
            if given is not None:
                holder = container.resources if name.startswith("resources.") else container
                getattr(holder, name.rpartition(".")[2]).update(pairs(given, option))
                yield name
        for text in self.extra or ():
            # A path may have `=` in the brackets of an item.
            path, equals, value = _split_extra(text)
            if not equals:
                raise CommandError(f"--extra takes PATH=JSON, not {text!r}", 2)
            container.extra_fields[path] = value
            yield "extra_fields"

    def _variables(self) -> Iterator[pb.EnvVar]:
        for name, value in pairs(self.env or [], "--env").items():
            yield pb.EnvVar(name=name, value=value, value_from=pb.ENV_VALUE_FROM_LITERAL)
        for given, kind, option in (
            (self.env_config, pb.ENV_VALUE_FROM_CONFIG_MAP, "--env-config"),
            (self.env_secret, pb.ENV_VALUE_FROM_SECRET, "--env-secret"),
        ):
            for name, source in pairs(given or [], option).items():
                source_name, slash, source_key = source.partition("/")
                if not (slash and source_name and source_key):
                    raise CommandError(f"{option} takes KEY=NAME/KEY, not {name}={source}", 2)
                yield pb.EnvVar(name=name, value_from=kind, source_name=source_name, source_key=source_key)

    @property
    def merges(self) -> bool:
        """Whether an update needs the current values."""
        added = (self.labels, self.annotations, self.pod_labels, self.pod_annotations)
        return any(
            (
                *(self.env, self.env_config, self.env_secret, *added, self.requests, self.limits, self.extra),
                *(self.settings, self.claims),
            )
        )


def _split_extra(text: str) -> tuple[str, str, str]:
    depth = 0
    for position, character in enumerate(text):
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "=" and not depth:
            return text[:position], "=", text[position + 1 :]
    return text, "", ""


def _port(text: str, service_type: str) -> pb.Port:
    name, equals, rest = text.partition("=")
    if not equals:
        name, rest = "", text
    numbers, _, protocol = rest.partition("/")
    container_port, _, service_port = numbers.partition(":")
    try:
        return pb.Port(
            name=name,
            container_port=int(container_port),
            service_port=int(service_port or 0),
            protocol=pb.Protocol.ValueType(enum_number(pb.Protocol, protocol, "the protocol of --port")),
            service_type=pb.ServiceType.ValueType(
                enum_number(pb.ServiceType, service_type, "--service-type")
            ),
        )
    except ValueError:
        raise CommandError(f"--port takes [NAME=]PORT[:SERVICE_PORT][/udp], not {text!r}", 2) from None


def _mount(text: str) -> pb.VolumeMount:
    volume, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if not volume or not path.startswith("/") or mode not in ("", "ro", "rw"):
        raise CommandError(f"--mount takes VOLUME:/PATH[:ro], not {text!r}", 2)
    return pb.VolumeMount(volume=volume, mount_path=path, read_only=mode == "ro")


def container_from_file(source: str) -> pb.Container:
    """Returns the container that a YAML or JSON file describes in the API's fields; `-` reads standard input."""
    import yaml

    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
        data: Any = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {source}: {error}", 2) from error
    except yaml.YAMLError as error:
        raise CommandError(f"{source} is not YAML: {error}", 2) from error
    if not isinstance(data, dict):
        raise CommandError(f"{source} must contain the fields of one container, as a mapping", 2)
    if "kind" in data and "apiVersion" in data:
        raise CommandError(f"{source} is a Kubernetes manifest: use pilothouse apply -f {source}", 2)
    try:
        return message_of(data, pb.Container)
    except FieldError as error:
        raise CommandError(f"{'standard input' if source == '-' else source}: {error}", 2) from error
