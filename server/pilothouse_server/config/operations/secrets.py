"""The rules of secrets: create, change, reveal.

Values are plain text only here: between the request and the encryption, and between the decryption and the response.
The encryption binds them to their row: its table, its uid, which is chosen before the row is written, and its
namespace.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec

from pilothouse_server.config import repository
from pilothouse_server.config.model import OPAQUE, Secret, Values
from pilothouse_server.config.operations import configs, rules
from pilothouse_server.config.tables import SEALED_SECRETS
from pilothouse_server.encryption.envelopes import Binding, Envelopes, Sealed
from pilothouse_server.errors import already_exists, not_found
from pilothouse_server.namespaces.model import Namespace
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.namespaces.operations import refuse_inactive as refuse_inactive_namespace
from pilothouse_server.revisions.model import RevisedResource
from pilothouse_server.revisions.operations import (
    ValuesToKeep,
    keep_many_values,
    keep_values,
    newest_revision,
    newest_revisions,
    purge_values,
)
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store import encryption_keys
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(Values).decode


@dataclass(frozen=True, slots=True)
class Asked:
    """A secret as a caller gives it.

    `paths`: the fields that an update names; empty for a new secret. `set_data` and `remove_keys`: single keys that an
    update changes.
    """

    secret: Secret
    data: dict[str, bytes]
    string_data: dict[str, str]
    paths: tuple[str, ...] = ()
    set_data: dict[str, bytes] = field(default_factory=dict)
    remove_keys: tuple[str, ...] = ()

    @property
    def changes_values(self) -> bool:
        """Whether an update names values."""
        return bool({"data", "string_data"} & set(self.paths) or self.set_data or self.remove_keys)

    def __repr__(self) -> str:
        return f"Asked({self.secret.name!r})"


async def locate(transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False) -> Secret:
    """Returns the secret of this name. Raises NotFound as `configs.locate`."""
    return cast("Secret", await configs.locate(transaction, "secret", namespace, name, lock=lock))


async def create(
    transaction: Transaction, namespace_name: str, asked: Asked, envelopes: Envelopes, effect: configs.Effect
) -> Secret:
    """Creates a secret.

    Raises:
        InvalidArgument: the values exceed 1 MiB, a key is in both maps, or a key that the type requires is missing.
        NotFound: the namespace.
        AlreadyExists: the name.
        FailedPrecondition: the namespace is inactive or being deleted.
        PermissionDenied: as `config_maps.create`.
        Unavailable: no key provider of this server has the active key.
    """
    wanted, values = _new(namespace_name, asked, effect)
    namespace = await locate_namespace(transaction, namespace_name, "share")
    refuse_inactive_namespace(namespace)
    taken = await repository.find(transaction, "secret", namespace_name, wanted.name)
    if taken is not None:
        being_deleted = taken.deletion_requested_at is not None
        raise already_exists("secret", wanted.name, being_deleted=being_deleted)
    wanted = configs.placed(wanted, namespace)
    sealed = await _seal(transaction, wanted, values, envelopes)
    created = await repository.insert_secret(transaction, wanted, sealed)
    await configs.refuse_power(transaction, "secret", [created], effect)
    await configs.changed(transaction, "secret", created, "added")
    return cast("Secret", created)


async def create_many(
    transaction: Transaction,
    namespace_name: str,
    asked: Sequence[Asked],
    envelopes: Envelopes,
    effect: configs.Effect,
) -> dict[str, Secret]:
    """Creates secrets with few statements, all or none; returns them by name. Raises as `create`."""
    namespace = await locate_namespace(transaction, namespace_name, "share")
    refuse_inactive_namespace(namespace)
    names = [each.secret.name for each in asked]
    if (taken := await repository.first_taken(transaction, "secret", namespace.id, names)) is not None:
        raise already_exists("secret", taken)
    key_id = await encryption_keys.active_key_id(transaction)
    wanted: list[tuple[Secret, Sealed]] = []
    async for each in cooperatively(asked):
        made, values = _new(namespace_name, each, effect)
        placed = configs.placed(made, namespace)
        wanted.append((placed, envelopes.seal(_encode(values), binding(placed), key_id)))
    created = await repository.insert_secrets(transaction, wanted)
    await configs.refuse_power(transaction, "secret", created, effect)
    async for secret in cooperatively(created):
        await configs.changed(transaction, "secret", secret, "added")
    return {each.name: cast("Secret", each) for each in created}


def _new(namespace: str, asked: Asked, effect: configs.Effect) -> tuple[Secret, Values]:
    """Returns a secret that is to be created, and its values. Raises as `create`."""
    values = rules.merged(asked.data, asked.string_data)
    wanted = msgspec.structs.replace(
        asked.secret, type=asked.secret.type or OPAQUE, uid=repository.new_uid(), key_sizes=_sizes(values)
    )
    rules.check_secret(wanted.type, values)
    rules.check_labels("secret.labels", wanted.labels)
    effect.labelling.check("secret", namespace, None, wanted)
    return wanted, values


async def take_over(
    transaction: Transaction, namespace: Namespace, asked: Asked, envelopes: Envelopes
) -> bool:
    """Creates a secret from one on the cluster, `asked.secret.taken_over`, as `config_maps.take_over` does.

    Its values are encrypted before anything is written.

    Raises:
        InvalidArgument, Unavailable: as `create`.
        FailedPrecondition: the secret exists, and is being deleted.
    """
    if await configs.is_there(transaction, "secret", namespace, asked.secret.name):
        return False
    rules.check_secret(asked.secret.type, asked.data)
    rules.check_labels("secret.labels", asked.secret.labels)
    uid = asked.secret.uid or repository.new_uid()
    wanted = msgspec.structs.replace(asked.secret, uid=uid, key_sizes=_sizes(asked.data))
    wanted = configs.placed(wanted, namespace)
    sealed = await _seal(transaction, wanted, asked.data, envelopes)
    created = await repository.insert_secret(transaction, wanted, sealed)
    await configs.changed(transaction, "secret", created, "added")
    return True


async def change(
    transaction: Transaction,
    namespace: str,
    name: str,
    asked: Asked,
    envelopes: Envelopes,
    check: configs.Check,
    *,
    effect: configs.Effect,
) -> configs.Changed[Secret]:
    """Changes the fields that `asked.paths` names, and single keys.

    `data` replaces all values; `string_data` sets the keys that it names. Returns and raises as `config_maps.change`,
    and raises as `create`.
    """
    rules.check_single_keys(asked.paths, ("data", "string_data"), asked.set_data, asked.remove_keys)
    stored = await locate(transaction, namespace, name, lock=True)
    check(stored)
    configs.refuse_deleting("secret", stored)
    former = await reveal(transaction, stored, (), envelopes) if asked.changes_values else None
    wanted, values = _with_change(namespace, stored, asked, former, effect)
    same_values = values == former
    if same_values and wanted == stored:
        return configs.Changed(stored)
    sealed = None
    if values is not None and not same_values:
        sealed = await _seal(transaction, stored, values, envelopes)
    written = cast("Secret", await repository.update_secret(transaction, stored, wanted, sealed))
    if sealed is not None:
        former_revision = await newest_revision(transaction, revised(stored)) - 1
        await keep_values(
            transaction, revised(stored), former_revision, name, _encode(former or {}), envelopes
        )
    await configs.changed(transaction, "secret", written, "modified", stored)
    if same_values:
        return configs.Changed(written)
    removed = stored.key_sizes.keys() - written.key_sizes.keys()
    changed = await configs.changed_data(transaction, "secret", written, effect, removed=removed)
    return msgspec.structs.replace(changed, secret_keys=_changed_keys(former or {}, values or {}))


async def change_many(
    transaction: Transaction,
    namespace: str,
    asked: Sequence[Asked],
    envelopes: Envelopes,
    effect: configs.Effect,
) -> dict[str, configs.Changed[Secret]]:
    """Changes secrets with few statements, all or none; returns them by name. Restarts no container.

    Raises as `change`.
    """
    by_name = {each.secret.name: each for each in asked}
    locked = await configs.locked_many(transaction, "secret", namespace, list(by_name))
    revealed = await reveal_many(transaction, cast("list[Secret]", locked), envelopes)
    key_id = await encryption_keys.active_key_id(transaction)
    found = {each.name: configs.Changed(cast("Secret", each)) for each in locked}
    changes: list[tuple[Secret, Sealed | None]] = []
    keys: dict[str, dict[str, tuple[bool, bool]]] = {}
    async for each in cooperatively(locked):
        stored, ask = cast("Secret", each), by_name[each.name]
        rules.check_single_keys(ask.paths, ("data", "string_data"), ask.set_data, ask.remove_keys)
        former = revealed[stored.id] if ask.changes_values else None
        wanted, values = _with_change(namespace, stored, ask, former, effect)
        sealed = None
        if values is not None and values != former:
            sealed = envelopes.seal(_encode(values), binding(stored), key_id)
            keys[stored.name] = _changed_keys(former or {}, values)
        elif wanted == stored:
            continue
        changes.append((wanted, sealed))
    written = cast("list[Secret]", await repository.update_secrets(transaction, changes))
    with_values = [each for each in written if each.name in keys]
    numbers = await newest_revisions(transaction, [revised(each) for each in with_values])
    kept = [
        ValuesToKeep(revised(each), numbers[each.id] - 1, each.name, _encode(revealed[each.id]))
        for each in with_values
    ]
    await keep_many_values(transaction, kept, envelopes)
    await configs.refuse_power(transaction, "secret", with_values, effect)
    async for secret in cooperatively(written):
        await configs.changed(transaction, "secret", secret, "modified", found[secret.name].config)
    return found | {each.name: configs.Changed(each, secret_keys=keys.get(each.name, {})) for each in written}


def _with_change(
    namespace: str, stored: Secret, asked: Asked, former: Values | None, effect: configs.Effect
) -> tuple[Secret, Values | None]:
    """Returns a secret with a change, and its values; None if the change names no values. Raises as `change`."""
    values = None if former is None else _merged_values(former, asked)
    fields = [path for path in asked.paths if path not in ("data", "string_data")]
    wanted = msgspec.structs.replace(stored, **{path: getattr(asked.secret, path) for path in fields})
    same_values = values == former
    if same_values and wanted == stored:
        return stored, values
    if stored.immutable and not (same_values and wanted.immutable):
        raise rules.refuse_immutable("secret", stored.name)
    rules.check_labels("secret.labels", wanted.labels)
    effect.labelling.check("secret", namespace, stored, wanted)
    if values is not None and not same_values:
        rules.check_secret(stored.type, values)
        wanted = msgspec.structs.replace(wanted, key_sizes=_sizes(values))
    return wanted, values


async def purge(transaction: Transaction, namespace: str, name: str) -> tuple[Secret | None, int]:
    """Removes former values of a secret from all revisions; returns the secret and the number of purged versions.

    The secret is None if only revisions of applications have it.

    Raises:
        NotFound: the namespace, or neither a secret nor former values of this name.
    """
    home = await locate_namespace(transaction, namespace, "share")
    # The row is locked, so that no change adds a former version.
    found = await repository.find(transaction, "secret", namespace, name, lock=True)
    purged = await purge_values(transaction, home.id, name)
    if found is None and not purged:
        raise not_found("secret", name)
    return cast("Secret | None", found), purged


async def reveal(
    transaction: ReadTransaction, secret: Secret, keys: Collection[str], envelopes: Envelopes
) -> Values:
    """Returns the values of a secret; only those of `keys` if any are given.

    Raises:
        NotFound: the secret was deleted, or lacks one of the keys.
        Unavailable: no key provider of this server has the key.
        FailedPrecondition: the ciphertext does not belong to this secret.
    """
    sealed = await repository.find_sealed(transaction, secret.id)
    if sealed is None:
        raise not_found("secret", secret.name)
    values = opened(secret, sealed, envelopes)
    for key in keys:
        if key not in values:
            raise not_found("secret key", key)
    return {key: values[key] for key in keys} if keys else values


async def reveal_many(
    transaction: ReadTransaction, secrets: Sequence[Secret], envelopes: Envelopes
) -> dict[int, Values]:
    """Returns the values of secrets by their ids, read with one statement. Raises as `reveal`."""
    sealed = await repository.find_many_sealed(transaction, [each.id for each in secrets])
    found: dict[int, Values] = {}
    async for each in cooperatively(secrets):
        if each.id not in sealed:
            raise not_found("secret", each.name)
        found[each.id] = opened(each, sealed[each.id], envelopes)
    return found


def opened(secret: Secret, sealed: Sealed, envelopes: Envelopes) -> Values:
    """Returns the decrypted values of a secret. Raises as `reveal`."""
    return _decode(envelopes.open(sealed, binding(secret)))


def revised(secret: Secret) -> RevisedResource:
    """Returns the reference by which the revisions of a secret are stored."""
    return RevisedResource("secret", secret.id, secret.uid, secret.namespace_id)


def binding(secret: Secret) -> Binding:
    """Returns the row that the values of a secret are bound to."""
    return SEALED_SECRETS.binding(secret.uid, str(secret.namespace_id))


async def _seal(transaction: Transaction, secret: Secret, values: Values, envelopes: Envelopes) -> Sealed:
    key_id = await encryption_keys.active_key_id(transaction)
    return envelopes.seal(_encode(values), binding(secret), key_id)


def _changed_keys(former: Values, values: Values) -> dict[str, tuple[bool, bool]]:
    """Returns the keys with different values, and whether each existed before and exists now."""
    return {
        key: (key in former, key in values)
        for key in sorted(former.keys() | values.keys())
        if former.get(key) != values.get(key)
    }


def _merged_values(former: Values, asked: Asked) -> Values:
    if asked.set_data or asked.remove_keys:
        rules.check_removable(former, asked.remove_keys)
        kept = {key: value for key, value in former.items() if key not in asked.remove_keys}
        return kept | asked.set_data
    if "data" not in asked.paths:
        return former | rules.merged({}, asked.string_data)
    return rules.merged(asked.data, asked.string_data if "string_data" in asked.paths else {})


def _sizes(values: Values) -> dict[str, int]:
    return {key: len(value) for key, value in values.items()}
