"""The metrics of several processes as those of one server: sums that never fall, and gauges of each process."""

from __future__ import annotations

from pilothouse_server.launch.processes.link import Family, Figures, ProcessSample
from pilothouse_server.launch.processes.metrics import Totals

CALLS, OPEN, CPU = "pilothouse_calls", "pilothouse_open", "process_cpu_seconds"
Found = dict[tuple[str, str], float]


def figures(calls: dict[str, float], *, open_now: float = 0.0, created: float = 100.0) -> Figures:
    """Returns the figures of a process with these numbers of calls by method."""
    samples = [ProcessSample(f"{CALLS}_total", {"method": method}, value) for method, value in calls.items()]
    since = [ProcessSample(f"{CALLS}_created", {"method": method}, created) for method in calls]
    return Figures(
        [
            Family(CALLS, "Calls.", "counter", [*samples, *since]),
            Family(OPEN, "Open.", "gauge", [ProcessSample(OPEN, {}, open_now)]),
            Family(CPU, "CPU.", "counter", [ProcessSample(f"{CPU}_total", {}, 1.5)]),
        ]
    )


def seen(totals: Totals, *heard: str) -> Found:
    """Returns the values by sample name and the value of the only label."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for metric in totals.metrics(heard)
        for sample in metric.samples
    }


def test_counters_are_summed_and_gauges_are_kept_by_process() -> None:
    totals = Totals()
    totals.heard("1", figures({"Get": 3.0}, open_now=2.0, created=70.0))
    totals.heard("2", figures({"Get": 4.0, "List": 1.0}, open_now=5.0, created=80.0))
    assert seen(totals, "1", "2") == {
        (f"{CALLS}_total", "Get"): 7.0,
        (f"{CALLS}_total", "List"): 1.0,
        (f"{CALLS}_created", "Get"): 70.0,
        (f"{CALLS}_created", "List"): 80.0,
        (OPEN, "1"): 2.0,
        (OPEN, "2"): 5.0,
        (f"{CPU}_total", "1"): 1.5,
        (f"{CPU}_total", "2"): 1.5,
    }


def test_a_sum_does_not_fall_when_a_process_restarts() -> None:
    totals = Totals()
    totals.heard("1", figures({"Get": 3.0}))
    totals.heard("2", figures({"Get": 4.0}))
    totals.ended("1")
    assert seen(totals, "2")[f"{CALLS}_total", "Get"] == 7.0
    assert (OPEN, "1") not in seen(totals, "2")
    totals.heard("1", figures({"Get": 1.0, "Watch": 1.0}))
    totals.heard("2", figures({"Get": 6.0}))
    assert seen(totals, "1", "2")[f"{CALLS}_total", "Get"] == 10.0
    assert seen(totals, "1", "2")[f"{CALLS}_total", "Watch"] == 1.0


def test_a_process_that_does_not_respond_stays_in_the_sums() -> None:
    totals = Totals()
    totals.heard("1", figures({"Get": 3.0}, open_now=2.0))
    totals.heard("2", figures({"Get": 4.0}, open_now=2.0))
    found = seen(totals, "2")
    assert found[f"{CALLS}_total", "Get"] == 7.0
    assert [key for key in found if key[0] == OPEN] == [(OPEN, "2")]


def test_a_process_that_ended_before_a_scrape_changes_nothing() -> None:
    totals = Totals()
    totals.ended("1")
    assert totals.metrics([]) == []
