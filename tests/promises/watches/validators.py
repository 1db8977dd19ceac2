"""One function for each guarantee of watches; each returns its faults.

The functions read a `Recording`. The required events of a watcher are computed from the messages of the log by
the tests' own filter (`expected`), not from the columns that the server uses. A first state may show changes
that were committed and not yet numbered: their events are not sent. So for each object, the required events of
a life begin after the change that left the object as the first state shows it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from tests.promises.watches.recording import (
    ADDED,
    CONFIG,
    CONTAINER,
    DELETED,
    MODIFIED,
    Life,
    Logged,
    Recording,
    Seen,
    State,
    Wanted,
)

# The number of faults of one kind that are named; the others are only counted.
_NAMED = 5
_ALWAYS_CHANGES = ("create", "update", "restart")


class Due(NamedTuple):
    """A change that a filter shows.

    `left` is the object's digest afterwards, or None if it is no longer shown.
    """

    seen: Seen
    left: int | None


def expected(log: Sequence[Logged], wanted: Wanted) -> list[Due]:
    """Returns the events of the whole log for a watch of this filter."""
    shown: set[str] = set()
    found = []
    for event in log:
        state = event.state
        if not wanted.concerns(event.kind, state.namespace):
            continue
        before, now = state.uid in shown, event.what != DELETED and wanted.matches(state)
        if now:
            shown.add(state.uid)
        else:
            shown.discard(state.uid)
        if not (before or now):
            continue
        change = DELETED if not now else MODIFIED if before and event.what == MODIFIED else ADDED
        seen = Seen(event.revision, change, state.uid, state.version, state.digest)
        found.append(Due(seen, state.digest if now else None))
    return found


class Told(NamedTuple):
    """A life and its required events.

    These are the watcher's name, the life, the due events by revision, and the faults of its first state.
    """

    watch: str
    life: Life
    due: Mapping[int, Seen]
    unjoined: Sequence[str]


@lru_cache(maxsize=1)
def told(recording: Recording) -> list[Told]:
    """Returns every life of every watch, compared with the log.

    A recording is compared only when it is complete.
    """
    found = []
    by_filter: dict[Wanted, list[Due]] = {}
    for watch in recording.watches:
        if watch.wanted not in by_filter:
            by_filter[watch.wanted] = expected(recording.log, watch.wanted)
        for life in watch.lives:
            due, unjoined = following(life, by_filter[watch.wanted])
            so_far = {seen.revision: seen for seen in due if seen.revision <= life.until}
            found.append(Told(watch.name, life, so_far, [f"{watch.name}: {fault}" for fault in unjoined]))
    return found


def following(life: Life, dues: Sequence[Due]) -> tuple[list[Seen], list[str]]:
    """Returns the due events of a life after its first state, and its faults.

    The events are computed object by object.
    """
    at_first: dict[str, int | None] = {}
    later: dict[str, list[Due]] = defaultdict(list)
    for due in dues:
        if due.seen.revision <= life.began:
            at_first[due.seen.uid] = due.left
        else:
            later[due.seen.uid].append(due)
    begun_with: dict[str, int] = {}
    for seen in life.changes:
        begun_with.setdefault(seen.uid, seen.revision)
    found: list[Seen] = []
    unjoined = []
    for uid in at_first.keys() | later.keys() | life.first.keys():
        joined = _joined(
            life.first.get(uid), at_first.get(uid), later.get(uid, ()), life, begun_with.get(uid)
        )
        if joined is None:
            unjoined.append(f"the first state at {life.began} shows {uid} as it was at no time")
        else:
            found += [due.seen for due in joined]
    return found, unjoined


def _joined(
    first: int | None, at_first: int | None, following: Sequence[Due], life: Life, begun_with: int | None
) -> Sequence[Due] | None:
    """Returns the due events of one object after the first state.

    Returns None if the first state does not show a state that the object had. If the object had the same state
    twice, the events the watcher received decide which one counts: `begun_with` is the revision of the first
    one, and None means that there was none.
    """
    candidates = [0] if first == at_first else []
    candidates += [number for number, due in enumerate(following, 1) if due.left == first]
    if not candidates:
        return None
    for number in candidates:
        rest = following[number:]
        next_one = rest[0].seen.revision if rest else None
        untold = begun_with is None and (next_one is None or next_one > life.until)
        if untold or (next_one is not None and next_one == begun_with):
            return rest
    return following[candidates[0] :]


def _some(faults: Iterable[str]) -> list[str]:
    """Returns the first faults, and how many there are."""
    found = list(faults)
    return found if len(found) <= _NAMED else [*found[:_NAMED], f"… {len(found)} of these"]


def no_loss(recording: Recording) -> list[str]:
    """Checks that watchers receive every event that their filter matches.

    This includes events during cuts, kills and changes of the server.
    """
    return _some(
        f"{each.watch} was not told {each.due[revision]}"
        for each in told(recording)
        for revision in sorted(each.due.keys() - {seen.revision for seen in each.life.changes})
    )


def nothing_twice(recording: Recording) -> list[str]:
    """Checks that no change is sent twice, or again after the first state."""
    found = []
    for each in told(recording):
        revisions: set[int] = set()
        last: dict[str, tuple[int, str]] = {}
        for seen in each.life.changes:
            again = seen.revision in revisions or last.get(seen.uid) == (seen.digest, seen.change)
            revisions.add(seen.revision)
            last[seen.uid] = seen.digest, seen.change
            early = seen.revision not in each.due and each.life.first.get(seen.uid) == seen.digest
            if again or early:
                found.append(f"{each.watch} was told {seen} twice")
    return _some(found)


def only_what_matches(recording: Recording) -> list[str]:
    """Checks that every event is in the log and matches the filter.

    It must show the object as the log does. An object that leaves the filter is reported as DELETED, one that
    begins to match it as ADDED.
    """
    return _some(
        f"{each.watch} was told {seen}, where {each.due.get(seen.revision)} was due"
        for each in told(recording)
        for seen in each.life.changes
        if each.due.get(seen.revision) != seen
    )


def first_states_are_whole(recording: Recording) -> list[str]:
    """Checks that a first state shows each object as it was.

    That is its state at the revision of SYNCED, or after a later change whose event is not sent.
    """
    return _some(fault for each in told(recording) for fault in each.unjoined)


def revisions_rise(recording: Recording) -> list[str]:
    """Checks that the revisions of a watch rise, over all cuts."""
    found = []
    for watch in recording.watches:
        for life in watch.lives:
            newest = life.began
            for seen in life.changes:
                if seen.revision <= newest:
                    found.append(f"{watch.name} was told {seen} after revision {newest}")
                newest = max(newest, seen.revision)
    return _some(found)


def objects_in_order(recording: Recording) -> list[str]:
    """Checks that the events of one object are in the order of its versions.

    No version is missing or repeated.
    """
    found = []
    versions: dict[str, int] = {}
    gone: set[str] = set()
    for event in recording.log:
        state = event.state
        before = versions.get(state.uid, 0)
        right = before <= state.version <= before + 1 and (before > 0) == (event.what != ADDED)
        if not right or state.uid in gone:
            found.append(f"the log goes from version {before} of {state.name} to {event}")
        if event.what == DELETED:
            gone.add(state.uid)
        versions[state.uid] = state.version
    for watch in recording.watches:
        for life in watch.lives:
            last: dict[str, int] = {}
            for seen in life.changes:
                if seen.version < last.get(seen.uid, 0):
                    found.append(f"{watch.name} was told {seen} after version {last[seen.uid]}")
                last[seen.uid] = seen.version
    return _some(found)


def log_is_gapless(recording: Recording) -> list[str]:
    """Checks that revisions are numbered without gaps.

    A log whose beginning was removed starts with a later revision.
    """
    revisions = [event.revision for event in recording.log]
    return _some(
        f"revision {before} is followed by {after}"
        for before, after in pairwise(revisions)
        if after != before + 1
    )


def nothing_is_stranded(recording: Recording) -> list[str]:
    """Checks that every committed change is numbered."""
    return _some(recording.stranded)


def acknowledged_is_logged(recording: Recording) -> list[str]:
    """Checks that every acknowledged mutation has its event.

    The event must have the content of the mutation's response.
    """
    events: dict[tuple[str, int], set[int]] = defaultdict(set)
    for event in recording.log:
        events[event.state.uid, event.state.version].add(event.state.digest)
    found = []
    for write in recording.writes:
        digests = events.get((write.uid, write.version))
        if digests is None:
            found.append(f"{write} was acknowledged and is not in the log")
        elif write.digest not in digests:
            found.append(f"{write} was answered with another content than its event has")
    return _some(found)


def done_once(recording: Recording) -> list[str]:
    """Checks that a repeated mutation was executed once.

    Mutations are repeated if their response was lost.
    """
    found = []
    markers: dict[str, int] = {}
    last: dict[str, str] = {}
    for event in recording.log:
        state = event.state
        if state.marker and state.marker != last.get(state.uid):
            if state.marker in markers:
                found.append(f"{state.marker} is in revisions {markers[state.marker]} and {event.revision}")
            markers[state.marker] = event.revision
        last[state.uid] = state.marker
    return _some(found)


def causes_come_first(recording: Recording) -> list[str]:
    """Checks that A comes before B if B was requested after A's response."""
    revisions: dict[tuple[str, int], Logged] = {}
    for event in recording.log:
        revisions.setdefault((event.state.uid, event.state.version), event)
    own = []
    for write in recording.writes:
        logged = revisions.get((write.uid, write.version))
        # A mutation that changed nothing has no event.
        if logged is not None and (
            logged.operation in write.operations
            or (write.verb in _ALWAYS_CHANGES and logged.state.marker == write.marker)
        ):
            own.append((write, logged.revision))
    ended = sorted(((write.ended, revision, write) for write, revision in own), key=lambda one: one[0])
    ticks = [tick for tick, _, _ in ended]
    # For each response, the highest revision of all responses up to then.
    newest: list[tuple[int, object]] = []
    for _, revision, write in ended:
        newest.append((revision, write) if not newest or revision > newest[-1][0] else newest[-1])
    found = []
    for write, revision in own:
        place = bisect_right(ticks, write.began - 1)
        if place and newest[place - 1][0] > revision:
            found.append(
                f"{write} was begun after the answer to {newest[place - 1][1]}, and is numbered before it"
            )
    return _some(found)


def transactions_are_whole(recording: Recording) -> list[str]:
    """Checks that all events of a transaction are adjacent.

    The further resources that a response names must be among them.
    """
    found = []
    closed: set[int] = set()
    changes: dict[int, list[Logged]] = defaultdict(list)
    previous = None
    for event in recording.log:
        if event.change != previous and previous is not None:
            closed.add(previous)
        if event.change in closed:
            found.append(f"the change of {event} is not in one piece")
        changes[event.change].append(event)
        previous = event.change
    by_version = {(each.state.uid, each.state.version): each.change for each in reversed(recording.log)}
    for write in recording.writes:
        change = changes.get(by_version.get((write.uid, write.version), 0), [])
        beside = {event.state.name for event in change if event.kind == CONTAINER}
        if write.restarted and not beside.issuperset(write.restarted):
            found.append(f"{write} restarted containers whose events are not with its own")
    return _some(found)


def all_converge(recording: Recording) -> list[str]:
    """Checks that each watcher's state equals the lists of all servers."""
    found = []
    for number, lists in enumerate(recording.final):
        for kind in (CONTAINER, CONFIG):
            first = recording.final[0].get(kind, {})
            differing = _differing(_digests(lists.get(kind, {})), _digests(first))
            found += [f"servers 0 and {number} list {uid} differently" for uid in differing]
    for watch in recording.watches:
        if not watch.lives:
            found.append(f"{watch.name} never was in step")
            continue
        life = watch.lives[-1]
        account = dict(life.first)
        for seen in life.changes:
            if seen.change == DELETED:
                account.pop(seen.uid, None)
            else:
                account[seen.uid] = seen.digest
        listed = recording.final[0].get(watch.wanted.kind, {}) if recording.final else {}
        shown = {
            uid: state.digest
            for uid, state in listed.items()
            if watch.wanted.concerns(watch.wanted.kind, state.namespace) and watch.wanted.matches(state)
        }
        found += [
            f"{watch.name} ends with another {uid} than is listed" for uid in _differing(account, shown)
        ]
    return _some(found)


def _digests(states: Mapping[str, State]) -> dict[str, int]:
    return {uid: state.digest for uid, state in states.items()}


def _differing(one: Mapping[str, int], other: Mapping[str, int]) -> list[str]:
    return sorted(uid for uid in one.keys() | other.keys() if one.get(uid) != other.get(uid))


def answers_are_well_formed(recording: Recording) -> list[str]:
    """Checks the form of messages and the ends of streams.

    The first state comes before SYNCED and without a token. Later events have a token, and streams end as
    declared.
    """
    return _some(f"{watch.name}: {fault}" for watch in recording.watches for fault in watch.faults)


# The required outcome of a token, by the way in which it is tried.
GOES_ON, ANOTHERS_FILTER, ANOTHERS_CALLER, BELOW_THE_HORIZON = "goes on", "filter", "caller", "below"
OF_THE_GONE, OF_ANOTHER_HISTORY = "gone", "history"
_VERDICTS = {
    GOES_ON: ("OK", ""),
    ANOTHERS_FILTER: ("INVALID_ARGUMENT", "RESUME_TOKEN"),
    ANOTHERS_CALLER: ("INVALID_ARGUMENT", "RESUME_TOKEN"),
    BELOW_THE_HORIZON: ("OUT_OF_RANGE", "WATCH_HORIZON"),
    OF_THE_GONE: ("OUT_OF_RANGE", "WATCH_CHANGED"),
    OF_ANOTHER_HISTORY: ("OUT_OF_RANGE", "WATCH_CHANGED"),
}


def tokens_hold(recording: Recording) -> list[str]:
    """Checks that a token resumes at any server exactly after its message.

    It must not work for other callers or filters, below the horizon, in another history, or if its namespace is
    deleted.
    """
    found = []
    # The due events of each life in which a tried token was sent.
    dues: dict[tuple[int, int], list[Seen]] = {}
    for probe in recording.probes:
        watch = recording.watches[probe.watch]
        if (probe.code, probe.reason) != _VERDICTS[probe.how]:
            found.append(f"{watch.name}: a token of revision {probe.revision} ({probe.how}) came to {probe}")
        if probe.how != GOES_ON or probe.code != "OK" or probe.life >= len(watch.lives):
            continue
        place = probe.watch, probe.life
        if place not in dues:
            due, _ = following(watch.lives[probe.life], expected(recording.log, watch.wanted))
            dues[place] = sorted(due)
        after = [seen for seen in dues[place] if seen.revision > probe.revision]
        if tuple(after if probe.whole else after[: len(probe.changes)]) != probe.changes:
            found.append(f"{watch.name}: a token of revision {probe.revision} did not go on where it stands")
    return _some(found)


def watches_end_with_their_namespace(recording: Recording) -> list[str]:
    """Checks that only watches of deleted namespaces end with NOT_FOUND."""
    found = []
    for watch in recording.watches:
        due = "NOT_FOUND NAMESPACE_NOT_FOUND" if watch.wanted.namespace in recording.gone else ""
        if watch.ended != due:
            found.append(
                f"{watch.name} ended with {watch.ended or 'nothing'}, where {due or 'nothing'} was due"
            )
    return found


VALIDATORS: tuple[Callable[[Recording], list[str]], ...] = (
    no_loss,
    nothing_twice,
    only_what_matches,
    first_states_are_whole,
    revisions_rise,
    objects_in_order,
    log_is_gapless,
    nothing_is_stranded,
    acknowledged_is_logged,
    done_once,
    causes_come_first,
    transactions_are_whole,
    all_converge,
    answers_are_well_formed,
    tokens_hold,
    watches_end_with_their_namespace,
)


def violations(recording: Recording) -> dict[str, list[str]]:
    """Returns guarantee → its faults; empty if all guarantees hold."""
    found = {validator.__name__: validator(recording) for validator in VALIDATORS}
    return {name: faults for name, faults in found.items() if faults}
