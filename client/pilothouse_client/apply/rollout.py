"""Waits until applied containers run, and reports the reasons of the wait.

`pilothouse_client.waiting` decides when a container has arrived: the cluster has applied its current generation and
rolled it out, and its newest pods have run for a while without a restart. An apply does not start a container that is
stopped or paused, so waiting does not help: it counts as arrived, and a line names it. A Job has arrived when its
newest run has succeeded. The wait ends as soon as one container has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.apply.outcome import Say
from pilothouse_client.errors import DeadlineExceededError
from pilothouse_client.streams import Change, ChangeKind
from pilothouse_client.transport import BlockingTransport
from pilothouse_client.waiting import (
    BOOKMARK_SECONDS,
    DEFAULT_PATIENCE,
    KINDS_WITH_RUNS,
    ContainerWait,
    Goal,
    Patience,
    ServerTime,
    Verdict,
    WaitOutcome,
    last_lines,
    scales_up,
    starts_from_nothing,
)

_AT_REST = (pb.CONTAINER_STATUS_STOPPED, pb.CONTAINER_STATUS_PAUSED)


class Rollout:
    """The containers that the wait is for, as their apply returned them, and their last known states."""

    def __init__(
        self,
        containers: Sequence[pb.Container],
        patience: Patience = DEFAULT_PATIENCE,
        scales_up: Callable[[pb.Container], bool] = lambda _container: False,
    ) -> None:
        self._waits = {
            each.name: ContainerWait(each, _goal(each), patience, scales_up) for each in containers
        }
        self._generations = {each.name: each.generation for each in containers}
        self._time = ServerTime()
        self._last: dict[str, pb.Container] = {}
        self._said: dict[str, str] = {}
        self._gone: set[str] = set()
        self._verdicts: dict[str, Verdict] = {}

    @property
    def missing(self) -> list[str]:
        """The names of the containers that have not arrived."""
        return [name for name in self._waits if not self._arrived(name)]

    @property
    def failed(self) -> list[pb.Container]:
        """The last known states of the containers that waiting will not make run."""
        return [
            self._last[name] for name, each in self._verdicts.items() if each.outcome is WaitOutcome.FAILED
        ]

    def ended(self) -> bool:
        """Returns whether there is nothing more to wait for."""
        return bool(self.failed) or all(name in self._gone for name in self.missing)

    def observe(self, change: Change[pb.Container]) -> Iterator[str]:
        """Applies one change of the watch; yields the lines to print about it."""
        self._time.note(change)
        name = change.resource.name
        if change.kind is ChangeKind.SYNCED:
            for absent in self._generations.keys() - self._last.keys():
                self._gone.add(absent)
                yield f"container/{absent} was deleted"
        elif change.kind is ChangeKind.RESTARTED:
            self._last.clear()
            self._verdicts.clear()
        elif name in self._generations and change.kind is ChangeKind.DELETED:
            self._gone.add(name)
            yield f"container/{name} was deleted"
        elif name in self._generations and change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED):
            self._gone.discard(name)
            self._last[name] = change.resource
        # Each change carries the server's time, so all containers are judged again.
        for seen in self._last.values():
            if seen.name not in self._gone:
                self._verdicts[seen.name] = self._judge(seen)
                line = self.line(seen.name)
                if self._said.get(seen.name) != line:
                    self._said[seen.name] = line
                    yield line

    def line(self, name: str) -> str:
        """Returns the line for a container: its state, and the reason."""
        container = self._last.get(name)
        if container is None:
            return f"container/{name} has not been seen"
        state = pb.ContainerStatus.Name(container.status).removeprefix("CONTAINER_STATUS_").lower()
        verdict = self._verdicts.get(name)
        if verdict is not None and verdict.outcome is WaitOutcome.FAILED:
            return f"container/{name} {state}: {verdict.why}"
        if self._arrived(name):
            if container.status in _AT_REST:
                return f"container/{name} {state}: not waited for, apply does not start it"
            if container.status == pb.CONTAINER_STATUS_SUCCEEDED:
                return f"container/{name} {state}"
            if container.workload_kind == pb.WORKLOAD_KIND_CRON_JOB:
                return f"container/{name} {state}: {container.message}"
            return f"container/{name} {state} ({container.ready_replicas} ready)"
        if container.observed_generation < self._generations[name] and not container.reason:
            return f"container/{name} {state}: the cluster has yet to follow"
        why = ": ".join(part for part in (container.reason, container.message) if part)
        if verdict is not None and not why:
            why = verdict.why
        has_runs = container.workload_kind in KINDS_WITH_RUNS
        ready = f"{container.ready_replicas}{'' if has_runs else f'/{container.replicas}'} ready"
        return f"container/{name} {state} ({ready})" + (f": {why}" if why else "")

    def _judge(self, seen: pb.Container) -> Verdict:
        at_rest = seen.status in _AT_REST and not starts_from_nothing(seen)
        if at_rest and self._follows(seen):
            return Verdict(WaitOutcome.ARRIVED)
        return self._waits[seen.name].judge(seen, self._time)

    def _arrived(self, name: str) -> bool:
        verdict = self._verdicts.get(name)
        return name not in self._gone and verdict is not None and verdict.outcome is WaitOutcome.ARRIVED

    def _follows(self, container: pb.Container) -> bool:
        return (
            container.observed_generation >= self._generations[container.name] and not container.reconciling
        )


def _goal(container: pb.Container) -> Goal:
    return Goal.SUCCEEDED if container.workload_kind == pb.WORKLOAD_KIND_JOB else Goal.RUNNING


def wait(
    client: Nouns[BlockingTransport],
    namespace: str,
    containers: Sequence[pb.Container],
    timeout_seconds: float,
    patience: Patience,
    say: Say,
    complain: Say,
    count: Callable[[int, int], None],
) -> bool:
    """Returns whether all containers arrived in time; complains about the others, with their reasons.

    Raises:
        PilothouseError: the watch was refused or could not continue.
    """
    rollout = Rollout(containers, patience, lambda seen: scales_up(client, seen))
    if rollout.ended():
        return True
    try:
        with closing(
            client.with_options(timeout=timeout_seconds).containers.watch(
                namespace=namespace, bookmark_period_seconds=BOOKMARK_SECONDS
            )
        ) as changes:
            for change in changes:
                lines = list(rollout.observe(change))
                count(len(containers) - len(rollout.missing), len(containers))
                for line in lines:
                    say(line)
                if rollout.ended():
                    break
    except DeadlineExceededError:
        words = f"not all containers were running after {timeout_seconds:g} seconds:"
    else:
        words = "not all containers run as they should:"
    if rollout.missing:
        _complain(client, rollout, words, complain)
    return not rollout.missing


def _complain(client: Nouns[BlockingTransport], rollout: Rollout, words: str, complain: Say) -> None:
    complain(words)
    for name in rollout.missing:
        complain("  " + rollout.line(name))
    for failed in rollout.failed:
        for line in last_lines(client, failed):
            complain(f"  {failed.name}: {line}")
