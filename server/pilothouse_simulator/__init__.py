"""A simulated Kubernetes cluster: the API of a real one, with controllers and nodes that live in this process.

It exists so that Pilothouse can be developed, tested and shown without a cluster. How it is made: `store` keeps
versioned objects, `strategy` holds the rules of each kind, `routes` speak the REST API over them, controllers,
scheduler and kubelets work on the store as their counterparts do over HTTP. Its behaviour is held to recordings
of a real API server by contract tests.
"""

from __future__ import annotations

from .faults import FaultPlan
from .server import SimulatedCluster

__all__ = ["FaultPlan", "SimulatedCluster"]
