"""The behaviour of a simulated pod, read from the annotations of the pod (usually set in its template).

`simulate.pilothouse.dev/behavior` is one of `run` (default), `crash-loop`, `image-pull-error`, `oom`, `unschedulable`,
`exit:<code>`, `readiness-failing` and `start-error`. `…/cpu` and `…/memory` (quantities) set the usage level of each
main container, and `…/start-seconds` sets the time until a container serves.

Two failures need no behaviour annotation: an image on a host under the reserved top-level domain `.invalid` cannot be
pulled, and a memory level above the container's limit ends in an OOM kill. An invalid value is ignored, because a
cluster never refuses a pod for an annotation.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from pilothouse_simulator.values.quantities import parse_quantity

JsonObject = dict[str, Any]

PREFIX = "simulate.pilothouse.dev/"
_INDEX = "batch.kubernetes.io/job-completion-index"
_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"


class Behavior(StrEnum):
    """The behaviour of the pod."""

    RUN = "run"
    CRASH_LOOP = "crash-loop"
    IMAGE_PULL_ERROR = "image-pull-error"
    OOM = "oom"
    UNSCHEDULABLE = "unschedulable"
    EXIT = "exit"
    READINESS_FAILING = "readiness-failing"
    START_ERROR = "start-error"


@dataclass(frozen=True)
class PodBehavior:
    """The behaviour of a pod: `cpu` in cores, `memory` in bytes (None: from the requests), `start_seconds` in simulated
    seconds.

    `variables` are the environment variables that scripts may use: the completion index of a pod of an indexed Job.
    """

    kind: Behavior = Behavior.RUN
    explicit: bool = False
    exit_code: int = 0
    cpu: Decimal | None = None
    memory: Decimal | None = None
    start_seconds: float = 0.0
    variables: tuple[tuple[str, str], ...] = ()


def behavior_of(pod: JsonObject) -> PodBehavior:
    """Returns the behaviour in the pod's annotations."""
    annotations = pod["metadata"].get("annotations") or {}
    text = annotations.get(PREFIX + "behavior", "").strip().lower()
    kind, code = Behavior.RUN, 0
    if text.startswith("exit"):
        kind = Behavior.EXIT
        number = text.partition(":")[2]
        code = int(number) if number.isdigit() else 0
    elif text in set(Behavior):
        kind = Behavior(text)
    start = _quantity(annotations.get(PREFIX + "start-seconds"))
    return PodBehavior(
        kind=kind,
        explicit=bool(text),
        exit_code=code,
        cpu=_quantity(annotations.get(PREFIX + "cpu")),
        memory=_quantity(annotations.get(PREFIX + "memory")),
        start_seconds=float(start) if start is not None else 0.0,
        variables=((_INDEX_VARIABLE, annotations[_INDEX]),) if _INDEX in annotations else (),
    )


def _quantity(text: str | None) -> Decimal | None:
    if not text:
        return None
    try:
        amount = parse_quantity(text)
    except ValueError:
        return None
    return amount if amount >= 0 else None


def pull_failure(behavior: PodBehavior, image: str) -> str | None:
    """Returns why an image cannot be pulled, with the container runtime's message; None if it can be pulled."""
    reference = image if ":" in image.rpartition("/")[2] or "@" in image else image + ":latest"
    host, _, path = reference.partition("/")
    host_is_registry = bool(path) and ("." in host or ":" in host or host == "localhost")
    unresolvable = host_is_registry and host.partition(":")[0].endswith(".invalid")
    if behavior.kind is not Behavior.IMAGE_PULL_ERROR and not unresolvable:
        return None
    if not host_is_registry:
        host, path = "docker.io", reference if "/" in reference else f"library/{reference}"
        reference = f"{host}/{path}"
    repository, _, tag = path.rpartition(":")
    request = f'Head "https://{host}/v2/{repository}/manifests/{tag}"'
    resolution = f"dial tcp: lookup {host} on 10.96.0.10:53: no such host"
    return (
        f'failed to pull and unpack image "{reference}": failed to resolve reference "{reference}": '
        f"failed to do request: {request}: {resolution}"
    )
