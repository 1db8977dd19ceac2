"""The campaign: one fault after the other, and the checks after each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from pilothouse.container.v1 import container_pb2 as container
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import StartMigrated
from tests.promises.over_time.environment import SPACE, Environment, environment
from tests.promises.over_time.steps import FAULTS, Fault, work
from tests.waiting import poll_until, runs_out

_SET = (resource.CHANGE_TYPE_ADDED, resource.CHANGE_TYPE_MODIFIED)
# A frozen server sends nothing, not even the bookmark of each second.
_SILENT_SECONDS = 8.0


@dataclass
class Report:
    """The faults that were injected, and the problems found after them."""

    faults: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    resumed: int = 0
    begun_anew: int = 0


@dataclass
class Watcher:
    """A watcher that follows the containers throughout the campaign.

    It resumes with its token as long as the token is valid.
    """

    environment: Environment
    report: Report
    current: dict[str, str] = field(default_factory=dict)
    token: str = ""

    async def run(self) -> None:
        """Follows until cancelled."""
        await poll_until(self._follow, seconds=3600, what="the campaign's end")

    async def _follow(self) -> bool:
        rule = self.environment.rules["WatchContainers"]
        request = container.WatchContainersRequest(
            namespace=SPACE, resume_token=self.token, bookmark_period_seconds=1
        )
        if self.token:
            self.report.resumed += 1
        else:
            self.current.clear()
        try:
            async with (
                self.environment.caller(next(self.environment.numbers)) as caller,
                caller.watching(rule, request) as answers,
            ):
                async for answer in _until_silent(answers):
                    self._take(answer)
        except grpc.aio.AioRpcError as error:
            # Streams may also end for other reasons, such as the end of a session while the database's clock is
            # wrong.
            if error.code() is grpc.StatusCode.OUT_OF_RANGE:
                self.token = ""
                self.report.begun_anew += 1
        return False

    def _take(self, answer: Any) -> None:
        name = answer.container.name
        if answer.change_type in _SET:
            self.current[name] = answer.container.etag
        elif answer.change_type == resource.CHANGE_TYPE_DELETED:
            self.current.pop(name, None)
        self.token = answer.resume_token or self.token


async def _until_silent(answers: AsyncIterator[Any]) -> AsyncIterator[Any]:
    while True:
        try:
            async with asyncio.timeout(runs_out(_SILENT_SECONDS)):
                answer = await anext(answers)
        except (StopAsyncIteration, TimeoutError):
            return
        yield answer


async def campaign(
    folder: Path,
    start_migrated: StartMigrated,
    faults: Iterable[Fault],
    *,
    seed: int = 1,
    injected_fault: str = "",
    minutes: float = 60.0,
    seconds: float = 10.0,
    goes_on: bool = False,
) -> Report:
    """Returns the report of these faults, injected one after the other.

    The campaign ends when the time is over, or with the first problem unless it `goes_on`. After each fault,
    everything must be right within `seconds`.
    """
    choice = random.Random(seed)
    report = Report()
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(minutes * 60.0, over.set)
    async with environment(folder, start_migrated, injected_fault) as place:
        watcher = Watcher(place, report)
        watching = asyncio.create_task(watcher.run())
        try:
            for _ in range(2):
                await work(place, choice)
            for fault in faults:
                if (report.problems and not goes_on) or over.is_set():
                    break
                report.faults.append(fault.__name__)
                await fault(place, choice)
                # Changes by others must be repaired before a call changes those objects.
                report.problems += [f"{fault.__name__}: {found}" for found in await place.faults(seconds)]
                behind = await _behind(place, watcher, seconds)
                report.problems += [f"{fault.__name__}: {found}" for found in behind]
                if not report.problems:
                    await work(place, choice)
                    found_after = await place.faults(seconds)
                    report.problems += [f"after {fault.__name__}: {found}" for found in found_after]
        finally:
            await cancel_and_wait(watching)
    return report


async def _behind(place: Environment, watcher: Watcher, seconds: float) -> list[str]:
    """Returns an error if the watcher does not have the present state in time."""

    async def same() -> bool:
        answer = await place.must("ListContainers", {"namespace": SPACE, "pageSize": 1000})
        return {each.name: each.etag for each in answer.containers} == watcher.current

    try:
        await poll_until(same, seconds=2 * seconds, what="the watcher knows what there is")
    except AssertionError as error:
        return [str(error)]
    return []


def random_faults(seed: int) -> Iterator[Fault]:
    """Yields each fault in turn, in a new random order each round, without end."""
    choice = random.Random(seed)
    while True:
        yield from choice.sample(FAULTS, len(FAULTS))
