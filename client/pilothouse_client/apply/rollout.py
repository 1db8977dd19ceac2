"""Waits until applied containers run, and says what they wait for meanwhile.

A container has arrived when the cluster follows its present generation, has rolled it out and all its replicas are
ready. One that somebody has stopped or paused will not run by waiting: applying does not start it, so it counts as
arrived, and is named. A reason that may pass (an image that cannot be pulled, a crash loop) does not end the
wait, it is shown when it changes; one whose rollout the cluster has given up is not waited for any longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.apply.execute import Say
from pilothouse_client.client import Nouns
from pilothouse_client.errors import DeadlineExceededError
from pilothouse_client.streams import Change, ChangeKind
from pilothouse_client.transport import BlockingTransport
from pilothouse_client.waiting import given_up, refused, runs_as_wanted, starts_from_nothing

_AT_REST = (pb.CONTAINER_STATUS_STOPPED, pb.CONTAINER_STATUS_PAUSED)


class Rollout:
    """The containers waited for and what is known of them. `generations`: by name, what must have been followed."""

    def __init__(self, generations: Mapping[str, int]) -> None:
        self._generations = dict(generations)
        self._last: dict[str, pb.Container] = {}
        self._said: dict[str, str] = {}
        self._gone: set[str] = set()

    @property
    def missing(self) -> list[str]:
        """Names of those that have not arrived."""
        return [name for name in self._generations if not self._arrived(name)]

    def ended(self) -> bool:
        """Whether there is nothing more to wait for."""
        return all(name in self._gone or self._given_up(name) for name in self.missing)

    def observe(self, change: Change[pb.Container]) -> Iterator[str]:
        """Take in one change of the watch; answers the lines to say about it."""
        name = change.resource.name
        if change.kind is ChangeKind.SYNCED:
            for absent in self._generations.keys() - self._last.keys():
                self._gone.add(absent)
                yield f"container/{absent} is gone"
        elif change.kind is ChangeKind.RESTARTED:
            self._last.clear()
        elif name in self._generations and change.kind is ChangeKind.DELETED:
            self._gone.add(name)
            yield f"container/{name} is gone"
        elif name in self._generations and change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED):
            self._gone.discard(name)
            self._last[name] = change.resource
            line = self.line(name)
            if self._said.get(name) != line:
                self._said[name] = line
                yield line

    def line(self, name: str) -> str:
        """How a container does, and why."""
        container = self._last.get(name)
        if container is None:
            return f"container/{name} has not been seen"
        state = pb.ContainerStatus.Name(container.status).removeprefix("CONTAINER_STATUS_").lower()
        if self._arrived(name):
            if container.status in _AT_REST:
                return f"container/{name} {state}: not waited for, apply does not start it"
            return f"container/{name} {state} ({container.ready_replicas} ready)"
        if container.observed_generation < self._generations[name] and not container.reason:
            return f"container/{name} {state}: the cluster has yet to follow"
        why = ": ".join(part for part in (container.reason, container.message) if part)
        ready = f"{container.ready_replicas}/{container.replicas} ready"
        return f"container/{name} {state} ({ready})" + (f": {why}" if why else "")

    def _arrived(self, name: str) -> bool:
        container = self._last.get(name)
        if container is None or name in self._gone or not self._follows(container):
            return False
        at_rest = container.status in _AT_REST and not starts_from_nothing(container)
        return at_rest or (not refused(container) and runs_as_wanted(container))

    def _given_up(self, name: str) -> bool:
        container = self._last.get(name)
        return container is not None and self._follows(container) and given_up(container)

    def _follows(self, container: pb.Container) -> bool:
        return (
            container.observed_generation >= self._generations[container.name] and not container.reconciling
        )


def wait(
    client: Nouns[BlockingTransport],
    namespace: str,
    containers: Iterable[pb.Container],
    timeout_seconds: float,
    say: Say,
    complain: Say,
) -> bool:
    """Whether all containers arrived in time; those that did not are complained about with their reasons.

    Raises:
        PilothouseError: the watch was refused or could not go on.
    """
    rollout = Rollout({container.name: container.generation for container in containers})
    if rollout.ended():
        return True
    try:
        with closing(
            client.with_options(timeout=timeout_seconds).containers.watch(namespace=namespace)
        ) as changes:
            for change in changes:
                for line in rollout.observe(change):
                    say(line)
                if rollout.ended():
                    break
    except DeadlineExceededError:
        complain(f"not all containers were running after {timeout_seconds:g} seconds:")
        for name in rollout.missing:
            complain("  " + rollout.line(name))
        return False
    if rollout.missing:
        complain("not all containers run as they should:")
        for name in rollout.missing:
            complain("  " + rollout.line(name))
    return not rollout.missing
