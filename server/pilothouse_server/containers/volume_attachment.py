"""The condition `VolumesAttachable`: whether all pods can mount the volumes.

A claim of ReadWriteOnce is attached to one node. Several pods share it only if the cluster puts them on the same node.
The other pods wait, and the cluster reports FailedAttachVolume (Multi-Attach). Such a container is accepted, because it
may work, and has this condition. The condition follows from the desired state, so the response to the change already
reports it.
"""

from __future__ import annotations

from pilothouse_server.containers.model import Container
from pilothouse_server.values.resources import Condition

VOLUMES_ATTACHABLE = "VolumesAttachable"
FAILED = "FailedAttachVolume"
_CLAIM = "persistent_volume_claim"


def shows_volumes(container: Container) -> bool:
    """Returns whether a condition of the container follows from its volumes, which may change without it."""
    condition = volumes_attachable(container)
    return condition is not None and condition.reason != FAILED


def volumes_attachable(container: Container) -> Condition | None:
    """Returns the condition; None if its volumes cause no problem.

    It is False if the cluster has reported the problem, and Unknown if several replicas mount a volume that is attached
    to one node.
    """
    observed = container.observed
    if observed.reason == FAILED:
        return Condition(VOLUMES_ATTACHABLE, "False", FAILED, observed.message)
    if container.replicas < 2:
        return None
    mounted = {mount.volume for mount in container.all_mounts}
    once = sorted(
        volume.name
        for volume in container.volumes
        if volume.type == _CLAIM and volume.access_mode.startswith("ReadWriteOnce") and volume.name in mounted
    )
    if not once:
        return None
    names = ", ".join(f'"{name}"' for name in once)
    what = f"volumes {names} are" if len(once) > 1 else f"volume {names} is"
    return Condition(
        VOLUMES_ATTACHABLE,
        "Unknown",
        "ReadWriteOnce",
        f"{what} READ_WRITE_ONCE (pods of one node) or READ_WRITE_ONCE_POD (one pod), but {container.replicas} "
        f"replicas are requested: those that cannot attach it do not start ({FAILED})",
    )
