"""Whether all pods of a container can have its volumes concurrently: the condition `VolumesAttachable`.

A claim of ReadWriteOnce is attached to one node. Several pods share it only where the cluster puts them on the same
node; the others wait, and the cluster says FailedAttachVolume (Multi-Attach). This is no error, since it may work, so
it is accepted and reported. It follows from the desired state, so the answer to the change already reports it, before
the cluster was asked.
"""

from __future__ import annotations

from pilothouse_server.containers.model import Container
from pilothouse_server.values.resources import Condition

VOLUMES_ATTACHABLE = "VolumesAttachable"
FAILED = "FailedAttachVolume"
_CLAIM = "persistent_volume_claim"


def shows_volumes(container: Container) -> bool:
    """Whether a condition of the container follows from its volumes, which may change without it."""
    condition = volumes_attachable(container)
    return condition is not None and condition.reason != FAILED


def volumes_attachable(container: Container) -> Condition | None:
    """Returns False if the cluster says so, Unknown if several replicas want a volume that one node gets; else there
    is none.
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
        f"{what} READ_WRITE_ONCE, for the pods of one node or one pod, and {container.replicas} replicas are wanted: "
        f"those that the cluster puts elsewhere do not start ({FAILED})",
    )
