"""Creates or changes many containers in one transaction, with few statements.

The number of statements does not depend on the number of containers. Each new container is checked by the rules of a
single create, as if the ones before it existed. Each change is checked by the rules of a single change, as if the other
changes were not made. The write checks the facts of each again. This module does not track all facts from one container
to the next, for example not storage and Services of a quota. If such a fact no longer holds, the write refuses all
containers. So a caller that is refused writes the containers one by one, which finds the exact error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from pilothouse_server.authorization.access import May
from pilothouse_server.containers import admission, repository, rules
from pilothouse_server.containers.changes import marked, mounted, refuse_deleting
from pilothouse_server.containers.model import Container
from pilothouse_server.containers.namespace_limits import refuse_exceeded_numbers, refuse_unfit
from pilothouse_server.containers.operations import Caller, admitted_change, admitted_creation, event
from pilothouse_server.containers.repository import ContainerChange, Creation, ReadOnce
from pilothouse_server.errors import not_found
from pilothouse_server.guard.model import Keys
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.resources import ObjectWarning


async def create_many(
    transaction: Transaction, namespace_name: str, wanted: Sequence[Container], *, keys: Keys, may: May
) -> list[tuple[Container, list[ObjectWarning]]]:
    """Creates containers in a transaction that holds the namespace's row; returns each with its warnings.

    Raises as `operations.create` does; the caller must then roll back, so that no container is written.
    """
    checked = [rules.checked(rules.with_pod_labels(each)) async for each in cooperatively(wanted)]
    needed = [(each.name, admission.needs_of(each, None)) async for each in cooperatively(checked)]
    facts = await repository.admit_many(transaction, namespace_name, needed)
    if facts is None:
        raise not_found("namespace", namespace_name)
    reader, services, used = ReadOnce(transaction), dict[str, str | None](), facts[0].used
    made: list[tuple[Creation, list[ObjectWarning]]] = []
    async for number, each in cooperatively(enumerate(checked)):
        needs, warnings = needed[number][1], list[ObjectWarning]()
        found = msgspec.structs.replace(
            facts[number].found,
            services={
                **facts[number].found.services,
                **{name: services[name] for name in needs.services if name in services},
            },
        )
        admitted = msgspec.structs.replace(facts[number], used=used, found=found)
        caller = Caller(transaction.actor, may, keys, warnings)
        creation = admitted_creation(admitted, each, needs, caller)
        await refuse_unfit(reader, namespace_name, creation.container, None)
        most = await refuse_exceeded_numbers(reader, namespace_name, each, None)
        made.append((msgspec.structs.replace(creation, most=most), warnings))
        services |= dict.fromkeys(needs.services, each.name)
        used = (used[0] + 1, used[1] + creation.share[0], used[2] + creation.share[1])
    await repository.write_many(transaction, [creation for creation, _ in made])
    for creation, _ in made:
        transaction.emit(event(creation.container, "added"))
        transaction.follow_up |= creation.follow_up
    return [(creation.container, warnings) for creation, warnings in made]


async def change_many(
    transaction: Transaction,
    namespace_name: str,
    merges: Mapping[str, Callable[[Container], Container]],
    *,
    keys: Keys,
    may: May,
) -> dict[str, tuple[Container, list[ObjectWarning]]]:
    """Changes containers in a transaction that holds the namespace's row; returns each with its warnings, by name.

    `merges`: functions that return the stored container with the caller's fields. Raises as `operations.change` does;
    the caller must then roll back, so that no container is written.
    """
    admitted = await repository.admit_changes(transaction, namespace_name, list(merges))
    changed: dict[str, tuple[Container, list[ObjectWarning]]] = {}
    changes: list[ContainerChange] = []
    async for facts in cooperatively(admitted):
        name, warnings = facts.stored.name, list[ObjectWarning]()
        refuse_deleting(facts.stored)
        wanted = merges[name](facts.stored)
        change = await admitted_change(transaction, facts, wanted, keys=keys, may=may, collected=warnings)
        if change is not None:
            changes.append(change)
        changed[name] = (facts.stored if change is None else change.written, warnings)
    for name in merges:
        if name not in changed:
            raise not_found("container", name)
    await repository.write_changes(transaction, changes)
    for change in changes:
        transaction.emit(event(change.written, "modified", change.stored))
    return changed


async def delete_many(
    transaction: Transaction, namespace_name: str, names: Sequence[str]
) -> dict[str, Container]:
    """Marks containers for deletion in a transaction that holds the namespace's row; returns them by their names.

    Raises as `operations.delete` does.
    """
    admitted = await repository.admit_changes(transaction, namespace_name, names)
    found = {each.stored.name: each.stored for each in admitted}
    for name in names:
        if name not in found:
            raise not_found("container", name)
    changes = [
        msgspec.structs.replace(change, mounted=mounted(facts.stored))
        async for facts in cooperatively(admitted)
        if (change := marked(facts.stored, facts.moment)) is not None
    ]
    await repository.write_changes(transaction, changes)
    for change in changes:
        transaction.emit(event(change.written, "modified", change.stored))
        found[change.written.name] = change.written
    return found
