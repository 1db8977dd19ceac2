"""Whether a whole file fits into its namespace's quota, counted as the server counts.

A container's share is the request of a pod (`pod_request`, as on the server) times its replicas. The steps are
counted in the order in which they will be taken, because the server refuses the first one that does not fit then.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_client.apply.canonical import amount
from pilothouse_client.apply.plan import Step
from pilothouse_manifests.pod_requests import pod_request
from pilothouse_manifests.translator.problems import InputProblem, Problems

_RESOURCES = ("containers", "cpu", "memory")


def check_quota(
    steps: Iterable[Step],
    usage: namespace_pb2.GetQuotaUsageResponse,
    refused: Iterable[str],
    problems: Problems,
) -> None:
    """Adds a problem for the first step that does not fit together with those before it. `refused`: subjects of steps
    that have a problem already, and are not counted.
    """
    left_out = set(refused)
    limits = _amounts(usage.quota)
    total = _amounts(usage.used)
    for step in steps:
        if step.subject in left_out:
            continue
        for resource, more in zip(_RESOURCES, _growth(step), strict=True):
            total[resource] += more
            limit = limits[resource]
            if more > 0 and limit and total[resource] > limit:
                words = (
                    f"exceeds the namespace's quota together with the rest of the file: {resource} "
                    f"{_shown(usage.used, resource)} used, {_shown(usage.quota, resource)} allowed"
                )
                problems.add(InputProblem(step.wanted.place, step.subject, "", words))
                return


def shrinks(step: Step) -> bool:
    """Whether a step leaves more of the quota than there was."""
    return any(more < 0 for more in _growth(step))


def _growth(step: Step) -> tuple[Decimal, ...]:
    if step.before is None:
        return tuple(_share(step.container))
    if not step.update_mask:
        return (Decimal(0),) * len(_RESOURCES)
    after = pb.Container()
    after.CopyFrom(step.before)
    FieldMask(paths=step.update_mask).MergeMessage(step.container, after, True, True)
    return tuple(new - old for new, old in zip(_share(after), _share(step.before), strict=True))


def _share(container: pb.Container) -> tuple[Decimal, ...]:
    running = (container.resources, *(each.resources for each in container.sidecars))
    starting = tuple((each.resources, each.restart_policy == "Always") for each in container.init_containers)
    replicas = container.replicas if container.HasField("replicas") else 1
    whole, shares = container.pod_resources, [Decimal(1)]
    for count, resource in ((_cpu, "cpu"), (_memory, "memory")):
        starts = ((count(each), stays) for each, stays in starting)
        of_programs = pod_request(map(count, running), starts, Decimal(0))
        requested = getattr(whole, f"{resource}_request") or whole.requests.get(resource)
        share = count(whole) if requested else of_programs or count(whole)
        shares.append(share * replicas)
    return tuple(shares)


def _cpu(resources: pb.Resources) -> Decimal:
    requests, limits = resources.requests, resources.limits
    asked = resources.cpu_request or requests.get("cpu") or resources.cpu_limit or limits.get("cpu", "")
    return _number(asked, "0.001")


def _memory(resources: pb.Resources) -> Decimal:
    asked = resources.memory_request or resources.requests.get("memory")
    return _number(asked or resources.memory_limit or resources.limits.get("memory", ""), "1")


def _amounts(quota: namespace_pb2.ResourceQuota) -> dict[str, Decimal]:
    return {
        "containers": Decimal(quota.containers),
        "cpu": _number(quota.cpu, "0.001"),
        "memory": _number(quota.memory, "1"),
    }


def _number(text: str, smallest: str) -> Decimal:
    """A text that cannot be read counts nothing: the trial of its container has reported it."""
    plain = amount(text, smallest)
    return Decimal(plain) if plain.replace(".", "", 1).isdigit() else Decimal(0)


def _shown(quota: namespace_pb2.ResourceQuota, resource: str) -> str:
    return str(getattr(quota, resource)) or "0"
