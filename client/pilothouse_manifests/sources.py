"""The translator's sources: each reads one mapping of an object, key by key.

A source returns values by key and type, and remembers unread keys. Leaving its `with` block reports each unread key
that has a value. So nothing is dropped silently, without a list of Kubernetes' fields.

`ObjectSource` reads an object that a cluster returned as JSON; the cluster would have refused a wrong type. The client
reads written manifests, with the line of each problem.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

INT32_MAXIMUM = 2**31 - 1
INT64_MAXIMUM = 2**63 - 1
NOT_REPRESENTED = "cannot be represented"
# An unread false is what the API writes for a feature that is not requested. But if the key's default is true, the
# false was chosen, and an object that is created again without it would do more than before.
FALSE_BY_CHOICE = f"{NOT_REPRESENTED}: false, where Kubernetes' default is true"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
# Annotations that the cluster or kubectl writes and that `kubectl get -o yaml` shows. They are not part of the desired
# state, so they are skipped, as kubectl does; on the pods they would only mislead.
FOREIGN_ANNOTATIONS = (
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "endpoints.kubernetes.io/last-change-trigger-time",
    LAST_APPLIED,
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
)


class MappingSource(Protocol):
    """One mapping. An absent key reads as None, or empty; an absent part reads as a mapping without keys.

    `live`: the API has filled in its defaults, so a value that equals its default was not necessarily stated.
    `present`: the mapping exists; false for an absent part.
    """

    @property
    def live(self) -> bool: ...
    @property
    def present(self) -> bool: ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def has(self, key: str) -> bool:
        """Returns whether a key exists and is not null. Does not count as reading it."""

    def names(self) -> list[str]:
        """Returns the keys that exist and are not null. Does not count as reading them."""

    def text(self, key: str, *, required: bool = False, choices: tuple[str, ...] = ()) -> str:
        """Returns the text of a key."""

    def quantity(self, key: str) -> str:
        """Returns a Kubernetes quantity as written."""

    def integer(
        self, key: str, *, minimum: int = 0, maximum: int = INT32_MAXIMUM, required: bool = False
    ) -> int | None:
        """Returns the number of a key."""

    def boolean(self, key: str) -> bool | None:
        """Returns the boolean of a key."""

    def number_or_name(self, key: str, *, required: bool = False) -> int | str | None:
        """Returns a port by number or by name."""

    def number_or_percent(self, key: str) -> str:
        """Returns a whole number, or a percentage such as `25%`, as text."""

    def texts(self, key: str) -> list[str]:
        """Returns the texts of a list."""

    def integers(self, key: str, *, maximum: int = INT64_MAXIMUM) -> list[int]:
        """Returns the numbers of a list."""

    def words(self, key: str) -> dict[str, str]:
        """Returns the texts of a mapping whose keys are the user's own."""

    def encoded(self, key: str, *, hidden: bool = False) -> dict[str, bytes]:
        """Returns the bytes of a mapping of base64.

        If `hidden`, no message contains the values."""

    def part(self, key: str) -> Self:
        """Returns the mapping of a key."""

    def each(self, key: str, by: str = "name") -> Iterator[Self]:
        """Returns the mappings of a list; messages distinguish them by the key `by`.

        The caller exits each context."""

    def only_default(self, key: str, *defaults: Any) -> None:
        """Reads a key that the platform leaves at Kubernetes' default: any other value is reported."""

    def invalid(self, key: str | None, message: str) -> None:
        """Reports that a key, or the mapping itself, is wrong."""

    def unsupported(self, key: str | None, message: str = NOT_REPRESENTED) -> None:
        """Reports that the platform cannot represent a key, or the mapping itself."""

    def drop(self, key: str) -> None:
        """Leaves out a key that the cluster sets."""

    def carries(self, key: str) -> bool:
        """Stores a key unchanged and counts it as read.

        Returns False if no field can contain it."""

    def unusable(self, key: str | None, message: str) -> None:
        """Reports something without which the platform cannot represent the whole object."""


# Stores an unread field by its path with merge keys; returns false or empty if it cannot.
Carry = Callable[[str, Any], object]
# The keys that distinguish the items of a pod's lists; the default protocol is TCP.
_MERGE_KEYS = (("mountPath",), ("containerPort", "protocol"), ("name",))


def _says_nothing(value: Any) -> bool:
    """Returns whether a value is null or empty, or contains nothing else; as in a written manifest."""
    if isinstance(value, dict):
        return all(map(_says_nothing, value.values()))
    if isinstance(value, list):
        return all(map(_says_nothing, value))
    return value is None or value == ""


def merge_keys(item: Mapping[str, Any]) -> str:
    """Returns the text in brackets that names an item of a list: `name=main`.

    Empty if the item has no merge keys."""
    keys = next((keys for keys in _MERGE_KEYS if keys[0] in item), ())
    return ",".join(f"{key}={item.get(key, 'TCP')}" for key in keys)


class ObjectSource:
    """The mapping at `path` of a live object; all parts of the object share `problems`.

    `carry` stores unread fields; by default each is a problem.
    """

    live = True

    def __init__(
        self, mapping: Any, path: str, problems: list[str], carry: Carry | None = None, keyed_path: str = ""
    ) -> None:
        self.present = isinstance(mapping, dict)
        self.problems = problems
        self.path = path
        self._carry = carry
        self._keyed_path = keyed_path or path
        self._left: dict[str, Any] = dict(mapping) if isinstance(mapping, dict) else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            for key, value in list(self._left.items()):
                # The API omits most false fields; a false field that a workload has was chosen.
                if not _says_nothing(value) and (value is not False or self._carry is not None):
                    self.unsupported(key)

    def has(self, key: str) -> bool:
        return self._left.get(key) is not None

    def names(self) -> list[str]:
        return [key for key, value in self._left.items() if value is not None]

    def peek(self, key: str, default: Any = None) -> Any:
        """Returns the value of a key unchanged. Does not count as reading it."""
        value = self._left.get(key)
        return default if value is None else value

    def take(self, key: str, default: Any = None) -> Any:
        """Returns the value of a key unchanged, and counts it as read."""
        value = self.peek(key, default)
        self._left.pop(key, None)
        return value

    def text(self, key: str, *, required: bool = False, choices: tuple[str, ...] = ()) -> str:
        return str(self.take(key, ""))

    def quantity(self, key: str) -> str:
        return str(self.take(key, ""))

    def integer(
        self, key: str, *, minimum: int = 0, maximum: int = INT32_MAXIMUM, required: bool = False
    ) -> int | None:
        value = self.take(key)
        return None if value is None else int(value)

    def boolean(self, key: str) -> bool | None:
        value = self.take(key)
        return None if value is None else bool(value)

    def number_or_name(self, key: str, *, required: bool = False) -> int | str | None:
        value = self.take(key)
        return value if value is None or isinstance(value, int) else str(value)

    def number_or_percent(self, key: str) -> str:
        return str(self.take(key, ""))

    def texts(self, key: str) -> list[str]:
        return [str(item) for item in self.take(key, ())]

    def integers(self, key: str, *, maximum: int = INT64_MAXIMUM) -> list[int]:
        return [int(item) for item in self.take(key, ())]

    def words(self, key: str) -> dict[str, str]:
        return {str(name): str(value) for name, value in self.take(key, {}).items()}

    def encoded(self, key: str, *, hidden: bool = False) -> dict[str, bytes]:
        return {name: base64.b64decode(text) for name, text in self.words(key).items()}

    def part(self, key: str) -> Self:
        keyed_path = f"{self._keyed_path}.{key}"
        return type(self)(self.take(key), f"{self.path}.{key}", self.problems, self._carry, keyed_path)

    def each(self, key: str, by: str = "name") -> Iterator[Self]:
        for index, value in enumerate(self.take(key, ())):
            word = value.get(by, index) if isinstance(value, dict) else index
            keys = merge_keys(value) if isinstance(value, dict) else ""
            keyed_path = f"{self._keyed_path}.{key}[{keys}]"
            yield type(self)(value, f"{self.path}.{key}[{word}]", self.problems, self._carry, keyed_path)

    def only_default(self, key: str, *defaults: Any) -> None:
        if self._left.get(key) is False and any(default is True for default in defaults):
            self.unsupported(key, FALSE_BY_CHOICE)
        elif key in self._left and (self._left[key] in defaults or _says_nothing(self._left[key])):
            del self._left[key]

    def drop(self, key: str) -> None:
        self.ignore(key)

    def ignore(self, *keys: str) -> None:
        """Counts keys as read, with any values."""
        for key in keys:
            self._left.pop(key, None)

    def invalid(self, key: str | None, message: str) -> None:
        if key is not None:
            self._left.pop(key, None)
        self.problems.append(f"{self.path}.{key}: {message}" if key else f"{self.path}: {message}")

    def unsupported(self, key: str | None, message: str = NOT_REPRESENTED) -> None:
        if key is None or message not in (NOT_REPRESENTED, FALSE_BY_CHOICE) or not self.carries(key):
            self.invalid(key, message)

    def carries(self, key: str) -> bool:
        value = self._left.get(key)
        if value is None or self._carry is None or not self._carry(f"{self._keyed_path}.{key}", value):
            return False
        del self._left[key]
        return True

    def unusable(self, key: str | None, message: str) -> None:
        self.invalid(key, message)
