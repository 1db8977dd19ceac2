"""A simulated Kubernetes cluster: the API of a real cluster, with controllers and nodes that run in this process.

It exists so that Pilothouse can be developed, tested and shown without a cluster. Each package imports only the
packages below it:

    cluster       composition: the running parts, the address, the kubeconfig
    api           the REST API over HTTP: routes, watches, users, faults
    nodes         kubelets and the pods that run on them
    exec          the shell behind `kubectl exec`
    controllers   controllers that reconcile objects with their specs, and the scheduler
    admission     the rules of each kind that a write must pass
    store         versioned objects, ownership of fields, the state file
    values        kinds, errors, times, quantities, selectors

Controllers, scheduler and kubelets use the store directly; in a real cluster they use the API over HTTP. Contract tests
compare the simulator's behaviour with recordings of a real API server.
"""

from __future__ import annotations

from pilothouse_simulator.api.faults import FaultPlan
from pilothouse_simulator.cluster import SimulatedCluster
from pilothouse_simulator.controllers.gateways import gateway_definitions

__all__ = ["FaultPlan", "SimulatedCluster", "gateway_definitions"]
