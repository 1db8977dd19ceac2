"""The metrics of all processes, served as those of one server.

Our own counters and histograms are summed, because a reader wants the number of calls of the whole server. The last
counts of a process stay in the sum after its end, so that a sum never falls: Prometheus would take a fall for a restart
of the whole server, and count everything again. A gauge belongs to one process, and so do all metrics of the
interpreter and the kernel (`process_…`, `python_…`): these have the label `process`.

A process that does not respond in time contributes its last counts to the sums, and its gauges are left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import prometheus_client
from prometheus_client import Metric
from prometheus_client.registry import Collector

from pilothouse_server.launch.processes.link import Family, Figures, ProcessSample
from pilothouse_server.settings.model import address_refused

_OURS = "pilothouse_"
_SUMMED = ("counter", "histogram", "summary")
# Prometheus' sample of a counter's creation time; a sum has the earliest one.
_CREATED = "_created"
# Longer than the supervisor waits for any process.
_COLLECT_SECONDS = 10.0
_Labels = tuple[tuple[str, str], ...]
# By family, sample and labels.
_Sums = dict[tuple[str, str, _Labels], float]


class Totals:
    """The counts of ended processes, and the last counts of each running process."""

    def __init__(self) -> None:
        self._ended: _Sums = {}
        self._last: dict[str, Figures] = {}
        self._families: dict[str, Family] = {}

    def heard(self, process: str, figures: Figures) -> None:
        """Replaces the previous metrics of a process."""
        self._last[process] = figures
        for family in figures.families:
            self._families.setdefault(family.name, family)

    def ended(self, process: str) -> None:
        """Keeps the counts of an ended process; the next process of its name begins at zero."""
        figures = self._last.pop(process, None)
        if figures is not None:
            _add(self._ended, figures)

    def metrics(self, heard_now: Collection[str]) -> list[Metric]:
        """Returns all metrics with samples; gauges only of the processes in `heard_now`."""
        sums = dict(self._ended)
        for figures in self._last.values():
            _add(sums, figures)
        metrics = {name: Metric(name, family.help, family.kind) for name, family in self._families.items()}
        for (family_name, sample_name, labels), value in sums.items():
            metrics[family_name].add_sample(sample_name, dict(labels), value)
        for process in heard_now:
            for family in self._last[process].families:
                if not _is_summed(family):
                    for sample in family.samples:
                        labelled = {**sample.labels, "process": process}
                        metrics[family.name].add_sample(sample.name, labelled, sample.value)
        return [metric for metric in metrics.values() if metric.samples]


def _is_summed(family: Family) -> bool:
    return family.kind in _SUMMED and family.name.startswith(_OURS)


def _add(sums: _Sums, figures: Figures) -> None:
    for family in figures.families:
        if _is_summed(family):
            for sample in family.samples:
                _add_sample(sums, family.name, sample)


def _add_sample(sums: _Sums, family_name: str, sample: ProcessSample) -> None:
    key = family_name, sample.name, tuple(sorted(sample.labels.items()))
    if sample.name.endswith(_CREATED):
        sums[key] = min(sums.get(key, sample.value), sample.value)
    else:
        sums[key] = sums.get(key, 0.0) + sample.value


def figures_of_this_process() -> Figures:
    """Returns the counts and measurements of this process."""
    return Figures(
        [
            Family(
                family.name,
                family.documentation,
                family.type,
                [
                    ProcessSample(sample.name, dict(sample.labels), float(sample.value))
                    for sample in family.samples
                ],
            )
            for family in prometheus_client.REGISTRY.collect()
        ]
    )


class MetricsServer:
    """Serves the result of `collect` over HTTP; `collect` runs on the event loop and is called from server threads.

    `port` is the port that it listens on.
    """

    def __init__(self, listen: str, collect: Callable[[], Coroutine[Any, Any, list[Metric]]]) -> None:
        self._collect = collect
        self._loop = asyncio.get_running_loop()
        host, _, port = listen.rpartition(":")
        try:
            self._server, self._thread = prometheus_client.start_http_server(
                int(port), host or "127.0.0.1", _Registry(self._families)
            )
        except (OSError, ValueError, OverflowError):
            raise address_refused(listen, "METRICS_LISTEN") from None
        self.port = int(self._server.server_port)

    def _families(self) -> list[Metric]:
        return asyncio.run_coroutine_threadsafe(self._collect(), self._loop).result(_COLLECT_SECONDS)

    async def close(self) -> None:
        """Stops the server after the running responses are complete."""
        await asyncio.to_thread(self._server.shutdown)
        self._server.server_close()


class _Registry(Collector):
    def __init__(self, families: Callable[[], list[Metric]]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families()
