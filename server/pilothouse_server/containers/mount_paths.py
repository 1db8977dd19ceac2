"""Paths at which volumes are mounted: spellings that mean the same folder are one path.

`/data`, `/data/`, `//data` and `/./data` are one folder to the runtime, and two mounts there would hide each other
silently. Paths are kept in their shortest spelling, except those of an imported Deployment: another spelling there is
another pod. `..` is no part of a path (its form is checked before).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

import msgspec

from pilothouse_server.containers.model import VolumeMount

ROOT_WORDS = "must not be /: that is the image's own file system"


def canonical(path: str) -> str:
    """The shortest spelling of an absolute path; empty for an empty one."""
    return posixpath.normpath(f"/{path.lstrip('/')}") if path else ""


def canonical_mounts(mounts: Iterable[VolumeMount]) -> tuple[VolumeMount, ...]:
    """The mounts with their paths in the shortest spelling."""
    return tuple(msgspec.structs.replace(each, mount_path=canonical(each.mount_path)) for each in mounts)
