"""A campaign against two server processes, with everything recorded.

Writers, watchers and faults are concurrent.

    recording = await campaign(database, directory, Size(mutations=2_000, faults=10))
    assert violations(recording) == {}
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from pilothouse_server.runtime.tasks import cancel_and_wait
from tests.conftest import Database
from tests.promises.watches import ending, watching
from tests.promises.watches.environment import Size, environment
from tests.promises.watches.faults import Faults
from tests.promises.watches.recording import Recording
from tests.promises.watches.writing import Writer


async def campaign(database: Database, directory: Path, size: Size) -> Recording:
    """Runs a campaign to its end; returns the recording."""
    async with environment(database, directory, size) as made:
        followers = watching.followers(made)
        following = [asyncio.create_task(follower.run(), name=follower.watch.name) for follower in followers]
        try:
            async with asyncio.TaskGroup() as group:
                failing = group.create_task(_fail_with(following))
                writers = [group.create_task(Writer(made, number).run()) for number in range(size.writers)]
                breaking = group.create_task(Faults(made).run())
                await asyncio.gather(*writers)
                made.progress.end()
                await breaking
                # From here on, one follower ends by itself, as it should.
                failing.cancel()
                await ending.end_namespace(made, followers)
                await ending.settle(made, followers)
            await cancel_and_wait(*following)
            await ending.read_log(made)
            await ending.read_lists(made)
            await ending.probe_tokens(made, followers)
        finally:
            made.progress.end()
            await cancel_and_wait(*following)
        return made.recording


async def _fail_with(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Raises the exception of a watcher that ended early."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    raise AssertionError("a watcher ended by itself")
