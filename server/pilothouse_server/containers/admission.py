"""What the state of the namespace must allow before a container is written.

Quota, service names, sources, volumes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pilothouse_server.containers import repository, rules
from pilothouse_server.containers.model import Container
from pilothouse_server.errors import Aborted, AlreadyExists, ResourceExhausted
from pilothouse_server.namespaces import operations as namespaces
from pilothouse_server.namespaces.model import Namespace, Quota
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.quantity import Quantity


async def locked_namespace(transaction: Transaction, name: str) -> Namespace:
    """The namespace, kept from deletion; locked against other creates only if a quota must be counted.

    The lock is taken once, in the strength that is needed: two that both held the weaker one and asked for
    the stronger would wait for each other.

    Raises:
        NotFound: there is none.
        Aborted: it was given a quota at this very moment; try again.
    """
    seen = await namespaces.locate(transaction, name)
    lock: Literal["share", "update"] = "share" if seen.quota == Quota() else "update"
    namespace = await namespaces.locate(transaction, name, lock)
    if lock == "share" and namespace.quota != Quota():
        raise Aborted(
            f'namespace "{name}" was changed at the same time, try again',
            reason="CONCURRENT_CHANGE",
            retry_after_seconds=0.1,
        )
    return namespace


async def check_references(transaction: Transaction, wanted: Container) -> None:
    """Services that others have, and sources and volumes that are not there."""
    leave_out = wanted.id or None
    services = {port.service_name for port in wanted.ports if port.service_name}
    if services:
        taken = await repository.taken_services(
            transaction, wanted.namespace_id, services, leave_out=leave_out
        )
        for service, owner in taken.items():
            raise AlreadyExists(
                f'service "{service}" already exists: it belongs to container "{owner}"',
                reason="SERVICE_ALREADY_EXISTS",
                metadata={"service": service, "container": owner},
            )
    found = rules.Findings()
    env = [(f"container.env[{i}]", item) for i, item in enumerate(wanted.env)]
    mounts = [(f"container.volume_mounts[{i}]", item) for i, item in enumerate(wanted.volume_mounts)]
    for number, init in enumerate(wanted.spec.init_containers):
        at = f"container.init_containers[{number}]"
        env += [(f"{at}.env[{i}]", item) for i, item in enumerate(init.env)]
        mounts += [(f"{at}.volume_mounts[{i}]", item) for i, item in enumerate(init.volume_mounts)]
    for kind, words in (("config_map", "config map"), ("secret", "secret")):
        needed = {item.source_name for _, item in env if item.value_from == kind and not item.optional}
        missing = await repository.missing_sources(transaction, wanted.namespace_id, kind, needed)
        for field, item in env:
            if item.value_from == kind and item.source_name in missing:
                found.add(f"{field}.source_name", "exists", f'there is no {words} "{item.source_name}" here')
    dirs = {item.name for item in wanted.spec.empty_dirs}
    volumes = {item.volume for _, item in mounts} - dirs
    missing = await repository.missing_sources(transaction, wanted.namespace_id, "volume", volumes)
    for field, mount in mounts:
        if mount.volume in missing:
            found.add(
                f"{field}.volume",
                "exists",
                f'"{mount.volume}" is neither an empty_dir nor a volume of the namespace',
            )
    found.raise_if_any()


async def check_quota(
    transaction: Transaction, namespace: Namespace, share: tuple[int, int], *, leave_out: int | None
) -> None:
    """Raises ResourceExhausted if a container's share (millicores, bytes) does not fit beside the
    others'.
    """
    quota = namespace.quota
    if quota == Quota():
        return
    count, cpu, memory = await repository.usage_of_quota(transaction, namespace.id, leave_out=leave_out)
    limits: Sequence[tuple[str, int, int, int, Callable[[int], str]]] = (
        ("containers", quota.containers, count, 1, str),
        ("cpu", _millicores(quota.cpu), cpu, share[0], lambda n: Quantity.from_millicores(n).text),
        ("memory", _bytes(quota.memory), memory, share[1], lambda n: Quantity.from_bytes(n).text),
    )
    for name, limit, used, asked, shown in limits:
        if limit and asked and used + asked > limit:
            raise ResourceExhausted(
                f'quota of namespace "{namespace.name}" exceeded: {name} {shown(used)} used, '
                f"{shown(asked)} asked, {shown(limit)} allowed",
                reason="QUOTA_EXCEEDED",
                metadata={
                    "resource": name,
                    "limit": shown(limit),
                    "used": shown(used),
                    "asked": shown(asked),
                },
            )


def _millicores(text: str) -> int:
    return Quantity.parse(text).millicores if text else 0


def _bytes(text: str) -> int:
    return Quantity.parse(text).whole if text else 0
