"""Tries the objects of an apply on the cluster by dry runs; changes nothing.

The transaction of the trial is rolled back first. Up to 8 objects are tried at a time. No dry run starts after 30 s, so
a slow cluster cannot delay a large apply in proportion to its number of objects. An unreachable cluster is not a
problem, because a real apply does not wait for it either; a warning states that nothing was tried.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from pilothouse_server.applications.documents import problems_of
from pilothouse_server.applications.model import ApplicationProblem, WantedObject
from pilothouse_server.clusters.refusals import Connect, within, words
from pilothouse_server.config.dry_run import check_on_cluster as check_config
from pilothouse_server.config.model import ConfigMap, Secret, Values
from pilothouse_server.containers.dry_run import check_on_cluster as check_container
from pilothouse_server.containers.model import Container
from pilothouse_server.errors import PilothouseError, Unavailable
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.discovery import KindDiscovery
from pilothouse_server.kubernetes.errors import ClusterError
from pilothouse_server.network.dry_run import check_on_cluster as check_service
from pilothouse_server.network.model import Service
from pilothouse_server.objects.dry_run import check_on_cluster as check_object
from pilothouse_server.objects.model import CarriedObject
from pilothouse_server.storage.dry_run import check_on_cluster as check_volume
from pilothouse_server.values.resources import ObjectWarning

_NOT_TRIED: Final = "NOT_TRIED"
_AT_ONCE: Final = 8
_SECONDS_TO_BEGIN: Final = 30.0


class TriedObject(msgspec.Struct, frozen=True):
    """An object as a trial has written it. `values`: those of a secret."""

    wanted: WantedObject
    after: Any
    values: Values | None = None

    def __repr__(self) -> str:
        return f"TriedObject({self.wanted!r})"


class ClusterTrial(msgspec.Struct, frozen=True):
    """The problems and warnings of a cluster about objects, in the order of the objects."""

    problems: tuple[ApplicationProblem, ...] = ()
    warnings: tuple[ObjectWarning, ...] = ()


async def tried_on_cluster(
    connect: Connect, discovery: KindDiscovery, cluster: str, objects: Sequence[TriedObject]
) -> ClusterTrial:
    """Returns the refusals and the warnings of a cluster about these objects."""
    if not objects:
        return ClusterTrial()
    try:
        client = await within(connect(cluster), cluster)
    except ClusterError as error:
        return ClusterTrial(warnings=(_untried(words(error, cluster)),))
    trials = _Trials(client, discovery)
    gate, begun = asyncio.Semaphore(_AT_ONCE), time.monotonic()
    found: list[ClusterTrial] = [ClusterTrial()] * len(objects)

    async def try_out(number: int, each: TriedObject) -> None:
        async with gate:
            if time.monotonic() - begun > _SECONDS_TO_BEGIN:
                found[number] = ClusterTrial(
                    warnings=(_untried("the time limit for dry runs was reached", each),)
                )
            else:
                found[number] = await trials.of(each)

    async with asyncio.TaskGroup() as group:
        for number, each in enumerate(objects):
            group.create_task(try_out(number, each))
    return ClusterTrial(
        tuple(problem for trial in found for problem in trial.problems),
        tuple(warning for trial in found for warning in trial.warnings),
    )


class _Trials:
    """Tries objects by the dry runs of their nouns, with one client."""

    def __init__(self, client: ClusterClient, discovery: KindDiscovery) -> None:
        self._client = client
        self._discovery = discovery

    async def of(self, tried: TriedObject) -> ClusterTrial:
        """Returns the problems and warnings of the cluster about an object."""
        try:
            warnings = await self._checked(tried)
        except Unavailable as error:
            return ClusterTrial(warnings=(_untried(error.message, tried),))
        except PilothouseError as error:
            return ClusterTrial(problems=tuple(problems_of(error, tried.wanted)))
        subject = _subject(tried)
        return ClusterTrial(
            warnings=tuple(
                msgspec.structs.replace(each, path=f"{subject}: {each.path}" if each.path else subject)
                for each in warnings
            )
        )

    async def _checked(self, tried: TriedObject) -> Sequence[ObjectWarning]:
        match tried.after:
            case Container() as container:
                return await check_container(self._connect, container)
            case Service() as service:
                return await check_service(self._connect, service)
            case CarriedObject() as carried:
                return await check_object(self._connect, self._discovery, carried)
            case ConfigMap() | Secret() as config:
                return await check_config(self._connect, config, tried.values)
            case volume:
                return await check_volume(self._connect, volume)

    async def _connect(self, _cluster: str) -> ClusterClient:
        return self._client


def _untried(why: str, tried: TriedObject | None = None) -> ObjectWarning:
    subject = "" if tried is None else _subject(tried)
    return ObjectWarning(_NOT_TRIED, subject, f"not tried on the cluster: {why}")


def _subject(tried: TriedObject) -> str:
    return f"{tried.wanted.kind}/{tried.wanted.key.name}"
