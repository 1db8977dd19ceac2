"""The resources that the pods of one node share: size, addresses, images, and slots for starting pods."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pilothouse_simulator.nodes.node_objects import NodeShape, image_size
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock

_STARTS_AT_ONCE = 24
_FIRST_IMAGES = frozenset({"busybox:1", "registry.k8s.io/pause:3.10"})


@dataclass(frozen=True)
class Timings:
    """The durations of a kubelet's steps in simulated seconds; about as recorded from a real kubelet, or shorter."""

    sandbox: float = 0.2
    pull: float = 0.15
    create: float = 0.01
    start: float = 0.05
    notice: float = 0.25
    show_back_off: float = 1.0
    end_back_off: float = 0.0
    stop: float = 0.08
    remove: float = 0.3


class AddressPool:
    """The pod addresses of the whole cluster: 10.244.0.0/16, allocated round robin."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._next = 0

    def take(self) -> str:
        """Allocates a free address. Raises RuntimeError if none is left."""
        for _ in range(65_534):
            self._next = self._next % 65_534 + 1
            if self._next not in self._taken:
                self._taken.add(self._next)
                return f"10.244.{self._next >> 8}.{self._next & 255}"
        raise RuntimeError("no pod address is left")

    def keep(self, address: str) -> None:
        """Marks an address of a restored pod as taken."""
        self._taken.add(self._number(address))

    def give_back(self, address: str) -> None:
        """Releases an address."""
        self._taken.discard(self._number(address))

    @staticmethod
    def _number(address: str) -> int:
        third, fourth = address.split(".")[2:]
        return int(third) * 256 + int(fourth)


class SimulatedNode:
    """One node, with the resources that its pods share."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        recorder: EventRecorder,
        shape: NodeShape,
        addresses: AddressPool,
        timings: Timings,
    ) -> None:
        self.store = store
        self.clock = clock
        self.recorder = recorder
        self.shape = shape
        self.addresses = addresses
        self.timings = timings
        self.start_slots = asyncio.Semaphore(_STARTS_AT_ONCE)
        self.images: set[str] = set(_FIRST_IMAGES)
        self.images_changed = False
        self.away = False
        self.started_at = clock.now()

    @property
    def name(self) -> str:
        return self.shape.name

    @property
    def ip(self) -> str:
        return self.shape.ip

    @property
    def memory_bytes(self) -> int:
        return self.shape.memory_bytes

    def has_image(self, image: str) -> bool:
        """Returns whether the image has been pulled before."""
        return image in self.images

    def add_image(self, image: str) -> int:
        """Records a pulled image and returns its size in bytes."""
        if image not in self.images:
            self.images.add(image)
            self.images_changed = True
        return image_size(image)
