"""The controller manager: runs all controllers of the simulated cluster over one store.

One task reads every change of the store, updates the shared `ObjectIndex` and then notifies each controller. A
controller enqueues the keys that may need work and handles them in its own task.
"""

from __future__ import annotations

import asyncio
from typing import Any

from pilothouse_simulator.controllers.autoscalers import AutoscalerController
from pilothouse_simulator.controllers.claims import StorageController
from pilothouse_simulator.controllers.controller import Controller, ObjectIndex
from pilothouse_simulator.controllers.cron_jobs import CronJobController
from pilothouse_simulator.controllers.custom_definitions import CustomDefinitionController
from pilothouse_simulator.controllers.daemon_sets import DaemonSetController
from pilothouse_simulator.controllers.deployments import DeploymentController
from pilothouse_simulator.controllers.disruption_budgets import DisruptionBudgetController
from pilothouse_simulator.controllers.endpoints import EndpointController
from pilothouse_simulator.controllers.garbage_collector import GarbageCollector
from pilothouse_simulator.controllers.gateways import GatewayController
from pilothouse_simulator.controllers.ingresses import IngressController
from pilothouse_simulator.controllers.jobs import FinishedJobController, JobController
from pilothouse_simulator.controllers.load_balancers import LoadBalancerController
from pilothouse_simulator.controllers.namespaces import NamespaceController
from pilothouse_simulator.controllers.quotas import ResourceQuotaController
from pilothouse_simulator.controllers.replica_sets import ReplicaSetController
from pilothouse_simulator.controllers.stateful_sets import StatefulSetController
from pilothouse_simulator.store.event_recorder import EventRecorder
from pilothouse_simulator.store.events import Subscription
from pilothouse_simulator.store.store import ObjectStore
from pilothouse_simulator.values.clock import Clock
from pilothouse_simulator.values.resources import DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS

_EVENT_SWEEP_SECONDS = 60.0


class ControllerManager:
    """Runs all controllers over one store. `recorder` may be shared with scheduler and kubelets."""

    def __init__(self, store: ObjectStore, clock: Clock, recorder: EventRecorder | None = None) -> None:
        self.store = store
        self.clock = clock
        self.recorder = recorder or EventRecorder(store, clock)
        self.index = ObjectIndex(store)
        self._subscription: Subscription = store.subscribe()
        parts = (store, clock, self.recorder, self.index)
        deployments, replica_sets = DeploymentController(*parts), ReplicaSetController(*parts)
        collector = GarbageCollector(*parts)
        daemon_sets = DaemonSetController(*parts)
        stateful_sets = StatefulSetController(*parts)
        collector.reporters = {
            DEPLOYMENTS: deployments,
            REPLICA_SETS: replica_sets,
            STATEFUL_SETS: stateful_sets,
        }
        self.controllers: list[Controller[Any]] = [
            NamespaceController(*parts),
            deployments,
            replica_sets,
            stateful_sets,
            daemon_sets,
            collector,
            EndpointController(*parts),
            StorageController(*parts),
            ResourceQuotaController(*parts),
            JobController(*parts),
            CronJobController(*parts),
            FinishedJobController(*parts),
            CustomDefinitionController(*parts),
            GatewayController(*parts),
            IngressController(*parts),
            DisruptionBudgetController(*parts),
            AutoscalerController(*parts),
        ]

    def provide_load_balancers(self) -> None:
        """Adds the controller that gives Services of type LoadBalancer an address. Call it before `run`."""
        self.controllers.append(LoadBalancerController(self.store, self.clock, self.recorder, self.index))

    async def run(self) -> None:
        """Runs the controllers until cancelled."""
        self.index.rebuild()
        for controller in self.controllers:
            controller.seed()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._dispatch())
                tasks.create_task(self._sweep_events())
                for controller in self.controllers:
                    tasks.create_task(controller.run())
        finally:
            self._subscription.close()

    async def _dispatch(self) -> None:
        while batch := await self._subscription.next_batch():
            for event in batch:
                self.index.apply(event)
                for controller in self.controllers:
                    controller.observe(event)
            await self.index.announce()

    async def _sweep_events(self) -> None:
        while True:
            await self.clock.sleep(_EVENT_SWEEP_SECONDS)
            self.recorder.remove_expired()
