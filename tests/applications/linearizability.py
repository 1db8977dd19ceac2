"""Checks whether a history of concurrent calls on one application is linearizable.

It is linearizable if each call can have happened at one moment between its start and its end, so that all results
follow from the order of these moments.

The search is that of Wing and Gong: among the remaining calls, it picks one that began before any of them ended, and
backtracks when the model contradicts the result. It remembers which pairs of completed calls and state it has tried.
The model follows the promises in `docs/applications.md` and shares no code with the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Verb = Literal["apply", "get", "read", "rollback", "delete"]
# The contents of all revisions, the newest last. None means that the application does not exist.
State = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Done:
    """A call with its result. `value` is the content that an apply sent or a read returned.

    `revision` is that of the response, or 0 if the application or the revision was not found. A `refused` call has no
    effect: another call was in progress, or an object was still being deleted.
    """

    verb: Verb
    began: float
    ended: float
    revision: int = 0
    value: str = ""
    refused: bool = False


def is_linearizable(history: Sequence[Done], first: State = None) -> bool:
    """Returns whether an order of the calls explains all results."""
    calls = sorted((each for each in history if not each.refused), key=lambda each: each.began)
    everything = (1 << len(calls)) - 1
    tried: set[tuple[int, State]] = set()
    pending: list[tuple[int, State]] = [(0, first)]
    while pending:
        done, state = pending.pop()
        if done == everything:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        left = [number for number in range(len(calls)) if not done >> number & 1]
        first_end = min(calls[number].ended for number in left)
        for number in left:
            if calls[number].began > first_end:
                break
            is_explained, after = _applied(state, calls[number])
            if is_explained:
                pending.append((done | 1 << number, after))
    return False


def _applied(state: State, call: Done) -> tuple[bool, State]:
    """Returns whether the model gives this result in a state, and the state after the call."""
    match call.verb:
        case "get":
            return call.revision == len(state or ()), state
        case "read":
            return (call.revision, call.value) == (
                len(state),
                state[-1],
            ) if state else call.revision == 0, state
        case "delete":
            return (call.revision > 0) == (state is not None), None
        case "rollback":
            if state is None or len(state) < 2:
                return call.revision == 0, state
            return _changed(state, state[-2], call)
        case _:
            return _changed(state or (), call.value, call)


def _changed(state: tuple[str, ...], value: str, call: Done) -> tuple[bool, State]:
    """Returns the same for an apply or a rollback, which create a revision only if the content changes."""
    after = state if state and state[-1] == value else (*state, value)
    return call.revision == len(after), after
