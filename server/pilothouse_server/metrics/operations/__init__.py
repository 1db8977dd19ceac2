"""The rules of usage: storing, rolling up, recording samples from other programs, and querying."""

from pilothouse_server.metrics.operations.database import database_stats, table_sizes
from pilothouse_server.metrics.operations.gauges import DatabaseGauges
from pilothouse_server.metrics.operations.packing import Rendering, pack_days, roll_up_and_pack
from pilothouse_server.metrics.operations.queries import (
    TopBy,
    details,
    list_summaries,
    newest,
    rows_of_work,
    run_times,
    steps_of,
    top,
    usage,
)
from pilothouse_server.metrics.operations.recording import Recorder, Recording, RecordingReport, RefusedSample
from pilothouse_server.metrics.operations.roll_ups import ROLL_UP_SECONDS, roll_up
from pilothouse_server.metrics.operations.storing import UsageStore

__all__ = [
    "ROLL_UP_SECONDS",
    "DatabaseGauges",
    "Recorder",
    "Recording",
    "RecordingReport",
    "RefusedSample",
    "Rendering",
    "TopBy",
    "UsageStore",
    "database_stats",
    "details",
    "list_summaries",
    "newest",
    "pack_days",
    "roll_up",
    "roll_up_and_pack",
    "rows_of_work",
    "run_times",
    "steps_of",
    "table_sizes",
    "top",
    "usage",
]
