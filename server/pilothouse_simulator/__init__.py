"""A simulated Kubernetes cluster: the API of a real one, with controllers and nodes that live in this process.

It exists so that Pilothouse can be developed, tested and shown without a cluster. Each of its rooms imports only
those below it:

    cluster       composition: the running parts, the address, the kubeconfig
    api           the REST API over HTTP: routes, watches, users, faults
    nodes         kubelets and the pods that live on them
    exec          the shell that answers `kubectl exec`
    controllers   controllers that bring objects to their specs, and the scheduler
    admission     the rules of each kind that a write must pass
    store         versioned objects, ownership of fields, the file that keeps them
    values        kinds, refusals, times, quantities, selectors

Controllers, scheduler and kubelets work on the store as their counterparts do over HTTP. Its behaviour is held to
recordings of a real API server by contract tests.
"""

from __future__ import annotations

from pilothouse_simulator.api.faults import FaultPlan
from pilothouse_simulator.cluster import SimulatedCluster
from pilothouse_simulator.controllers.gateways import gateway_definitions

__all__ = ["FaultPlan", "SimulatedCluster", "gateway_definitions"]
