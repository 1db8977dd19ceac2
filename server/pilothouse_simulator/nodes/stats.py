"""The usage reports of the kubelets: `stats/summary` (JSON) and `metrics/resource` (Prometheus text).

Both report the same samples: memory, and cumulative core-seconds with the time of the sample, from which the reader
computes rates. Only running containers are reported. The shapes follow recordings of a real kubelet.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pilothouse_simulator.nodes.kubelet import Kubelet, Kubelets
from pilothouse_simulator.nodes.node_pod import NodePod
from pilothouse_simulator.nodes.pod_containers import RunningContainer
from pilothouse_simulator.nodes.pod_usage import (
    SAMPLE_SECONDS,
    Level,
    PodSample,
    level_of,
    pod_core_seconds,
    sample,
)
from pilothouse_simulator.values.clock import Clock, format_time

JsonObject = dict[str, Any]
Row = tuple[RunningContainer, Level, PodSample]

_NO_PRESSURE = {"total": 0, "avg10": 0, "avg60": 0, "avg300": 0}
_PRESSURE = {"full": _NO_PRESSURE, "some": _NO_PRESSURE}
_DISK_BYTES = 268_435_456_000
_DISK_FREE_BYTES = 201_326_592_000
_INODES = 16_777_216
_SYSTEM_CORES = 0.08
_SYSTEM_MEMORY_BYTES = 600 * 2**20
_RSS_SHARE = 0.8
_BYTES_PER_SECOND = 2048


class UsageReporter:
    """Reports the usage of the nodes of `kubelets`."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets

    @property
    def _clock(self) -> Clock:
        return self._kubelets.clock

    def stats_summary(self, node_name: str, *, only_cpu_and_memory: bool = False) -> JsonObject:
        """Returns the summary of one node. Raises KeyError if no kubelet has this name."""
        kubelet = self._kubelets.by_node[node_name]
        now = self._clock.now()
        pods = [
            _pod_report(pod, now, brief=only_cpu_and_memory)
            for pod in kubelet.workers.values()
            if any(container.is_running for container in pod.containers)
        ]
        return {"node": _node_report(kubelet, now, brief=only_cpu_and_memory), "pods": pods}

    def resource_metrics(self, node_name: str) -> str:
        """Returns the resource metrics of one node, with times in milliseconds.

        Raises KeyError like `stats_summary`.
        """
        kubelet = self._kubelets.by_node[node_name]
        return generate_latest(_ResourceMetrics(kubelet, self._clock.now())).decode()


def _rows(pod: NodePod, now: datetime) -> Iterator[Row]:
    for container in pod.containers:
        if container.current is not None and container.is_running:
            level = level_of(pod, container)
            yield container, level, sample(level, container.current, now)


def _cpu(time: str, core_seconds: float, cores: float) -> JsonObject:
    return {
        "time": time,
        "usageNanoCores": int(cores * 1e9),
        "usageCoreNanoSeconds": int(core_seconds * 1e9),
    }


def _memory(time: str, working_set: int, available: int | None) -> JsonObject:
    report: JsonObject = {"time": time}
    if available is not None:
        report["availableBytes"] = available
    return report | {
        "usageBytes": working_set,
        "workingSetBytes": working_set,
        "rssBytes": int(working_set * _RSS_SHARE),
        "pageFaults": working_set // 4096,
        "majorPageFaults": 0,
    }


def _filesystem(time: str, used: int, inodes: int) -> JsonObject:
    return {
        "time": time,
        "availableBytes": _DISK_FREE_BYTES,
        "capacityBytes": _DISK_BYTES,
        "usedBytes": used,
        "inodesFree": _INODES - 400_000,
        "inodes": _INODES,
        "inodesUsed": inodes,
    }


def _pod_report(pod: NodePod, now: datetime, *, brief: bool) -> JsonObject:
    metadata = pod.object["metadata"]
    rows = list(_rows(pod, now))
    newest = max(measured.time for _, _, measured in rows)
    time = format_time(newest)
    working_set = sum(measured.working_set_bytes for _, _, measured in rows)
    cores = sum(measured.cores for _, _, measured in rows)
    report: JsonObject = {
        "podRef": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "startTime": pod.sandbox.start_time,
        "containers": [_container_report(row, brief=brief) for row in rows],
        "cpu": {**_cpu(time, pod_core_seconds(pod, now), cores), "psi": _PRESSURE},
        "memory": {**_memory(time, working_set, None), "psi": _PRESSURE},
    }
    if not brief:
        report["io"] = {"time": time, "psi": _PRESSURE}
        report["ephemeral-storage"] = _filesystem(time, 32_768 * len(rows), 11 * len(rows))
    report["swap"] = {"time": time, "swapUsageBytes": 0}
    return report


def _container_report(row: Row, *, brief: bool) -> JsonObject:
    container, level, measured = row
    time = format_time(measured.time)
    started = container.current.started_at if container.current is not None else measured.time
    available = max(0, level.memory_limit_bytes - measured.working_set_bytes)
    report: JsonObject = {
        "name": container.name,
        "startTime": format_time(started),
        "cpu": _cpu(time, measured.core_seconds, measured.cores),
        "memory": _memory(time, measured.working_set_bytes, available),
    }
    if not brief:
        report["io"] = {"time": time}
        report["rootfs"] = _filesystem(time, 28_672, 10)
        report["logs"] = _filesystem(time, 4_096, 1)
    report["swap"] = {"time": time, "swapAvailableBytes": 0, "swapUsageBytes": 0}
    return report


def _node_sample(kubelet: Kubelet, now: datetime) -> tuple[datetime, float, float, int]:
    """Returns time, core-seconds, cores and working set of a node, for its system and all its pods."""
    age = (now - kubelet.started_at).total_seconds()
    taken = age // SAMPLE_SECONDS * SAMPLE_SECONDS
    core_seconds = kubelet.gone_core_seconds + _SYSTEM_CORES * taken
    cores, memory = _SYSTEM_CORES, _SYSTEM_MEMORY_BYTES
    for pod in kubelet.workers.values():
        core_seconds += pod_core_seconds(pod, now)
        for _, _, measured in _rows(pod, now):
            cores += measured.cores
            memory += measured.working_set_bytes
    return kubelet.started_at + timedelta(seconds=taken), core_seconds, cores, memory


def _node_report(kubelet: Kubelet, now: datetime, *, brief: bool) -> JsonObject:
    moment, core_seconds, cores, memory = _node_sample(kubelet, now)
    time, start = format_time(moment), format_time(kubelet.started_at)
    available = max(0, kubelet.memory_bytes - memory)
    pods_memory = memory - _SYSTEM_MEMORY_BYTES
    pods_seconds = core_seconds - _SYSTEM_CORES * (moment - kubelet.started_at).total_seconds()
    pods: JsonObject = {
        "name": "pods",
        "startTime": start,
        "cpu": {**_cpu(time, pods_seconds, cores - _SYSTEM_CORES), "psi": _PRESSURE},
        "memory": {**_memory(time, pods_memory, available), "psi": _PRESSURE},
    }
    report: JsonObject = {
        "nodeName": kubelet.name,
        "systemContainers": [pods],
        "startTime": start,
        "cpu": {**_cpu(time, core_seconds, cores), "psi": _PRESSURE},
        "memory": {**_memory(time, memory, available), "psi": _PRESSURE},
    }
    if not brief:
        pods["io"] = report["io"] = {"time": time, "psi": _PRESSURE}
        transferred = int((moment - kubelet.started_at).total_seconds() * _BYTES_PER_SECOND)
        interface = {
            "name": "eth0",
            "rxBytes": transferred,
            "rxErrors": 0,
            "txBytes": transferred // 2,
            "txErrors": 0,
        }
        report["network"] = {"time": time, **interface, "interfaces": [interface]}
        report["fs"] = _filesystem(time, _DISK_BYTES - _DISK_FREE_BYTES, 400_000)
        images = _filesystem(time, 3_395_584, 456)
        report["runtime"] = {"imageFs": images, "containerFs": images}
        report["rlimit"] = {"time": time, "maxpid": 32_768, "curproc": 200 + len(kubelet.workers)}
    pods["swap"] = {"time": time, "swapUsageBytes": 0}
    report["swap"] = {"time": time, "swapAvailableBytes": 0, "swapUsageBytes": 0}
    return report


class _ResourceMetrics(Collector):
    """The metric families of one node, sorted by name."""

    def __init__(self, kubelet: Kubelet, now: datetime) -> None:
        self._kubelet = kubelet
        self._now = now

    def collect(self) -> Iterator[Metric]:
        of_container, of_pod = ["container", "namespace", "pod"], ["namespace", "pod"]
        swap = "Reported only on non-windows systems"
        cpu = CounterMetricFamily(
            "container_cpu_usage_seconds_total",
            "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
            labels=of_container,
        )
        memory = GaugeMetricFamily(
            "container_memory_working_set_bytes",
            "[STABLE] Current working set of the container in bytes",
            labels=of_container,
        )
        start = GaugeMetricFamily(
            "container_start_time_seconds",
            "[STABLE] Start time of the container since unix epoch in seconds",
            labels=of_container,
        )
        swap_limit = GaugeMetricFamily(
            "container_swap_limit_bytes",
            f"[ALPHA] Current amount of the container swap limit in bytes. {swap}",
            labels=of_container,
        )
        swap_usage = GaugeMetricFamily(
            "container_swap_usage_bytes",
            f"[ALPHA] Current amount of the container swap usage in bytes. {swap}",
            labels=of_container,
        )
        pod_cpu = CounterMetricFamily(
            "pod_cpu_usage_seconds_total",
            "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
            labels=of_pod,
        )
        pod_memory = GaugeMetricFamily(
            "pod_memory_working_set_bytes",
            "[STABLE] Current working set of the pod in bytes",
            labels=of_pod,
        )
        pod_swap = GaugeMetricFamily(
            "pod_swap_usage_bytes",
            f"[ALPHA] Current amount of the pod swap usage in bytes. {swap}",
            labels=of_pod,
        )
        for pod in self._kubelet.workers.values():
            metadata = pod.object["metadata"]
            place = [metadata["namespace"], metadata["name"]]
            rows = list(_rows(pod, self._now))
            if not rows:
                continue
            for container, _, measured in rows:
                labels, time = [container.name, *place], measured.time.timestamp()
                cpu.add_metric(labels, measured.core_seconds, timestamp=time)
                memory.add_metric(labels, measured.working_set_bytes, timestamp=time)
                if container.current is not None:
                    start.add_metric(labels, container.current.started_at.timestamp())
                swap_limit.add_metric(labels, 0, timestamp=time)
                swap_usage.add_metric(labels, 0, timestamp=time)
            newest = max(measured.time for _, _, measured in rows).timestamp()
            pod_cpu.add_metric(place, pod_core_seconds(pod, self._now), timestamp=newest)
            total = sum(measured.working_set_bytes for _, _, measured in rows)
            pod_memory.add_metric(place, total, timestamp=newest)
            pod_swap.add_metric(place, 0, timestamp=newest)
        yield from (cpu, memory, start, swap_limit, swap_usage)
        yield from self._node(swap)
        yield from (pod_cpu, pod_memory, pod_swap)
        error = GaugeMetricFamily(
            "resource_scrape_error",
            "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
        )
        error.add_metric([], 0)
        yield error

    def _node(self, swap: str) -> Iterator[Metric]:
        moment, core_seconds, _, working_set = _node_sample(self._kubelet, self._now)
        time = moment.timestamp()
        cpu = CounterMetricFamily(
            "node_cpu_usage_seconds_total",
            "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        )
        cpu.add_metric([], core_seconds, timestamp=time)
        memory = GaugeMetricFamily(
            "node_memory_working_set_bytes", "[STABLE] Current working set of the node in bytes"
        )
        memory.add_metric([], working_set, timestamp=time)
        usage = GaugeMetricFamily(
            "node_swap_usage_bytes", f"[ALPHA] Current swap usage of the node in bytes. {swap}"
        )
        usage.add_metric([], 0, timestamp=time)
        yield from (cpu, memory, usage)
