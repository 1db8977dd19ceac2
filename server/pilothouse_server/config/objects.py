"""Config maps and secrets as objects of the cluster: their owner, their form, and the record of a refusal.

An object belongs to a row if its label has the row's uid, or if it is the object that an import took over. Any other
object of the same name belongs to another owner (`check_ours`). Before the cluster's message is stored, values of the
secret that it may repeat are removed.
"""

from __future__ import annotations

import base64
from typing import TypeVar, cast

import msgspec

from pilothouse_server.config import manifests
from pilothouse_server.config.model import Config, ConfigMap, Kind, Secret, Values
from pilothouse_server.kubernetes.errors import NAME_TAKEN, Conflict, Invalid, Refused
from pilothouse_server.kubernetes.objects import KubernetesObject, Manifest, Resource
from pilothouse_server.kubernetes.ownership import CONFIG_UID

R = TypeVar("R", bound=Refused)

# Shorter values would be found in any text.
_SHORTEST_REDACTED = 4


class ConfigObject(KubernetesObject, frozen=True, rename="camel"):
    """A ConfigMap or Secret. Only the keys of its values are parsed; the values stay undecoded."""

    data: dict[str, msgspec.Raw] | None = None
    binary_data: dict[str, msgspec.Raw] | None = None


RESOURCES: dict[Kind, Resource[ConfigObject]] = {
    "config_map": Resource("/api/v1", "configmaps", "ConfigMap", ConfigObject, marked="version"),
    "secret": Resource("/api/v1", "secrets", "Secret", ConfigObject, marked="version"),
}


def resource_of(config: Config) -> Resource[ConfigObject]:
    """Returns the resource of its object on the cluster."""
    return RESOURCES["config_map" if isinstance(config, ConfigMap) else "secret"]


def without_added_keys(wanted: Manifest, found: ConfigObject) -> Manifest | None:
    """Returns the merge patch that removes keys added by others; None if there are none.

    An apply does not remove keys of others. But pods read all keys, so the row would not describe the keys that they
    read. The patch has the observed resource version, so that no key added later is removed.
    """
    added: Manifest = {}
    for name, values in (("data", found.data), ("binaryData", found.binary_data)):
        extra = (values or {}).keys() - wanted.get(name, {}).keys()
        if extra:
            added[name] = dict.fromkeys(sorted(extra))
    if not added:
        return None
    version = {"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version}
    return {"metadata": version, **added}


def manifest(config: Config, values: Values) -> Manifest:
    """Returns the object in its desired state. `values`: the plain values of a secret."""
    metadata = manifests.config_metadata(
        name=config.kubernetes_name,
        kubernetes_namespace=config.kubernetes_namespace,
        namespace=config.namespace,
        namespace_uid=config.namespace_uid,
        uid=config.uid,
        labels=config.labels,
        annotations=config.annotations,
        taken_over=bool(config.taken_over),
    )
    if isinstance(config, ConfigMap):
        return manifests.config_map(metadata, config.data, config.binary_data, immutable=config.immutable)
    return manifests.secret(metadata, cast("Secret", config).type, values, immutable=config.immutable)


def is_ours(config: Config, found: KubernetesObject) -> bool:
    """Returns whether an object is this config's: it has its uid, or was taken over and has no owner yet."""
    label = found.metadata.label(CONFIG_UID)
    if label:
        return label == config.uid
    return bool(config.taken_over) and found.metadata.uid == config.taken_over


def check_ours(config: Config, found: KubernetesObject | None) -> None:
    """Raises Conflict `NameTaken` if the object belongs to another owner."""
    if found is None or is_ours(config, found):
        return
    noun = "config map" if isinstance(config, ConfigMap) else "secret"
    where = f"{config.kubernetes_namespace}/{config.kubernetes_name}"
    raise Conflict(
        f"{resource_of(config).kind} {where} exists and does not belong to this {noun}",
        status_reason=NAME_TAKEN,
    )


def redacted(refusal: R, values: Values) -> R:
    """Returns the refusal without any value of the secret, plain or base64, that its message repeats."""
    message = without_values(refusal.message, values)
    if message != refusal.message:
        refusal.message, refusal.args, refusal.causes = message, (message,), ()
    return refusal


def without_values(words: str, values: Values) -> str:
    """Returns a message of a cluster without any value of the secret, plain or base64, that it repeats."""
    for value in values.values():
        for text in (value.decode("utf-8", "replace"), base64.b64encode(value).decode()):
            if len(text) >= _SHORTEST_REDACTED:
                words = words.replace(text, "[redacted]")
    return words


def is_made_anew(config: Config, refusal: Refused) -> bool:
    """Returns whether the cluster refused only because the object is immutable, as the row is.

    The reconciler then replaces the object. An immutable row never changes, so the object is the one that differs, for
    example after restoring a backup.
    """
    says_immutable = isinstance(refusal, Invalid) and "when `immutable` is set" in refusal.message
    return config.immutable and says_immutable
