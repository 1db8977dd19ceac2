"""Each validator accepts a sound recording and finds its injected fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.promises.watches.recording import (
    ADDED,
    CONTAINER,
    DELETED,
    MODIFIED,
    Changes,
    Life,
    Logged,
    Probe,
    Recording,
    Seen,
    State,
    Wanted,
    Watch,
    Written,
)
from tests.promises.watches.validators import (
    ANOTHERS_CALLER,
    ANOTHERS_FILTER,
    BELOW_THE_HORIZON,
    GOES_ON,
    OF_ANOTHER_HISTORY,
    OF_THE_GONE,
    VALIDATORS,
    violations,
)

pytestmark = pytest.mark.full

FRONT = Wanted(label=("tier", "front"))
STOPPED = Wanted(status="STOPPED")


def state(name: str, version: int, tier: str = "front", status: str = "RUNNING", marker: str = "") -> State:
    """Returns a container's state; its digest is as unique as its content."""
    content = hash((name, version, tier, status)) & (2**63 - 1)
    return State(f"uid-{name}", name, "north", version, content, {"tier": tier}, status, marker)


def seen(revision: int, change: str, shown: State) -> Seen:
    """Returns a watcher's event for a state."""
    return Seen(revision, change, shown.uid, shown.version, shown.digest)


A1, A2, A3, A4 = (
    state("a", 1, marker="m1"),
    state("a", 2, "back", marker="m2"),
    state("a", 3, "front", marker="m3"),
    state("a", 4, "front", "STOPPED", marker="m3"),
)
B1, B2, B3 = state("b", 1, marker="m4"), state("b", 2, marker="m4"), state("b", 3, marker="m4")
LOG: tuple[tuple[int, str, State, str], ...] = (
    (1, ADDED, A1, "op1"),
    (2, ADDED, B1, "op2"),
    (3, MODIFIED, A2, "op3"),
    (4, MODIFIED, A3, "op4"),
    # Both events belong to one transaction.
    (5, MODIFIED, A4, "op5"),
    (5, MODIFIED, B2, "op5"),
    (6, MODIFIED, B3, "op6"),
    (6, DELETED, B3, ""),
)


def sound() -> Recording:
    """Returns a sound recording with six watchers.

    The third begins with a state that shows a change that is not numbered yet. The last one's namespace is
    deleted.
    """
    log = [
        Logged(number, CONTAINER, change, what, operation, shown)
        for number, (change, what, shown, operation) in enumerate(LOG, 1)
    ]
    everything = [
        seen(1, ADDED, A1),
        seen(2, ADDED, B1),
        seen(3, MODIFIED, A2),
        seen(4, MODIFIED, A3),
        seen(5, MODIFIED, A4),
        seen(6, MODIFIED, B2),
        seen(7, MODIFIED, B3),
        seen(8, DELETED, B3),
    ]
    front = [everything[0], everything[1], seen(3, DELETED, A2), seen(4, ADDED, A3), *everything[4:]]
    watches = [
        Watch("all", Wanted(), [Life(0, 8, {}, Changes(everything))]),
        Watch("front", FRONT, [Life(0, 8, {}, Changes(front))]),
        # The first state already contains revision 3, so its event is not sent.
        Watch(
            "late", Wanted(), [Life(2, 8, {A2.uid: A2.digest, B1.uid: B1.digest}, Changes(everything[3:]))]
        ),
        Watch("stopped", STOPPED, [Life(0, 8, {}, Changes([seen(5, ADDED, A4)]))]),
        # The first life ended before it received anything.
        Watch("brief", FRONT, [Life(), Life(0, 8, {}, Changes(front))]),
        Watch("gone", Wanted(namespace="away"), [Life(0, 8)], ended="NOT_FOUND NAMESPACE_NOT_FOUND"),
    ]
    writes = [
        Written("create", 1, 2, A1.uid, 1, A1.digest, "m1", ("op1",)),
        Written("create", 3, 4, B1.uid, 1, B1.digest, "m4", ("op2",)),
        Written("update", 5, 8, A2.uid, 2, A2.digest, "m2", ("op3",)),
        Written("update", 9, 10, A3.uid, 3, A3.digest, "m3", ("op4",)),
        Written("stop", 11, 12, A4.uid, 4, A4.digest, "m9", ("op5",), restarted=("b",)),
        # The container was stopped already: the response shows its state, and nothing was written.
        Written("stop", 13, 14, A4.uid, 4, A4.digest, "m10", ("op7",)),
        Written("delete", 15, 16, B3.uid, 3, B3.digest, "m11", ("op6",)),
    ]
    listed = {CONTAINER: {A4.uid: A4}}
    probes = [
        Probe(GOES_ON, 0, 0, 4, "OK", "", tuple(everything[4:6])),
        Probe(GOES_ON, 2, 0, 2, "OK", "", tuple(everything[3:]), whole=True),
        Probe(GOES_ON, 4, 0, 0, "OK", "", tuple(front), whole=True),
        Probe(ANOTHERS_FILTER, 0, 0, 4, "INVALID_ARGUMENT", "RESUME_TOKEN"),
        Probe(ANOTHERS_CALLER, 0, 0, 4, "INVALID_ARGUMENT", "RESUME_TOKEN"),
        Probe(BELOW_THE_HORIZON, 0, 0, 1, "OUT_OF_RANGE", "WATCH_HORIZON"),
        Probe(OF_THE_GONE, 5, 0, 1, "OUT_OF_RANGE", "WATCH_CHANGED"),
        Probe(OF_ANOTHER_HISTORY, 0, 0, 4, "OUT_OF_RANGE", "WATCH_CHANGED"),
    ]
    alike = {CONTAINER: dict(listed[CONTAINER])}
    return Recording(writes, watches, log, [listed, alike], probes, gone={"away"})


def test_a_sound_recording_is_accepted() -> None:
    assert violations(sound()) == {}


def _life(recording: Recording, watch: int = 0) -> Life:
    return recording.watches[watch].lives[-1]


def _told(recording: Recording, watch: int, change: Callable[[list[Seen]], Sequence[Seen]]) -> None:
    """Changes the events of a watcher."""
    life = _life(recording, watch)
    life.changes = Changes(change(list(life.changes)))


def _logged(recording: Recording, number: int, **changes: Any) -> None:
    recording.log[number] = recording.log[number]._replace(**changes)


def _written(recording: Recording, number: int, **changes: Any) -> None:
    recording.writes[number] = recording.writes[number]._replace(**changes)


def _probed(recording: Recording, number: int, **changes: Any) -> None:
    recording.probes[number] = recording.probes[number]._replace(**changes)


def _swapped(changes: list[Seen]) -> list[Seen]:
    return [*changes[:2], changes[3], changes[2], *changes[4:]]


def _fault(recording: Recording) -> None:
    recording.watches[0].faults.append("a marker at a wrong moment")


def _never_in_step(recording: Recording) -> None:
    recording.watches[0].lives.clear()


def _moved(recording: Recording, number: int, place: int) -> None:
    """Moves an event of the log, and numbers all events again."""
    recording.log.insert(place, recording.log.pop(number))
    recording.log[:] = [event._replace(revision=number) for number, event in enumerate(recording.log, 1)]


BROKEN: dict[str, tuple[str, Callable[[Recording], object]]] = {
    "an event is missing": ("no_loss", lambda r: _told(r, 0, lambda c: c[:3] + c[4:])),
    "the last event is missing": ("no_loss", lambda r: _told(r, 0, lambda c: c[:-1])),
    "what leaves the filter is not told": ("no_loss", lambda r: _told(r, 1, lambda c: c[:2] + c[3:])),
    "an event comes twice": ("nothing_twice", lambda r: _told(r, 0, lambda c: [*c[:3], c[2], *c[3:]])),
    "a copy has a revision of its own": (
        "nothing_twice",
        lambda r: _told(r, 0, lambda c: [*c, c[-1]._replace(revision=9)]),
    ),
    "the first state is told again": (
        "nothing_twice",
        lambda r: _told(r, 2, lambda c: [seen(3, MODIFIED, A2), *c]),
    ),
    "another kind of change": (
        "only_what_matches",
        lambda r: _told(r, 1, lambda c: [*c[:2], c[2]._replace(change=MODIFIED), *c[3:]]),
    ),
    "what the filter does not take": (
        "only_what_matches",
        lambda r: _told(r, 3, lambda c: [seen(2, ADDED, B1), *c]),
    ),
    "another content": (
        "only_what_matches",
        lambda r: _told(r, 0, lambda c: [c[0]._replace(digest=7), *c[1:]]),
    ),
    "a first state of no moment": ("first_states_are_whole", lambda r: _life(r, 2).first.update({A2.uid: 7})),
    "a first state that lacks one": (
        "first_states_are_whole",
        lambda r: _life(r, 2).first.pop(A2.uid),
    ),
    "revisions fall": ("revisions_rise", lambda r: _told(r, 0, _swapped)),
    "a revision below that of SYNCED": ("revisions_rise", lambda r: setattr(_life(r), "began", 4)),
    "the log goes back": ("objects_in_order", lambda r: _moved(r, 4, 3)),
    "the log leaves a version out": ("objects_in_order", lambda r: r.log.pop(2)),
    "what is gone changes": ("objects_in_order", lambda r: _moved(r, 7, 6)),
    "a watcher is told an older version": ("objects_in_order", lambda r: _told(r, 0, _swapped)),
    "a gap between revisions": ("log_is_gapless", lambda r: _logged(r, 7, revision=9)),
    "a change is never numbered": ("nothing_is_stranded", lambda r: r.stranded.append("pending 7")),
    "an acknowledged change is nowhere": ("acknowledged_is_logged", lambda r: _written(r, 4, version=5)),
    "the event has another content": ("acknowledged_is_logged", lambda r: _written(r, 4, digest=7)),
    "a request is carried out twice": (
        "done_once",
        lambda r: _logged(r, 6, state=B3._replace(marker="m3")),
    ),
    "the later one is numbered first": ("causes_come_first", lambda r: _written(r, 0, began=11)),
    "a transaction in two pieces": ("transactions_are_whole", lambda r: _moved(r, 5, 6)),
    "a part of a transaction elsewhere": ("transactions_are_whole", lambda r: _logged(r, 5, change=8)),
    "a watcher ends with another state": ("all_converge", lambda r: _told(r, 0, lambda c: c[:-1])),
    "a watcher was never in step": ("all_converge", _never_in_step),
    "servers list differently": ("all_converge", lambda r: r.final.__setitem__(1, {CONTAINER: {}})),
    "an answer of a wrong form": ("answers_are_well_formed", _fault),
    "a token is refused elsewhere": ("tokens_hold", lambda r: _probed(r, 0, code="INVALID_ARGUMENT")),
    "a token goes on too late": ("tokens_hold", lambda r: _probed(r, 0, revision=3)),
    "a token goes on without the end": (
        "tokens_hold",
        lambda r: _probed(r, 1, changes=r.probes[1].changes[:-1]),
    ),
    "a token is of use to another filter": ("tokens_hold", lambda r: _probed(r, 3, code="OK", reason="")),
    "a token is of use to another caller": ("tokens_hold", lambda r: _probed(r, 4, code="OK", reason="")),
    "a gap below the horizon": ("tokens_hold", lambda r: _probed(r, 5, code="OK", reason="")),
    "a token of what is gone goes on": ("tokens_hold", lambda r: _probed(r, 6, code="OK", reason="")),
    "a token of another history goes on": ("tokens_hold", lambda r: _probed(r, 7, code="OK", reason="")),
    "a watch of what is gone stays open": (
        "watches_end_with_their_namespace",
        lambda r: setattr(r.watches[5], "ended", ""),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_guarantee_is_found(what: str) -> None:
    validator, break_it = BROKEN[what]
    recording = sound()
    break_it(recording)
    assert validator in violations(recording)


def test_every_validator_has_a_control() -> None:
    assert {validator for validator, _ in BROKEN.values()} == {each.__name__ for each in VALIDATORS}
