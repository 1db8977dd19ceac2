"""Findings of the guard in an object, and the keys of annotations and labels that a setting names."""

from __future__ import annotations

from typing import Final

import msgspec

from pilothouse_server.values.key_patterns import KeyPatterns

PRIVILEGED: Final = "container.privileged"
PRIVILEGED_OBJECT: Final = "object.privileged"
HOST_PATH: Final = "storage.host_path"

# From the root of the object to a field: keys of mappings, positions in lists.
Steps = tuple[str | int, ...]


class Keys(msgspec.Struct, frozen=True):
    """Keys by the permission to set them: everybody may set `free` ones of Services, few callers `guarded` ones of
    pods.
    """

    free: KeyPatterns
    guarded: KeyPatterns


# For callers that have checked keys before: no key is found.
UNGUARDED: Final = Keys(free=KeyPatterns("*"), guarded=KeyPatterns(""))


class GuardViolation(msgspec.Struct, frozen=True):
    """A part of an object that not everybody may send.

    `rule`: its name. `words`: the effect of the field, after its path. `what`: the value, at any place. `permission`:
    the one that a caller needs to send it; empty: it is never sent.
    """

    steps: Steps
    rule: str
    words: str
    what: tuple[str, ...] = ()
    permission: str = PRIVILEGED

    @property
    def path(self) -> str:
        """The path as Kubernetes writes it: `spec.template.spec.containers[0].image`."""
        return written(self.steps)

    @property
    def right(self) -> str:
        """The right that the part gives, at any place in the pods: `capabilities NET_ADMIN`."""
        return " ".join((self.rule, *self.what))


def written(steps: Steps) -> str:
    """Returns a path as Kubernetes writes it; keys with "." or "/" are in brackets."""
    text = ""
    for step in steps:
        if isinstance(step, int) or "/" in step or "." in step:
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


class Admitted(msgspec.Struct, frozen=True):
    """The content that an object may have which is written to a cluster.

    `namespace`: the Kubernetes namespace. `ours`: keys of `pilothouse.dev` that the platform sets. `rights`: those
    that a caller was allowed to give; None: no caller was checked, so only content that is never sent is refused.
    """

    namespace: str
    ours: frozenset[str] = frozenset()
    rights: frozenset[str] | None = None
