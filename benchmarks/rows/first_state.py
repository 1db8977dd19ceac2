"""Row 13: the first state of a watch over all containers, against the same containers as pages of a list."""

from __future__ import annotations

from collections.abc import AsyncIterator

from benchmarks.measure import Figure, Run, compared, in_turns
from benchmarks.testbed import Testbed

_PAGE_SIZE = 1_000


async def first_state(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures the whole state, and the time until its first message."""
    containers = testbed.scale.containers[-1]
    async with (
        testbed.database(containers) as database,
        testbed.product(database) as product,
        testbed.children(("loads.first_state", testbed.cores.asking)) as (asker,),
    ):
        asked = {"address": product.address, "token": await product.token()}
        firsts: list[float] = []
        counts: set[float] = set()

        async def watch() -> dict[str, float]:
            found: dict[str, float] = await asker.ask("watch", **asked)
            firsts.append(found["first"])
            counts.add(found["calls"])
            return found

        async def pages() -> dict[str, float]:
            found: dict[str, float] = await asker.ask("pages", page_size=_PAGE_SIZE, **asked)
            counts.add(found["calls"])
            return found

        async def run_watch() -> Run:
            return await testbed.metered(product.process_id, database, watch(), "seconds")

        async def run_pages() -> Run:
            return await testbed.metered(product.process_id, database, pages(), "seconds")

        pairs = await in_turns(run_watch, run_pages, testbed.scale.runs, warm=testbed.scale.warm)
        if len(counts) != 1:
            raise RuntimeError(f"the watch and the list do not show the same containers: {counts}")
        what = f"first state of {containers:,} containers"
        yield compared(
            "13",
            f"WatchContainers, {what}",
            "s",
            pairs,
            f"pages of {_PAGE_SIZE:,}",
            ("≤", 1.5),
            notes=("processor time of one container",),
        )
        first = sorted(firsts[-testbed.scale.runs :])[testbed.scale.runs // 2]
        yield Figure("13", f"its first answer, {what}", "s", first, goal=("≤", 0.2), goal_of="value")
