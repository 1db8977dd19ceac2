"""A simulated cluster that takes its time like the one that was recorded.

By default simulated nodes are quicker than real ones. Replays send their requests at recorded times, so they need
nodes about as slow as the recorded one to meet a pod in the state that was recorded.
"""

from __future__ import annotations

from dataclasses import replace

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.nodes.node import Timings

RECORDED_TIMINGS = Timings(
    sandbox=0.4, create=0.015, start=0.05, notice=0.75, show_back_off=1.05, stop=0.1, remove=0.5
)
# Names of the recorded machine, and text made from it.
NODE_VALUES = frozenset({"reportingInstance", "host"})


def recorded_cluster(speed: float, *, ahead_seconds: float = 0.0, **timings: float) -> SimulatedCluster:
    """A cluster with one node of recorded slowness, not yet started; `timings` change some of its `Timings`.

    `ahead_seconds` is how far its clock is ahead of the true time.
    """
    cluster = SimulatedCluster(speed=speed, nodes=1, ahead_seconds=ahead_seconds)
    for kubelet in cluster.kubelets.by_node.values():
        kubelet.timings = replace(RECORDED_TIMINGS, **timings)
    return cluster
