"""The preconditions of a simulated container: its volumes, its image, its configuration.

If one of them is missing, the kubelet reports it and checks again until it exists. A missing volume source is reported
only by the event FailedMount. In the other cases the container waits with a reason, which the status shows from the
second attempt on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilothouse_simulator.nodes.node_pod import NodePod
from pilothouse_simulator.nodes.pod_containers import RunningContainer
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.pod_behavior import pull_failure
from pilothouse_simulator.values.resources import CONFIG_MAPS, SECRETS, ResourceType

JsonObject = dict[str, Any]

_FIRST_BACK_OFF_SECONDS = 10
_LONGEST_BACK_OFF_SECONDS = 300
_SYNC_SECONDS = 10.5
_FIRST_MOUNT_SECONDS, _MOUNT_PAUSE_SECONDS, _LONGEST_MOUNT_PAUSE_SECONDS = 0.15, 0.5, 122.0


@dataclass(frozen=True)
class PodRefusal:
    """The reason and message of the state of a container that is not created, and the accompanying warning events."""

    reason: str
    message: str
    events: tuple[tuple[str, str], ...]


async def mount_volumes(pod: NodePod) -> None:
    """Waits until the config maps and secrets of the pod's volumes exist."""
    clock, pause, first = pod.node.clock, _MOUNT_PAUSE_SECONDS, True
    while (missing := _missing_volume(pod.node.store, pod.object)) is not None:
        if first:
            await clock.sleep(_FIRST_MOUNT_SECONDS)
            first = False
        volume, why = missing
        pod.pod_event("FailedMount", f'MountVolume.SetUp failed for volume "{volume}" : {why}', warning=True)
        await clock.sleep(pause)
        pause = min(2 * pause, _LONGEST_MOUNT_PAUSE_SECONDS)


async def prepare(pod: NodePod, container: RunningContainer) -> None:
    """Waits until a container can be created: its image and configuration exist."""
    attempts = 0
    while True:
        refusal = _image_refusal(pod, container.spec)
        if refusal is None:
            await _pull(pod, container)
            refusal = _configuration_refusal(pod.node.store, pod.object, container.spec)
            if refusal is None:
                return
        for reason, message in refusal.events:
            pod.event(container, reason, message, warning=True)
        attempts += 1
        if attempts > 1:
            container.waiting = (refusal.reason, refusal.message)
            pod.publish()
        await pod.node.clock.sleep(pod.node.timings.notice if attempts == 1 else _SYNC_SECONDS)


async def _pull(pod: NodePod, container: RunningContainer) -> None:
    """Makes sure that the image exists. If it cannot be pulled, retries forever with growing pauses."""
    image, clock, timings = container.spec["image"], pod.node.clock, pod.node.timings
    pause = _FIRST_BACK_OFF_SECONDS
    while (failure := pull_failure(pod.behavior, image)) is not None:
        pod.event(container, "Pulling", f'Pulling image "{image}"')
        await clock.sleep(timings.create)
        message = f'Failed to pull image "{image}": {failure}'
        pod.event(container, "Failed", message, warning=True)
        pod.event(container, "Failed", "Error: ErrImagePull", warning=True)
        container.waiting = ("ErrImagePull", failure)
        pod.publish()
        await clock.sleep(timings.show_back_off)
        pod.event(container, "BackOff", f'Back-off pulling image "{image}"')
        pod.event(container, "Failed", "Error: ImagePullBackOff", warning=True)
        message = f'Back-off pulling image "{image}": ErrImagePull: {failure}'
        container.waiting = ("ImagePullBackOff", message)
        pod.publish()
        await clock.sleep(pause + timings.end_back_off)
        pause = min(pause * 2, _LONGEST_BACK_OFF_SECONDS)
    if pod.node.has_image(image) and container.spec.get("imagePullPolicy") != "Always":
        message = f'Container image "{image}" already present on machine and can be accessed by the pod'
        pod.event(container, "Pulled", message)
        return
    pod.event(container, "Pulling", f'Pulling image "{image}"')
    await clock.sleep(timings.pull)
    size = pod.node.add_image(image)
    took = f"{int(timings.pull * 1000)}ms"
    pod.event(
        container,
        "Pulled",
        f'Successfully pulled image "{image}" in {took} ({took} including waiting). '
        f"Image size: {size} bytes.",
    )


def _image_refusal(pod: NodePod, spec: JsonObject) -> PodRefusal | None:
    image = spec["image"]
    if not _is_reference(image):
        message = (
            f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": '
            "invalid reference format"
        )
        events = (("InspectFailed", message), ("Failed", "Error: InvalidImageName"))
        return PodRefusal("InvalidImageName", message, events)
    if spec.get("imagePullPolicy") == "Never" and not pod.node.has_image(image):
        message = f'Container image "{image}" is not present with pull policy of Never'
        events = (("ErrImageNeverPull", message), ("Failed", "Error: ErrImageNeverPull"))
        return PodRefusal("ErrImageNeverPull", message, events)
    return None


def _is_reference(image: str) -> bool:
    """Returns whether the name of an image is valid: lower case, no blanks, at most one tag."""
    name, _, digest = image.partition("@")
    host, slash, path = name.partition("/")
    repository = path if slash else host
    return (
        bool(repository)
        and not any(character.isspace() for character in image)
        and repository.count(":") <= 1
        and repository.partition(":")[0] == repository.partition(":")[0].lower()
        and (not digest or ":" in digest)
    )


def _configuration_refusal(store: ObjectStore, pod: JsonObject, spec: JsonObject) -> PodRefusal | None:
    """Returns the refusal for the first missing config map, secret or key that the environment needs."""
    namespace = pod["metadata"]["namespace"]
    for source in spec.get("envFrom") or []:
        for field, resource in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
            if field in source and (why := _missing(store, resource, namespace, source[field])):
                return _configuration_error(why)
    for variable in spec.get("env") or []:
        origin = variable.get("valueFrom") or {}
        for field, resource in (("configMapKeyRef", CONFIG_MAPS), ("secretKeyRef", SECRETS)):
            if field in origin and (why := _missing(store, resource, namespace, origin[field])):
                return _configuration_error(why)
    return None


def _configuration_error(why: str) -> PodRefusal:
    return PodRefusal("CreateContainerConfigError", why, (("Failed", f"Error: {why}"),))


def _missing(store: ObjectStore, resource: ResourceType, namespace: str, reference: JsonObject) -> str:
    """Returns why a reference cannot be resolved; empty if it can, or if it is optional."""
    name, key = reference.get("name", ""), reference.get("key")
    if reference.get("optional"):
        return ""
    found = store.get(resource, namespace, name)
    if found is None:
        return f'{resource.kind.lower()} "{name}" not found'
    if key is not None and key not in {**(found.get("data") or {}), **(found.get("binaryData") or {})}:
        return f"couldn't find key {key} in {resource.kind} {namespace}/{name}"
    return ""


def _missing_volume(store: ObjectStore, pod: JsonObject) -> tuple[str, str] | None:
    """Returns the first volume whose source does not exist, and the reason."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or []:
        sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
        for source in sources:
            for field, resource in (("configMap", CONFIG_MAPS), ("secret", SECRETS)):
                reference = source.get(field)
                if reference is None or reference.get("name") == "kube-root-ca.crt":
                    continue
                named = {**reference, "name": reference.get("name") or reference.get("secretName") or ""}
                items = [named, *({**named, "key": item["key"]} for item in reference.get("items") or [])]
                why = next((why for item in items if (why := _missing(store, resource, namespace, item))), "")
                if why:
                    return volume["name"], why
    return None
