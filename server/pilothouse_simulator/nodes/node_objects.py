"""The nodes of the simulated cluster: their size, and the Node objects that describe them.

Nodes are large by default, so that thousands of pods fit on a few nodes. The status of each Node object has its
addresses, conditions and image list. Like a real kubelet, the simulated one renews the heartbeat of the conditions
every few minutes, and the image list when it has changed.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from pilothouse_simulator.nodes.pod_status import qualified_image
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.json_copy import copy_json
from pilothouse_simulator.values.resources import NODES

JsonObject = dict[str, Any]

KUBERNETES_VERSION = "v1.36.2"
_SHORTAGES = (
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


@dataclass(frozen=True)
class NodeShape:
    """A node's name and capacity: cores, bytes of memory, number of pods."""

    name: str
    ip: str
    cores: int = 64
    memory_bytes: int = 256 * 2**30
    pods: int = 2500
    labels: tuple[tuple[str, str], ...] = ()


def default_shapes(count: int) -> list[NodeShape]:
    """Returns `count` nodes of the default size, named `node-0`, `node-1`, …."""
    return [
        NodeShape(f"node-{number}", f"10.200.{number // 250}.{number % 250 + 2}") for number in range(count)
    ]


def image_size(image: str) -> int:
    """Returns a plausible and stable size of an image, in bytes."""
    digest = hashlib.sha256(image.encode()).digest()
    return 4_000_000 + int.from_bytes(digest[:4], "big") % 120_000_000


def register(store: ObjectStore, shape: NodeShape, images: set[str]) -> JsonObject:
    """Creates the Node object, or returns the existing one."""
    existing = store.get(NODES, None, shape.name)
    if existing is not None:
        return existing
    now = format_time(store.now())
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": shape.name,
        "kubernetes.io/os": "linux",
        **dict(shape.labels),
    }
    amounts = {
        "cpu": str(shape.cores),
        "ephemeral-storage": "262144000Ki",
        "hugepages-2Mi": "0",
        "memory": f"{shape.memory_bytes // 1024}Ki",
        "pods": str(shape.pods),
    }
    # Derived from the node name, so that a node keeps its identifier across restarts.
    machine = uuid.uuid5(uuid.NAMESPACE_DNS, shape.name)
    status = {
        "capacity": amounts,
        "allocatable": dict(amounts),
        "conditions": _good_conditions(now),
        "addresses": [
            {"type": "InternalIP", "address": shape.ip},
            {"type": "Hostname", "address": shape.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": machine.hex,
            "systemUUID": str(machine),
            "bootID": str(uuid.uuid5(machine, "boot")),
            "kernelVersion": "6.12.0-simulated",
            "osImage": "Pilothouse simulated node",
            "containerRuntimeVersion": "containerd://1.7.27",
            "kubeletVersion": KUBERNETES_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
        "images": image_list(images),
    }
    node = {"metadata": {"name": shape.name, "labels": labels}, "spec": {}, "status": status}
    return store.create(NODES, node, manager="kubelet")


def _good_conditions(now: str) -> list[JsonObject]:
    facts = [(kind, "False", reason, message) for kind, reason, message in _SHORTAGES]
    facts.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    return [
        {
            "type": kind,
            "status": status,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": message,
        }
        for kind, status, reason, message in facts
    ]


def show_ready(store: ObjectStore, name: str) -> None:
    """Sets the conditions of a node whose kubelet is back to healthy."""
    node = copy_json(store.get(NODES, None, name))
    if node is not None:
        node["status"]["conditions"] = _good_conditions(format_time(store.now()))
        store.update_status(NODES, node, "kubelet")


def image_list(images: set[str]) -> list[JsonObject]:
    """Returns the `status.images` of a node: the largest first, at most fifty."""
    entries = [
        {"names": [qualified_image(image)], "sizeBytes": image_size(image)} for image in sorted(images)
    ]
    entries.sort(key=lambda entry: -int(str(entry["sizeBytes"])))
    return entries[:50]


def heartbeat(store: ObjectStore, name: str, images: set[str]) -> None:
    """Renews the heartbeat times and the image list of a node."""
    node = store.get(NODES, None, name)
    if node is None:
        return
    changed = copy_json(node)
    now = format_time(store.now())
    for condition in changed["status"].get("conditions") or []:
        condition["lastHeartbeatTime"] = now
    changed["status"]["images"] = image_list(images)
    store.update_status(NODES, changed, "kubelet")
