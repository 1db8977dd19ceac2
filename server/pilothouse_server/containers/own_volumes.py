"""Models of inline volumes: volumes that only one container's spec declares.

They have no row in `volumes` and are stored in the container's JSON document (`containers.model`). Each source has the
tag field `value_from`, the same name as in `EnvVar` and `EnvFrom`, so that one SQL query finds every config map or
secret in the document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

ValueFrom = Literal["literal", "config_map", "secret", "field_ref", "resource_field_ref"]


class _Part(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=False, gc=False):
    """Immutable, and small as JSON because defaults are left out."""


class KeyFile(_Part, frozen=True):
    """A key of a source as a file.

    `mode`: its permission bits; None: the default mode of the volume.
    """

    key: str
    path: str
    mode: int | None = None


class SourceKeys(_Part, frozen=True, tag_field="value_from"):
    """Keys of a config map or secret as files; all keys if `items` is empty.

    SQL searches the tag, as in `EnvFrom`.
    """

    source_name: str
    optional: bool = False
    items: tuple[KeyFile, ...] = ()
    external: bool = False

    @property
    def value_from(self) -> Literal["config_map", "secret"]:
        return "secret" if isinstance(self, SecretFiles | ProjectedSecret) else "config_map"


class ConfigMapFiles(SourceKeys, frozen=True, tag_field="value_from", tag="config_map"):
    default_mode: int | None = None


class SecretFiles(SourceKeys, frozen=True, tag_field="value_from", tag="secret"):
    default_mode: int | None = None


class ProjectedConfigMap(SourceKeys, frozen=True, tag_field="value_from", tag="config_map"):
    pass


class ProjectedSecret(SourceKeys, frozen=True, tag_field="value_from", tag="secret"):
    pass


class DownwardFile(_Part, frozen=True):
    """A field of the pod, or an amount of one of its programs (`source_name`), as a file."""

    path: str
    value_from: ValueFrom
    source_key: str
    source_name: str = ""
    divisor: str = ""
    mode: int | None = None


class DownwardFiles(_Part, frozen=True, tag_field="value_from", tag="downward_api"):
    items: tuple[DownwardFile, ...] = ()
    default_mode: int | None = None


class ProjectedFields(_Part, frozen=True, tag_field="value_from", tag="downward_api"):
    items: tuple[DownwardFile, ...] = ()


class ServiceAccountToken(_Part, frozen=True, tag_field="value_from", tag="service_account_token"):
    """A token of the pod's service account. Kubernetes uses its defaults for empty values."""

    path: str
    audience: str = ""
    expiration_seconds: int = 0


class ProjectedSource(_Part, frozen=True):
    source: ProjectedConfigMap | ProjectedSecret | ProjectedFields | ServiceAccountToken


class ProjectedFiles(_Part, frozen=True, tag_field="value_from", tag="projected"):
    """Files of several sources in one folder."""

    sources: tuple[ProjectedSource, ...] = ()
    default_mode: int | None = None


class ExistingClaim(_Part, frozen=True, tag_field="value_from", tag="existing_claim"):
    """A claim that exists on the cluster only, by its name there."""

    claim_name: str
    read_only: bool = False


class OwnVolume(_Part, frozen=True):
    """One inline volume of a container's pods."""

    name: str
    source: ConfigMapFiles | SecretFiles | ProjectedFiles | DownwardFiles | ExistingClaim

    def sources(self) -> Iterator[tuple[str, SourceKeys]]:
        """Yields each config map and secret of the volume, with its field path."""
        if isinstance(self.source, SourceKeys):
            yield self.source.value_from, self.source
        elif isinstance(self.source, ProjectedFiles):
            for number, each in enumerate(self.source.sources):
                if isinstance(each.source, SourceKeys):
                    yield f"projected.sources[{number}].{each.source.value_from}", each.source
