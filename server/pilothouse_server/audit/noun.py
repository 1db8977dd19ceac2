"""Assembles the noun audit for `app.py`: its service and its periodic jobs."""

from __future__ import annotations

from datetime import timedelta

from pilothouse_server.audit.dropping import Dropping
from pilothouse_server.audit.log_identity import LogIdentity
from pilothouse_server.audit.retention import Delivered, Retention
from pilothouse_server.audit.sealing import Sealer
from pilothouse_server.audit.service import AuditService
from pilothouse_server.audit.sinks.service import SinkRules
from pilothouse_server.audit.walking import DELAY_SECONDS, PERIOD_SECONDS, walk
from pilothouse_server.rpc.noun import Noun
from pilothouse_server.rpc.watched import WatchServer
from pilothouse_server.settings.model import Settings
from pilothouse_server.store.partitions import Partitions
from pilothouse_server.store.periodic import Periodic, earlier_now
from pilothouse_server.store.unit_of_work import Store


def audit_noun(
    watches: WatchServer,
    page_key: bytes,
    sealer: Sealer,
    sinks: SinkRules,
    jobs: tuple[Periodic, ...],
) -> Noun:
    """Returns the noun audit; `jobs` are those of `audit_jobs`."""
    return Noun(service=AuditService(watches, page_key, sealer, sinks), jobs=jobs)


def audit_jobs(
    store: Store, settings: Settings, identity: LogIdentity, delivered: Delivered
) -> tuple[Periodic, ...]:
    """Returns the periodic jobs of the log: verifying it, and dropping its oldest partitions.

    `delivered` returns whether every required sink has the records up to a position of the log.
    """
    retention = Retention(store, Partitions(store.database.maintenance), delivered, Dropping(store, identity))

    async def drop_records() -> None:
        kept = timedelta(days=31 * settings.audit_retention_months)
        await retention.drop_older(await earlier_now(store) - kept)

    return (
        Periodic("drop old partitions of the log", 3600.0, drop_records),
        Periodic("verify the audit log", PERIOD_SECONDS, lambda: walk(store, identity), DELAY_SECONDS),
    )
