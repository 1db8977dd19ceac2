"""The images that a container's pods really run: digest, size, platform, pull failures.

The digest is in a pod's status, size and platform are in its node's. Nodes are read only when there is something new to
write, and seldom: their list of images is long, and lags behind their pods by seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import Literal

import msgspec

from pilothouse_server.containers.model import Container
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.kubernetes.objects import NODES, ContainerStatus, Node, Pod
from pilothouse_server.reconcile.repository.images import ImageSeen
from pilothouse_server.values.image_reference import ImageReference

PULL_FAILURES = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# A node lists only its largest images, so a missing size is requested only this often.
TRIES = 10


class RunningImage(msgspec.Struct, frozen=True):
    """An image as a pod on `node` runs it, with its `digest` and the runtime's `name`.

    `failed`: the image cannot be pulled.

    `program`: the sidecar or init container that runs it; empty for the main program.
    """

    image: str
    digest: str = ""
    name: str = ""
    node: str = ""
    failed: bool = False
    program: str = ""


class Images:
    """The last written values by container and program, and a cache of nodes.

    Each node is read at most once in `node_seconds`.
    """

    def __init__(self, client: ClusterClient, node_seconds: float) -> None:
        self._client = client
        self._node_seconds = node_seconds
        self._written: dict[str, dict[str, tuple[RunningImage, int]]] = {}
        self._nodes: dict[str, tuple[float, Node | None]] = {}

    def forget(self, uid: str) -> None:
        """Drops the data of a deleted container."""
        self._written.pop(uid, None)

    def unwritten(self, container: Container, pods: Iterable[Pod]) -> list[RunningImage]:
        """Returns the values to write for a container's images: those that are known and new."""
        written = self._written.get(container.uid, {})
        # If a program is removed, its row is deleted. If it is added again, the new row lacks the values of pods.
        for gone in written.keys() - {"", *(each.name for each in container.others)}:
            del written[gone]
        return [found for found in running_images(container, pods) if self._is_new(container, found)]

    def _is_new(self, container: Container, found: RunningImage) -> bool:
        written, tries = self._written.get(container.uid, {}).get(found.program, (None, 0))
        return written is None or not _same(written, found) or tries > 0

    async def describe(self, container: Container, found: RunningImage) -> ImageSeen:
        """Completes a pod's values with its node's. A node that cannot be read is skipped."""
        seen = ImageSeen(int(container.id), found.image, found.digest, program=found.program)
        node = await self._node(found.node)
        if node is None:
            return seen
        sizes = (i.size_bytes for i in node.status.images if _is_named(i.names, found))
        info = node.status.node_info
        return msgspec.structs.replace(
            seen,
            size_bytes=next(sizes, None),
            architecture=info.architecture or None,
            os=info.operating_system or None,
        )

    def record(
        self, container: Container, found: RunningImage, *, complete: bool
    ) -> Literal["done", "again"]:
        """Records that the image was written.

        Returns `again` if its node may report the size later.
        """
        own = self._written.setdefault(container.uid, {})
        written, tries = own.get(found.program, (None, 0))
        left = tries - 1 if written is not None and _same(written, found) and tries > 0 else TRIES
        left = 0 if complete else left
        own[found.program] = (found, left)
        return "again" if left else "done"

    async def _node(self, name: str) -> Node | None:
        read_at, node = self._nodes.get(name, (0.0, None))
        if not name or (read_at and monotonic() - read_at < self._node_seconds):
            return node
        # The server may lack the right to read nodes; known values stay.
        with suppress(ClusterError):
            node = await self._client.find(NODES, None, name)
        self._nodes[name] = (monotonic(), node)
        return node


def running_images(container: Container, pods: Iterable[Pod]) -> list[RunningImage]:
    """Returns how pods run the desired images.

    A pod that runs an image counts before one that cannot pull it.
    """
    wanted = {container.spec.pod_container_name: container.image}
    wanted |= {each.name: each.image for each in container.others}
    found: dict[str, RunningImage] = {}
    for pod in pods:
        if pod.metadata.deletion_timestamp is not None:
            continue
        statuses = {s.name: s for s in (*pod.status.init_container_statuses, *pod.status.container_statuses)}
        for program in (*pod.spec.init_containers, *pod.spec.containers):
            known = found.get(program.name)
            if program.image != wanted.get(program.name) or (known is not None and not known.failed):
                continue
            image = _running_image(program.image, statuses.get(program.name), pod.spec.node_name)
            if image is not None:
                found[program.name] = image
    main = container.spec.pod_container_name
    return [
        msgspec.structs.replace(image, program="" if name == main else name) for name, image in found.items()
    ]


def _running_image(wanted: str, status: ContainerStatus | None, node: str) -> RunningImage | None:
    if status is None:
        return None
    digest = ImageReference.parse(wanted).digest or digest_of(status.image_id)
    if status.image_id and digest:
        return RunningImage(wanted, digest, status.image, node)
    waiting = status.state.waiting
    if waiting is not None and waiting.reason in PULL_FAILURES:
        return RunningImage(wanted, failed=True)
    return None


def digest_of(image_id: str) -> str:
    """Returns the digest in a runtime's `imageID`.

    It is the repository's digest, or for an image that was loaded by hand, the digest of its configuration.
    """
    digest = image_id.rpartition("@")[2].rpartition("//")[2]
    return digest if _DIGEST.fullmatch(digest) else ""


def _same(one: RunningImage, other: RunningImage) -> bool:
    """Returns whether both are the same image in the same state, whichever node runs it."""
    return (one.image, one.digest, one.failed) == (other.image, other.digest, other.failed)


def _is_named(names: tuple[str, ...] | None, found: RunningImage) -> bool:
    return any(name == found.name or name.partition("@")[2] == found.digest for name in names or ())
