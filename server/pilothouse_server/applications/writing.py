"""Writes the objects of an application with the operations of their nouns, in one transaction and as one caller.

The nouns' own calls use the same operations with the same rights, so an apply may do exactly the writes that its
caller may do object by object. The operations lock the namespace's row again, which the transaction has locked
already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, Literal

import msgspec

from pilothouse_server.applications.comparison import ComparedObject
from pilothouse_server.applications.model import MemberKey, WantedObject
from pilothouse_server.applications.rights import NounRights
from pilothouse_server.authorization.access import May
from pilothouse_server.config.operations import config_maps, configs, secrets
from pilothouse_server.containers.many import change_many as change_containers
from pilothouse_server.containers.many import create_many as create_containers
from pilothouse_server.containers.many import delete_many as delete_containers
from pilothouse_server.containers.operations import change as change_container
from pilothouse_server.containers.operations import create as create_container
from pilothouse_server.containers.operations import delete as delete_container
from pilothouse_server.containers.operations import run as run_container
from pilothouse_server.network.operations import change as change_service
from pilothouse_server.network.operations import change_many as change_services
from pilothouse_server.network.operations import create as create_service
from pilothouse_server.network.operations import create_many as create_services
from pilothouse_server.network.operations import delete as delete_service
from pilothouse_server.network.operations import delete_many as delete_services
from pilothouse_server.objects.many import change_many as change_objects
from pilothouse_server.objects.many import create_many as create_objects
from pilothouse_server.objects.many import delete_many as delete_objects
from pilothouse_server.objects.model import ObjectKey
from pilothouse_server.objects.operations import change as change_object
from pilothouse_server.objects.operations import create as create_object
from pilothouse_server.objects.operations import delete as delete_object
from pilothouse_server.storage.operations import change as change_volume
from pilothouse_server.storage.operations import create as create_volume
from pilothouse_server.storage.operations import create_many as create_volumes
from pilothouse_server.storage.operations import delete as delete_volume
from pilothouse_server.storage.rules import HOST_PATH_PERMISSION
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.resources import ObjectWarning

# Nouns whose operations change and delete any number of objects with few statements.
TOGETHER: Final = frozenset({"config_map", "container", "object", "secret", "service"})


class WrittenObject(msgspec.Struct, frozen=True):
    """An object that was written, as it is stored now. `before`: as it was before an update.

    `secrets`: for a secret, the paths of changed values; for each path, whether it existed before, and exists now.
    """

    key: MemberKey
    action: Literal["create", "update", "delete"]
    after: Any
    before: Any = None
    secrets: Mapping[str, tuple[bool, bool]] | None = None


class ObjectWriter:
    """Writes objects of one namespace; `may` checks the permissions of the caller there.

    Every method raises the errors of the noun's own call. Warnings about written objects are added to `collected`.
    """

    def __init__(self, transaction: Transaction, namespace: str, rights: NounRights, may: May) -> None:
        self._transaction = transaction
        self._namespace = namespace
        self._rights = rights
        self._may = may
        self._noted: list[ObjectWarning] = []
        self.collected: list[ObjectWarning] = []

    def _name_warnings(self, wanted: WantedObject) -> None:
        """Moves the warnings about the object written last to `collected`, with its kind and name."""
        subject = f"{wanted.kind}/{wanted.key.name}"
        self.collected += [
            msgspec.structs.replace(each, path=f"{subject}: {each.path}" if each.path else subject)
            for each in self._noted
        ]
        self._noted.clear()

    def attempt(self) -> AbstractAsyncContextManager[None]:
        """Returns a savepoint: a part of the transaction that is undone if it raises."""
        return self._transaction.attempt()

    async def create(self, wanted: WantedObject) -> WrittenObject:
        """Creates an object."""
        where = (self._transaction, self._namespace, wanted.value)
        effect, may = self._rights.effect(self._may), self._may
        created: Any
        match wanted.key.noun:
            case "container":
                created = await create_container(
                    *where, keys=self._rights.keys, may=may, collected=self._noted
                )
            case "service":
                created = await create_service(*where, rights=self._rights.services(may))
            case "object":
                mutation = await create_object(*where, rights=self._rights.objects(may), default_policy=True)
                self._noted += mutation.warnings
                created = mutation.carried
            case "volume":
                created = await create_volume(
                    *where,
                    labelling=self._rights.labelling(may),
                    may_use_host_paths=may(HOST_PATH_PERMISSION),
                )
            case "config_map":
                created = await config_maps.create(*where, effect)
            case "secret":
                created = await secrets.create(*where, self._rights.envelopes, effect)
        self._name_warnings(wanted)
        return WrittenObject(wanted.key, "create", created)

    async def create_many(self, wanted: Sequence[WantedObject]) -> list[WrittenObject]:
        """Creates objects of one noun and one kind, all or none."""
        where = (self._transaction, self._namespace, [each.value for each in wanted])
        effect, may = self._rights.effect(self._may), self._may
        created: Mapping[str, Any]
        warnings: Mapping[str, Sequence[ObjectWarning]] = {}
        match wanted[0].key.noun:
            case "container":
                containers = await create_containers(*where, keys=self._rights.keys, may=may)
                created = {each.name: each for each, _ in containers}
                warnings = {each.name: noted for each, noted in containers}
            case "service":
                created = await create_services(*where, rights=self._rights.services(may))
            case "object":
                objects = await create_objects(*where, rights=self._rights.objects(may))
                created = {name: each.carried for name, each in objects.items()}
                warnings = {name: each.warnings for name, each in objects.items()}
            case "volume":
                created = await create_volumes(
                    *where,
                    labelling=self._rights.labelling(may),
                    may_use_host_paths=may(HOST_PATH_PERMISSION),
                )
            case "config_map":
                created = await config_maps.create_many(*where, effect)
            case "secret":
                created = await secrets.create_many(*where, self._rights.envelopes, effect)
        self._note(wanted, warnings)
        return [WrittenObject(each.key, "create", created[each.key.name]) for each in wanted]

    def _note(self, wanted: Sequence[WantedObject], warnings: Mapping[str, Sequence[ObjectWarning]]) -> None:
        for each in wanted:
            self._noted += warnings.get(each.key.name, ())
            self._name_warnings(each)

    async def update(self, compared: ComparedObject, stored: Any) -> WrittenObject:
        """Changes the fields of an object that the plan names."""
        key, merge, may = compared.wanted.key, compared.merge, self._may
        effect = self._rights.effect(may)
        where = (self._transaction, self._namespace)
        after: Any
        changed_secrets: dict[str, tuple[bool, bool]] | None = None
        match key.noun:
            case "container":
                after = await change_container(
                    *where,
                    key.name,
                    _given(merge),
                    _unchecked,
                    keys=self._rights.keys,
                    may=may,
                    collected=self._noted,
                )
            case "service":
                after = await change_service(
                    *where, key.name, _given(merge), _unchecked, rights=self._rights.services(may)
                )
            case "object":
                mutation = await change_object(
                    *where,
                    object_key(key, stored),
                    _given(merge),
                    _unchecked,
                    rights=self._rights.objects(may),
                )
                self._noted += mutation.warnings
                after = mutation.carried
            case "volume":
                after = await change_volume(
                    *where, key.name, _given(merge), _unchecked, labelling=self._rights.labelling(may)
                )
            case "config_map":
                changed = await config_maps.change(*where, key.name, _given(merge), _unchecked, effect=effect)
                after = changed.config
            case "secret":
                assert compared.asked is not None, "a secret is changed only by its document"
                changed_secret = await secrets.change(
                    *where, key.name, compared.asked, self._rights.envelopes, _unchecked, effect=effect
                )
                after = changed_secret.config
                keys = changed_secret.secret_keys
                changed_secrets = {f"data.{name}": there for name, there in keys.items()}
        self._name_warnings(compared.wanted)
        return WrittenObject(key, "update", after, stored, changed_secrets)

    async def update_many(
        self, compared: Sequence[ComparedObject], stored: Mapping[MemberKey, Any]
    ) -> list[WrittenObject]:
        """Changes objects of one noun of `TOGETHER` and one kind as `update` does, all or none."""
        where, wanted = (self._transaction, self._namespace), [each.wanted for each in compared]
        effect, may = self._rights.effect(self._may), self._may
        after: Mapping[str, Any]
        warnings: Mapping[str, Sequence[ObjectWarning]] = {}
        secret_keys: dict[str, dict[str, tuple[bool, bool]]] = {}
        match wanted[0].key.noun:
            case "container":
                made = await change_containers(*where, _merges(compared), keys=self._rights.keys, may=may)
                after = {name: each for name, (each, _) in made.items()}
                warnings = {name: noted for name, (_, noted) in made.items()}
            case "object":
                kind = object_key(wanted[0].key, stored[wanted[0].key])
                changed = await change_objects(
                    *where, kind, _merges(compared), rights=self._rights.objects(may)
                )
                after = {name: each.carried for name, each in changed.items()}
                warnings = {name: each.warnings for name, each in changed.items()}
            case "service":
                after = await change_services(*where, _merges(compared), rights=self._rights.services(may))
            case "config_map":
                after = await config_maps.change_many(*where, _merges(compared), effect)
            case _:
                asked = [each.asked for each in compared if each.asked is not None]
                found = await secrets.change_many(*where, asked, self._rights.envelopes, effect)
                after = {name: each.config for name, each in found.items()}
                secret_keys = {
                    name: {f"data.{key}": there for key, there in each.secret_keys.items()}
                    for name, each in found.items()
                }
        self._note(wanted, warnings)
        return [
            WrittenObject(
                each.key, "update", after[each.key.name], stored[each.key], secret_keys.get(each.key.name)
            )
            for each in wanted
        ]

    async def run(self, key: MemberKey, *, replacing: bool = False) -> Any:
        """Starts a new run of a Job. `replacing`: even if the newest run has not ended."""
        return await run_container(self._transaction, self._namespace, key.name, replacing=replacing)

    async def delete(self, key: MemberKey, stored: Any) -> WrittenObject:
        """Marks an object for deletion."""
        transaction, where, may = self._transaction, (self._transaction, self._namespace), self._may
        gone: Any
        match key.noun:
            case "container":
                gone = await delete_container(*where, key.name, _unchecked)
            case "service":
                gone = await delete_service(*where, key.name, _unchecked)
            case "object":
                gone = await delete_object(*where, object_key(key, stored), _unchecked, may)
            case "volume":
                refuse = partial(self._rights.mounter.refuse_deletion, transaction, may=may)
                gone = await delete_volume(*where, key.name, _unchecked, refuse)
            case "config_map" | "secret":
                gone = await configs.delete(
                    transaction, key.noun, self._namespace, key.name, _unchecked, self._rights.readers
                )
        return WrittenObject(key, "delete", gone, stored)

    async def delete_many(
        self, keys: Sequence[MemberKey], stored: Mapping[MemberKey, Any]
    ) -> list[WrittenObject]:
        """Marks objects of one noun of `TOGETHER` and one kind for deletion as `delete` does, all or none."""
        where, names = (self._transaction, self._namespace), [each.name for each in keys]
        gone: Mapping[str, Any]
        match keys[0].noun:
            case "container":
                gone = await delete_containers(*where, names)
            case "service":
                gone = await delete_services(*where, names)
            case "object":
                kind = object_key(keys[0], stored[keys[0]])
                gone = await delete_objects(*where, kind, names, may=self._may)
            case "config_map" | "secret" as noun:
                gone = await configs.delete_many(
                    self._transaction, noun, self._namespace, names, self._rights.readers
                )
            case _:
                raise AssertionError(keys[0].noun)
        return [WrittenObject(each, "delete", gone[each.name], stored[each]) for each in keys]


def object_key(key: MemberKey, stored: Any) -> ObjectKey:
    """Returns the key by which the noun object identifies a member."""
    return ObjectKey(stored.api_version, key.kind, key.name)


def _merges(compared: Sequence[ComparedObject]) -> dict[str, Callable[[Any], Any]]:
    return {each.wanted.key.name: _given(each.merge) for each in compared}


def _given(merge: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    assert merge is not None, "an object is changed only by its document"
    return merge


def _unchecked(_stored: Any) -> None:
    """Checks nothing: the application's etag is checked instead of those of its objects."""
