"""Verifies the log slowly in the background, so faults are found although nobody requests it.

A walk pauses most of the time to spare the database, and one server at a time does it (`store.periodic`). A log line, a
metric and a record of the log report its findings.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import structlog
from prometheus_client import Gauge

from pilothouse_server.audit.alarms import FAULTS, raise_alarm
from pilothouse_server.audit.log_identity import LogIdentity
from pilothouse_server.audit.verification import Verification, VerificationReport
from pilothouse_server.store import audit_tree
from pilothouse_server.store.unit_of_work import Store

log = structlog.get_logger(__name__)

WALKED = Gauge(
    "pilothouse_audit_walk_verified_records", "Records that the walk over the audit log has verified."
)
FOUND = Gauge("pilothouse_audit_walk_findings", "Findings of the last whole walk over the audit log.")
FINISHED = Gauge("pilothouse_audit_walk_finished_timestamp_seconds", "When the last whole walk ended.")

PERIOD_SECONDS = 24 * 3600.0
DELAY_SECONDS = 600.0
# A pause is this many times as long as the work before it.
_LEISURE = 20.0
_MOST_TOLD = 20


async def walk(store: Store, identity: LogIdentity, *, leisure: float = _LEISURE) -> VerificationReport:
    """Verifies all of the log; reports the findings, then returns them. Raises Unavailable."""
    async with store.system_read() as transaction:
        state = await audit_tree.read(transaction)
    loop = asyncio.get_running_loop()
    began = loop.time()
    report = VerificationReport(total=state.newest)
    async for report in Verification(store, state, identity).run():
        WALKED.set(report.verified)
        if not report.done:
            await asyncio.sleep(leisure * (loop.time() - began))
            began = loop.time()
    FOUND.set(len(report.findings))
    FINISHED.set(datetime.now(UTC).timestamp())
    if report.findings:
        await _tell(store, report)
    return report


async def _tell(store: Store, report: VerificationReport) -> None:
    for finding in report.findings:
        FAULTS.labels(finding.fault.value).inc()
    first = report.findings[0]
    log.error(
        "the audit log is not intact",
        findings=len(report.findings),
        fault=first.fault.value,
        first=first.first,
        last=first.last,
    )
    findings = [
        {"fault": each.fault.value, "first": each.first, "last": each.last}
        for each in report.findings[:_MOST_TOLD]
    ]
    message = f"the audit log is not intact: {len(report.findings)} findings"
    await raise_alarm(store, message, {"findings": findings})
