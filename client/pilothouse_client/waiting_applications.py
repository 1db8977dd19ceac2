"""Waits until every object of an application is healthy, and has been for a while.

The server reports the health of each object, and whether it can still become healthy (`ApplicationMember.failed`). It
cannot if one of its newest pods has restarted, an image cannot be pulled, or the cluster has had no room for a
minute, refuses the object, or has given up the rollout. The first such failure ends the wait, with the program's last
lines. The time for which all must have been healthy is measured by the server's clock, as in `waiting`. If the server
rolls the revision back, the wait fails, and names the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pilothouse.application.v1 import application_pb2 as pb
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.errors import DeadlineExceededError, PilothouseError
from pilothouse_client.streams import ChangeKind
from pilothouse_client.transport import BlockingTransport
from pilothouse_client.waiting import (
    BOOKMARK_SECONDS,
    DEFAULT_PATIENCE,
    Patience,
    ServerTime,
    last_lines,
)

_HEALTHY = pb.APPLICATION_STATUS_HEALTHY
# Waiting does not change an application that a caller has stopped or paused, so it ends the wait, too.
_WORKS = (_HEALTHY, pb.APPLICATION_STATUS_SUSPENDED)
# Part of the message of an application whose revision the server could not roll back.
_NOT_ROLLED_BACK = "not rolled back:"
# Kinds of the members that are containers.
_WORKLOADS = frozenset({"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"})


class ApplicationWaitError(Exception):
    """The application did not become healthy.

    `application` is its last known state, `last_lines` are the last lines of the program that restarted, if the caller
    may read its log.
    """

    def __init__(self, message: str, application: pb.Application, lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.application = application
        self.last_lines = tuple(lines)

    @property
    def is_rollback_ahead(self) -> bool:
        """Whether the server may still roll back to the previous revision."""
        return self.application.rollback_on_failure and _NOT_ROLLED_BACK not in self.application.message


class _Stretch:
    """The time since which an application is healthy or suspended without a break, by the server's clock."""

    def __init__(self, time: ServerTime) -> None:
        self._time = time
        self._since: datetime | None = None

    def has_lasted(self, seen: pb.Application, seconds: float) -> bool:
        """Returns whether the application has been healthy for `seconds` by now.

        Call it after each response of the watch."""
        if seen.status not in _WORKS or not self._time.in_step or self._time.now is None:
            self._since = None
            return False
        if self._since is None:
            self._since = self._time.now
        return self._time.seconds_since(self._since) >= seconds


def wait_for_application(
    client: Nouns[BlockingTransport],
    asked: pb.Application,
    *,
    timeout: float,
    patience: Patience = DEFAULT_PATIENCE,
    progress: Callable[[pb.Application], Any] = lambda _application: None,
) -> pb.Application:
    """Watches until the application that an apply or a rollback returned is healthy.

    Returns its last state.

    `progress` gets each state on the way. Raises ApplicationWaitError if an object fails, if the revision is rolled
    back or followed by another one, if the application is deleted, or after `timeout` seconds.
    """
    last, present, time = asked, False, ServerTime()
    stretch = _Stretch(time)
    patient = client.with_options(timeout=timeout)
    try:
        with patient.applications.watch(
            namespace=asked.namespace, name=asked.name, bookmark_period_seconds=BOOKMARK_SECONDS
        ) as watch:
            for change in watch:
                time.note(change)
                seen = change.resource
                if change.kind is ChangeKind.RESTARTED:
                    present = False
                elif change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED) and seen.uid == asked.uid:
                    present, last = True, seen
                    progress(seen)
                elif (change.kind is ChangeKind.SYNCED and not present) or (
                    change.kind is ChangeKind.DELETED and seen.uid == asked.uid
                ):
                    raise ApplicationWaitError(f"{asked.name} was deleted during the wait", last)
                if not present:
                    continue
                if last.revision > asked.revision:
                    raise ApplicationWaitError(_followed(client, asked, last), last)
                # If the server is about to roll the revision back, the wait ends with the result of the rollback.
                if not last.rollback_on_failure or _NOT_ROLLED_BACK in last.message:
                    _refuse_failed(client, last)
                if stretch.has_lasted(last, patience.stable_for):
                    return last
    except DeadlineExceededError:
        raise ApplicationWaitError(_too_late(last, timeout, patience), last) from None
    raise ApplicationWaitError(f"{asked.name}: the watch was closed", last)


def _refuse_failed(client: Nouns[BlockingTransport], seen: pb.Application) -> None:
    failed = next((each for each in seen.members if each.failed), None)
    if failed is None:
        return
    lines: Sequence[str] = ()
    if failed.kind in _WORKLOADS:
        try:
            container = client.containers.get(namespace=seen.namespace, name=failed.name)
            lines = last_lines(client, container)
        except PilothouseError:
            lines = ()
    words = failed.message or failed.reason
    raise ApplicationWaitError(f"{seen.name}: {failed.kind} {failed.name}: {words}", seen, lines)


def _followed(client: Nouns[BlockingTransport], asked: pb.Application, seen: pb.Application) -> str:
    """Returns why there is a newer revision than the awaited one."""
    try:
        newest = client.applications.get_revision(
            namespace=seen.namespace, name=seen.name, revision=seen.revision
        )
    except PilothouseError:
        return f"{seen.name}: revision {asked.revision} was followed by revision {seen.revision}"
    if newest.failed_revision == asked.revision:
        went = f"revision {asked.revision} failed, and revision {newest.number} restored revision {newest.origin}"
        return f"{seen.name}: {went}: {newest.reason}"
    by = f" by {newest.created_by}" if newest.created_by else ""
    return f"{seen.name}: revision {asked.revision} was followed by revision {newest.number}{by}"


def _too_late(last: pb.Application, timeout: float, patience: Patience) -> str:
    if last.status in _WORKS:
        return f"{last.name} has been healthy or suspended for less than {patience.stable_for:g} s after {timeout:g} s"
    why = ": ".join(filter(None, (last.reason, last.message)))
    return f"{last.name} is not healthy after {timeout:g} s{f': {why}' if why else ''}"
