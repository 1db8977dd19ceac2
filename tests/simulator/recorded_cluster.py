"""A simulated cluster with about the timing of the recorded cluster.

By default simulated nodes are faster than real ones. Replays send their requests at the recorded times, so a pod is in
its recorded state only if the nodes are about as slow as the recorded node.
"""

from __future__ import annotations

from dataclasses import replace

from pilothouse_simulator import SimulatedCluster
from pilothouse_simulator.nodes.node import Timings

RECORDED_TIMINGS = Timings(
    sandbox=0.4, create=0.015, start=0.05, notice=0.75, show_back_off=1.05, stop=0.1, remove=0.5
)
# Keys whose values are the name of the recorded machine, or contain it.
NODE_VALUES = frozenset({"reportingInstance", "host"})


def recorded_cluster(speed: float, *, ahead_seconds: float = 0.0, **timings: float) -> SimulatedCluster:
    """Returns a cluster, not yet started, with one node as slow as the recorded one; `timings` change its `Timings`.

    `ahead_seconds` is how far its clock is ahead of the true time.
    """
    cluster = SimulatedCluster(speed=speed, nodes=1, ahead_seconds=ahead_seconds)
    for kubelet in cluster.kubelets.by_node.values():
        kubelet.timings = replace(RECORDED_TIMINGS, **timings)
    return cluster
