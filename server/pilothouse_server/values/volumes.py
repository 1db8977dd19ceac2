"""Common values of volumes and containers: types, access modes, and the spelling of mount paths.

Several spellings of a mount path name the same folder: `/data`, `/data/`, `//data` and `/./data` are one folder to the
runtime, and two mounts there would silently hide each other. Paths are stored in their shortest spelling, except those
of an imported Deployment, because another spelling there means another pod. `..` cannot be a part of a path (its form
is checked before).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

VolumeType = Literal["persistent_volume_claim", "config_map", "secret", "host_path", "empty_dir"]
AccessMode = Literal["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]
BLOCK: Final = "Block"
VOLUME_MODES: Final = ("Filesystem", BLOCK)
# From the widest to the narrowest, by the pods that may write.
_WIDEST: Final[tuple[AccessMode, ...]] = (
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
    "ReadOnlyMany",
)
ACCESS_MODES: Final = frozenset(_WIDEST)

ROOT_WORDS = "must not be /: that is the image's own file system"


class VolumeMount(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A volume at a path of a container. `sub_path`: the part of the volume that is mounted; empty for all of it."""

    volume: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""


def widest_mode(modes: Iterable[str]) -> AccessMode | Literal[""]:
    """Returns the mode that lets most pods write; empty if `modes` is empty."""
    given = frozenset(modes)
    return next((mode for mode in _WIDEST if mode in given), "")


def canonical_mount_path(path: str) -> str:
    """Returns the shortest spelling of an absolute path; empty for an empty one."""
    return posixpath.normpath(f"/{path.lstrip('/')}") if path else ""
