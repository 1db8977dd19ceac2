"""Queries of usage, and their results.

A range is divided into steps that begin at multiples of the step since 1970-01-01 UTC. So steps of whole hours and days
consist of whole roll-ups, and the same query a minute later has the same steps. The range is widened to whole steps at
both ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from pilothouse_server.errors import invalid, not_found
from pilothouse_server.metrics.model import (
    ContainerDetails,
    PackedDay,
    Point,
    StepSizes,
    StoredSample,
    UsageSubject,
)
from pilothouse_server.metrics.repository import days, overview, samples, series
from pilothouse_server.namespaces.operations import locate as locate_namespace
from pilothouse_server.runtime.event_loop import Share
from pilothouse_server.store.paging import NextPage, PageRequest
from pilothouse_server.store.unit_of_work import ReadTransaction

MOST_STEPS: Final = 11_000
# A response with this many points has about 3 MB; clients accept 4 MB by default.
MOST_POINTS: Final = 40_000
TOP_AGE: Final = timedelta(minutes=5)
# How far back the newest sample of a container is searched: the default retention of samples.
NEWEST_AGE: Final = timedelta(days=14)
_LONGEST_STEP = 366 * series.DAY
_DEFAULT_RANGE = 3600
# Sorting this many parts takes about half a millisecond.
_PARTS_A_STEP = 4000
# A row of a list costs about as much as this many points, or as this many samples that points are computed from.
_POINTS_A_ROW, _SAMPLES_A_ROW = 10, 20
# The default interval between a container's samples, used to estimate the cost of a query.
_SECONDS_A_SAMPLE = 10
# A default step is rounded up to one of these; from an hour on they are whole roll-ups.
_NATURAL_STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)

TopBy = Literal["cpu", "memory"]

list_summaries = overview.list_summaries


def steps_of(
    now: datetime, start: datetime | None, end: datetime | None, step: timedelta | None
) -> StepSizes:
    """Returns the steps of a range; arguments are None for values that the request does not set.

    Raises:
        InvalidArgument: field `start_time`, the range is empty; field `step`, it is not whole seconds from 1 s to 366
            days, or makes too many steps.
    """
    end_at = _seconds(end or now, up=True)
    start_at = end_at - _DEFAULT_RANGE if start is None else _seconds(start)
    if start_at >= end_at:
        raise invalid("start_time", "must be before end_time")
    length = _default_step(end_at - start_at) if step is None else _checked(step)
    steps = StepSizes(start_at - start_at % length, end_at + -end_at % length, length)
    if steps.count > MOST_STEPS:
        raise invalid(
            "step",
            (
                f"makes {steps.count:,} steps of this range, more than {MOST_STEPS:,}: request longer "
                "steps, or a shorter range"
            ),
            reason="TOO_MANY_STEPS",
        )
    return steps


async def run_times(
    transaction: ReadTransaction, namespace_id: int | None, container: str, number: int
) -> tuple[datetime, datetime | None]:
    """Returns when a run of a container began, and when it ended; None while it continues.

    Raises:
        InvalidArgument: a run without namespace and container.
        NotFound: there is no run with that number, or it has not begun.
    """
    if namespace_id is None or not container:
        raise invalid("run", "needs namespace and container: give all three", reason="REQUIRED")
    found = await series.run_times(transaction, namespace_id, container, number)
    if found is None:
        raise not_found("run", str(number))
    start, end = found
    # The range of a run must not be empty, even if the run ended within the second in which it began.
    return start, None if end is None else max(end, start + timedelta(seconds=1))


def _checked(step: timedelta) -> int:
    seconds = int(step.total_seconds())
    if step.microseconds or not 1 <= seconds <= _LONGEST_STEP:
        raise invalid("step", "must be whole seconds, from 1 s to 366 days", reason="INVALID_STEP")
    return seconds


def _default_step(range_seconds: int) -> int:
    wanted = range_seconds / 100
    for natural in _NATURAL_STEPS:
        if wanted <= natural:
            return natural
    return min(-(-range_seconds // (100 * series.DAY)) * series.DAY, _LONGEST_STEP)


def _seconds(moment: datetime, *, up: bool = False) -> int:
    """Returns whole seconds since 1970-01-01 UTC; exact even for times far from it."""
    since = moment - datetime.fromtimestamp(0, tz=moment.tzinfo)
    whole = since.days * series.DAY + since.seconds
    return whole + 1 if up and since.microseconds else whole


def rows_of_work(
    range_seconds: int | None, step_seconds: int, containers: int, *, by_sample: bool = False
) -> int:
    """Returns the cost of a page of usage, in rows of a list, for flow control.

    None and 0 mean that the request does not set the range or the step. The request is not validated yet, so any number
    is accepted. Steps of whole hours are read from roll-ups; other steps, and all steps if `by_sample`, from samples.
    """
    range_ = _DEFAULT_RANGE if range_seconds is None else max(0, range_seconds)
    step = step_seconds if step_seconds > 0 else _default_step(range_)
    steps = min(range_ // step + 1, MOST_STEPS)
    found = min(max(1, containers), max(1, MOST_POINTS // steps))
    samples = 0 if step % series.HOUR == 0 and not by_sample else range_ // _SECONDS_A_SAMPLE
    return max(containers, found * steps // _POINTS_A_ROW + found * samples // _SAMPLES_A_ROW)


async def usage(
    transaction: ReadTransaction,
    page: PageRequest,
    steps: StepSizes,
    *,
    namespace_id: int | None,
    container: str,
    visible: frozenset[int] | None,
    form: int,
    program: str = "",
) -> tuple[list[tuple[UsageSubject, list[PackedDay | Point]]], NextPage]:
    """Returns one page of series by namespace and name, some without points, and where the next page begins.

    If there would be too many points, a page contains fewer containers than requested. At hourly steps, days that are
    packed in this `form` are returned packed; the first and the last of them may extend beyond the range. With
    `program`, the usage is that of one program, computed from samples only.

    Raises:
        InvalidArgument: a program without a container.
        NotFound: the container, if the request names a namespace and a container.
    """
    if program and not container:
        raise invalid("program", "needs container: give both", reason="REQUIRED")
    most = max(1, MOST_POINTS // steps.count)
    found, next_page = await series.subjects(
        transaction,
        dataclasses.replace(page, page_size=min(page.limit, most)),
        namespace_id=namespace_id,
        container=container,
        visible=visible,
    )
    if container and namespace_id is not None and not found:
        raise not_found("container", container)
    shown: dict[int, list[PackedDay | Point]] = {subject.container_id: [] for subject in found}
    parts: Sequence[PackedDay | Point] = ()
    if found and program:
        parts = await series.points_of_program(transaction, steps, list(shown), program)
    elif found:
        parts = await _parts(transaction, steps, list(shown), form)
    share = Share()
    for at in range(0, len(parts), _PARTS_A_STEP):
        for part in parts[at : at + _PARTS_A_STEP]:
            shown[part.container_id].append(part)
        await share.used()
    for series_ in shown.values():
        series_.sort(key=_at)
        await share.used()
    return [(subject, shown[subject.container_id]) for subject in found], next_page


async def _parts(
    transaction: ReadTransaction, steps: StepSizes, ids: Sequence[int], form: int
) -> Sequence[PackedDay | Point]:
    if steps.step == series.HOUR:
        return await days.by_the_hour(transaction, steps, ids, form)
    return await series.points(transaction, steps, ids)


def _at(part: PackedDay | Point) -> int:
    return part.at


async def details(transaction: ReadTransaction, namespace: str, name: str) -> ContainerDetails:
    """Returns a container with its namespace, image and newest sample.

    Raises:
        NotFound: the namespace or the container; also if the caller may not see it.
    """
    home = await locate_namespace(transaction, namespace)
    found = await overview.find_details(transaction, home.id, name)
    if found is None:
        raise not_found("container", name)
    return found


async def newest(
    transaction: ReadTransaction,
    *,
    namespace_id: int | None,
    container: str,
    visible: frozenset[int] | None,
) -> Sequence[StoredSample]:
    """Returns the newest sample of each container; that of a stopped container may be days old."""
    return await samples.newest(
        transaction,
        oldest=transaction.now - NEWEST_AGE,
        namespace_id=namespace_id,
        container=container,
        visible=visible,
    )


async def top(
    transaction: ReadTransaction,
    by: TopBy,
    *,
    namespace_id: int | None,
    visible: frozenset[int] | None,
    most: int,
) -> Sequence[StoredSample]:
    """Returns the newest samples of the last five minutes of the containers with the highest usage, highest first."""
    return await samples.top(
        transaction,
        by,
        oldest=transaction.now - TOP_AGE,
        namespace_id=namespace_id,
        visible=visible,
        most=most,
    )
