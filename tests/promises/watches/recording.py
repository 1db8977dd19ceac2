"""The recording of a campaign, as data.

It has the responses to writers, the events of watchers, the log and the lists. The validators
(`tests.promises.watches.validators`) are functions of a `Recording` alone, so a test can pass each of them a
recording in which its guarantee is broken. Times are ticks of the recorder's own counter: all parts of a
campaign run in one process, so of two ticks the smaller one came first. A `digest` represents the content of a
resource (`tests.promises.watches.told`).
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

ADDED, MODIFIED, DELETED = "added", "modified", "deleted"
CONTAINER, CONFIG = "container", "config"
_CHANGES = (ADDED, MODIFIED, DELETED)


class State(NamedTuple):
    """A resource as it was shown.

    `marker` names the mutation that last wrote its annotation.
    """

    uid: str
    name: str
    namespace: str
    version: int
    digest: int
    labels: Mapping[str, str]
    status: str
    marker: str = ""


class Wanted(NamedTuple):
    """A watch's filter.

    `kind` is CONTAINER or CONFIG; empty fields match everything. `visible` are the namespaces that the caller
    reaches; None means all. With `scope` it is a scope of a watch of several nouns, next to a scope of another
    noun.
    """

    kind: str = CONTAINER
    namespace: str = ""
    label: tuple[str, str] | None = None
    status: str = ""
    visible: frozenset[str] | None = None
    scope: bool = False

    def concerns(self, kind: str, namespace: str) -> bool:
        """Returns whether a resource of this kind and namespace can ever be shown."""
        within = not self.namespace or namespace == self.namespace
        return kind == self.kind and within and (self.visible is None or namespace in self.visible)

    def matches(self, state: State) -> bool:
        """Returns whether a resource that passes `concerns` is shown now."""
        labelled = self.label is None or state.labels.get(self.label[0]) == self.label[1]
        return labelled and (not self.status or state.status == self.status)


class Seen(NamedTuple):
    """One change that a watcher received."""

    revision: int
    change: str
    uid: str
    version: int
    digest: int


class Changes:
    """The events of a watcher, in order.

    They are stored in columns, so that millions of rows need a few tens of bytes each.
    """

    def __init__(self, rows: Iterable[Seen] = ()) -> None:
        self._revisions, self._changes = array("q"), bytearray()
        self._uids: list[str] = []
        self._versions, self._digests = array("q"), array("Q")
        for row in rows:
            self.append(row)

    def append(self, row: Seen) -> None:
        """Appends an event."""
        self._revisions.append(row.revision)
        self._changes.append(_CHANGES.index(row.change))
        self._uids.append(sys.intern(row.uid))
        self._versions.append(row.version)
        self._digests.append(row.digest)

    def __len__(self) -> int:
        return len(self._revisions)

    def __iter__(self) -> Iterator[Seen]:
        columns = (self._revisions, self._changes, self._uids, self._versions, self._digests)
        for revision, change, uid, version, digest in zip(*columns, strict=True):
            yield Seen(revision, _CHANGES[change], uid, version, digest)


class Cut(NamedTuple):
    """The point at which a stream ended and another one continued.

    These are the number of changes before it, the revision, the server that continued, and the reason.
    """

    after: int
    revision: int
    server: int
    why: str


@dataclass
class Life:
    """One first state and the events after it, over all cuts.

    A life ends when the token is refused or the campaign ends. `began` is the revision of SYNCED, `until` that
    of the last token. `first` is uid → digest of the first state.
    """

    began: int = 0
    until: int = 0
    first: dict[str, int] = field(default_factory=dict)
    changes: Changes = field(default_factory=Changes)
    cuts: list[Cut] = field(default_factory=list)


@dataclass
class Watch:
    """One watcher: its filter and its lives.

    `faults` are messages that no watch may send, as they arrived. `ended` is the server's reason for ending the
    watch for good.
    """

    name: str
    wanted: Wanted
    lives: list[Life] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    ended: str = ""


class Written(NamedTuple):
    """An acknowledged mutation.

    It has the tick at which its first attempt began, the tick of its response, and the response's content.
    `operations` are the operation ids of its attempts. `restarted` are the containers that it also restarted.
    """

    verb: str
    began: int
    ended: int
    uid: str
    version: int
    digest: int
    marker: str
    operations: tuple[str, ...] = ()
    attempts: int = 1
    restarted: tuple[str, ...] = ()


class Logged(NamedTuple):
    """An event as the database stores it. `change` is its transaction."""

    revision: int
    kind: str
    change: int
    what: str
    operation: str
    state: State


class Probe(NamedTuple):
    """A token that was tried at the end, and the outcome.

    `how` is a key of the validator's verdicts. `life` is the life of the watch in which the token was sent.
    `changes` are the first changes that followed, and all of them if `whole`.
    """

    how: str
    watch: int
    life: int
    revision: int
    code: str
    reason: str
    changes: tuple[Seen, ...] = ()
    whole: bool = False


@dataclass(eq=False)
class Recording:
    """The whole recording.

    `final` are the complete lists of each server at the end, by kind. `stranded` are committed changes that
    were not numbered, or were set aside. `gone` are namespaces that were deleted.
    """

    writes: list[Written] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    log: list[Logged] = field(default_factory=list)
    final: list[Mapping[str, Mapping[str, State]]] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)
    stranded: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    # The counts of what happened, by name: faults by kind, ends of streams by reason, refusals.
    counts: Counter[str] = field(default_factory=Counter)
