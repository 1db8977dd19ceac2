"""Objects that a file itself brings: another step of the same file may count on them before they exist."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.storage.v1 import storage_pb2
from pilothouse_client.apply.configs import ConfigStep
from pilothouse_client.apply.plan import Step
from pilothouse_client.apply.volumes import VolumeStep
from pilothouse_client.errors import PilothouseError

_KIND_OF_VARIABLE = {pb.ENV_VALUE_FROM_CONFIG_MAP: "config_map", pb.ENV_VALUE_FROM_SECRET: "secret"}
_KIND_OF_VOLUME = {
    storage_pb2.VOLUME_TYPE_CONFIG_MAP: "config_map",
    storage_pb2.VOLUME_TYPE_SECRET: "secret",
}


@dataclass(frozen=True, slots=True)
class Brought:
    """`configs`: kind and name of those that are made; `volumes`: names of those that are made; `services`: names
    of those that a container gives up, so that another may take them."""

    configs: frozenset[tuple[str, str]]
    volumes: frozenset[str]
    services: frozenset[str]

    @classmethod
    def of(
        cls, configs: Iterable[ConfigStep], volumes: Iterable[VolumeStep], containers: Iterable[Step]
    ) -> Brought:
        """Returns the objects that these steps bring."""
        return cls(
            frozenset((step.wanted.kind, step.wanted.name) for step in configs if step.before is None),
            frozenset(step.wanted.name for step in volumes if step.before is None),
            frozenset(name for step in containers for name in step.wanted.releases),
        )

    def checkable(self, step: Step) -> Step:
        """Returns the step as a server can check it before this file's other objects exist."""
        checked = pb.Container()
        checked.CopyFrom(step.container)
        others: list[pb.Program | pb.InitContainer] = [*checked.sidecars, *checked.init_containers]
        for variables in (checked.env, *(each.env for each in others)):
            for variable in variables:
                if (_KIND_OF_VARIABLE.get(variable.value_from, ""), variable.source_name) in self.configs:
                    variable.optional = True
        for sources in (checked.env_from, *(each.env_from for each in others)):
            for source in sources:
                if (_KIND_OF_VARIABLE.get(source.value_from, ""), source.source_name) in self.configs:
                    source.optional = True
        self._excuse_sources(checked)
        pulling = [name for name in checked.image_pull_secrets if ("secret", name) not in self.configs]
        checked.image_pull_secrets[:] = pulling
        mounted = {mount.volume for mount in checked.volume_mounts}
        mounted |= {mount.volume for each in others for mount in each.volume_mounts}
        made = sorted(mounted & self.volumes)
        # A folder of its own stands for a volume that is not there yet: what is checked is where it is mounted.
        checked.empty_dirs.extend(pb.EmptyDir(name=name) for name in made)
        mask = step.update_mask
        if made and mask and "empty_dirs" not in mask:
            mask = (*mask, "empty_dirs")
        return replace(step, container=checked, update_mask=mask)

    def _excuse_sources(self, checked: pb.Container) -> None:
        """Has pods do without the sources of their own volumes that this file brings."""
        for volume in checked.pod_volumes:
            holders: list[pb.PodVolume | pb.ProjectedSource] = [volume, *volume.projected.sources]
            for holder in holders:
                kind = holder.WhichOneof("source") or ""
                if (kind, getattr(getattr(holder, kind, None), "source_name", "")) in self.configs:
                    getattr(holder, kind).optional = True

    def excuses_volume(self, step: VolumeStep, error: PilothouseError) -> bool:
        """Returns whether the server misses only objects that the file brings for a volume to show."""
        message = step.message
        source = (_KIND_OF_VOLUME.get(message.type, ""), message.source_name)
        return error.reason == "SOURCE_NOT_FOUND" and source in self.configs

    def excuses_container(self, error: PilothouseError, *, smaller: bool) -> bool:
        """Returns whether the steps before remove the cause of a refusal. `smaller`: some step makes room in the
        quota; the quota is then counted over all steps.
        """
        if error.reason == "SERVICE_ALREADY_EXISTS":
            return error.metadata.get("service", "") in self.services
        return error.reason == "QUOTA_EXCEEDED" and smaller
