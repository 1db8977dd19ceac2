"""Each marked object is due once, at its time, and objects are taken in the order of their times."""

from __future__ import annotations

from pilothouse_server.reconcile.observe.schedule import Schedule


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.changes = 0

    def read(self) -> float:
        return self.now

    def changed(self) -> None:
        self.changes += 1


def _schedule() -> tuple[Clock, Schedule]:
    clock = Clock()
    return clock, Schedule(clock.changed, clock.read)


def test_nothing_is_due_before_its_time() -> None:
    clock, schedule = _schedule()
    assert schedule.seconds_to_next() is None
    schedule.mark("a", in_seconds=2.0)
    assert (schedule.take(), schedule.seconds_to_next(), clock.changes) == ([], 2.0, 1)
    clock.now += 3.0
    assert schedule.seconds_to_next() == 0.0
    assert (schedule.take(), schedule.take()) == (["a"], [])


def test_a_later_mark_does_not_delay_but_a_postponement_does() -> None:
    clock, schedule = _schedule()
    schedule.mark("a", in_seconds=1.0)
    schedule.mark("a", in_seconds=5.0)
    assert schedule.seconds_to_next() == 1.0
    schedule.postpone("a", in_seconds=5.0)
    assert schedule.seconds_to_next() == 5.0
    assert clock.changes == 3


def test_objects_that_wait_longest_are_taken_first() -> None:
    clock, schedule = _schedule()
    for number, uid in enumerate(("c", "a", "b")):
        schedule.mark(uid, in_seconds=float(number))
    clock.now += 10.0
    assert (schedule.take(2), schedule.take(2)) == (["c", "a"], ["b"])
