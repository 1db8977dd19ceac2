"""Counts calls and measures how long they take, for Prometheus.

It is the outermost layer (`outer`), so that no call is missed. A call changes five numbers, all on the event loop. They
become samples when Prometheus reads them. The library's own metrics would take a lock for each number and a search for
the bucket, 8 µs a call.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate

import prometheus_client
from prometheus_client import Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.method_rules import Rule

_NAMES = ("service", "method")
# The last bound is infinity.
_BOUNDS = tuple(Histogram.DEFAULT_BUCKETS)


class Counts:
    """The counts of one method."""

    __slots__ = ("_buckets", "_codes", "_in_flight", "_seconds", "_times", "names", "since")

    def __init__(self, rule: Rule) -> None:
        self.names = (rule.service, rule.name)
        self.since = time.time()
        self._in_flight = 0
        self._codes: defaultdict[str, int] = defaultdict(int)
        # Callers decide how long a stream lasts, so its duration does not measure the server.
        self._times = not rule.streams
        self._seconds = 0.0
        self._buckets = [0] * len(_BOUNDS)

    def began(self) -> None:
        """Counts the beginning of a call."""
        self._in_flight += 1

    def ended(self, call: Call, code: str) -> None:
        """Counts the end of a call with this code."""
        self._in_flight -= 1
        self._codes[code] += 1
        if self._times:
            seconds = call.seconds()
            self._seconds += seconds
            self._buckets[bisect_left(_BOUNDS, seconds)] += 1

    def add_to(
        self, calls: CounterMetricFamily, seconds: HistogramMetricFamily, in_flight: GaugeMetricFamily
    ) -> None:
        """Adds the counts to the metrics; called from any thread."""
        names = [*self.names]
        in_flight.add_metric(names, self._in_flight)
        for code, count in list(self._codes.items()):
            calls.add_metric([*names, code], count, created=self.since)
        if self._times:
            buckets = list(zip(map(floatToGoString, _BOUNDS), accumulate(self._buckets), strict=True))
            seconds.add_metric(names, buckets, self._seconds)
            labels = dict(zip(_NAMES, names, strict=True))
            seconds.add_sample(f"{seconds.name}_created", labels, self.since)


class _Calls(Collector):
    """The samples of all methods."""

    def __init__(self) -> None:
        self.methods: dict[str, Counts] = {}

    def describe(self) -> Iterable[Metric]:
        return self._families()

    def collect(self) -> Iterable[Metric]:
        families = self._families()
        for each in list(self.methods.values()):
            each.add_to(*families)
        return families

    def _families(self) -> tuple[CounterMetricFamily, HistogramMetricFamily, GaugeMetricFamily]:
        return (
            CounterMetricFamily("pilothouse_rpc_calls", "Calls by outcome.", labels=[*_NAMES, "code"]),
            HistogramMetricFamily("pilothouse_rpc_seconds", "Duration of unary calls.", labels=_NAMES),
            GaugeMetricFamily("pilothouse_rpc_in_flight", "Calls being served.", labels=_NAMES),
        )


_calls = _Calls()
prometheus_client.REGISTRY.register(_calls)


def counts_of(rule: Rule) -> Counts:
    """Returns the counts of a method, which all servers of this process share."""
    return _calls.methods.get(rule.method) or _calls.methods.setdefault(rule.method, Counts(rule))
