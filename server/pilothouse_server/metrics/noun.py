"""The parts of the noun metrics for `app.py`."""

from __future__ import annotations

from datetime import timedelta

from pilothouse_server.metrics.messages import POINTS
from pilothouse_server.metrics.operations import ROLL_UP_SECONDS, UsageStore, roll_up_and_pack
from pilothouse_server.metrics.service import MetricsService
from pilothouse_server.metrics.tables import USAGE
from pilothouse_server.metrics.usage_stream import UsageStream
from pilothouse_server.rpc.noun import Noun
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.partitions import Partitions
from pilothouse_server.store.periodic import Periodic, earlier_now
from pilothouse_server.store.unit_of_work import Store

ROLL_UP = "roll up usage"


def metrics_noun(
    store: Store, settings: Settings, usage: UsageStore, stream: UsageStream, page_key: bytes
) -> Noun:
    """Returns the noun metrics. `stream` must have been created with `messages.watch_answer`."""
    return Noun(service=MetricsService(usage, stream, page_key), jobs=metrics_jobs(store, settings))


def metrics_jobs(store: Store, settings: Settings) -> tuple[Periodic, ...]:
    """Returns the periodic jobs of usage: one rolls up samples, one drops old samples."""

    async def drop_usage() -> None:
        kept = timedelta(days=settings.usage_retention_days)
        await Partitions(store.database.maintenance).drop_older(USAGE, await earlier_now(store) - kept)

    return (
        Periodic("drop old partitions of usage", 3600.0, drop_usage),
        Periodic(ROLL_UP, ROLL_UP_SECONDS, lambda: roll_up_and_pack(store, POINTS)),
    )
