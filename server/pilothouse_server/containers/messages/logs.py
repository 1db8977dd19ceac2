"""Logs: the cluster's lines → protobuf."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers.pod_log_reader import Entry, Problem


def log_entry(entry: Entry) -> pb.LogEntry:
    """Returns the message for one line."""
    seconds, nanos = divmod(entry.line.nanoseconds, 1_000_000_000)
    return pb.LogEntry(
        container=entry.container,
        pod=entry.pod,
        program=entry.program,
        timestamp=Timestamp(seconds=seconds, nanos=nanos) if entry.line.nanoseconds else None,
        line=entry.line.text,
    )


def log_answer(
    batch: Sequence[Entry | Problem],
    *,
    pods: int,
    resume_token: str,
    several: bool,
    programs: Sequence[str] = (),
) -> pb.StreamLogsResponse:
    """Returns the message for some lines, and for the problems of logs that cannot be read."""
    return pb.StreamLogsResponse(
        entries=[log_entry(item) for item in batch if isinstance(item, Entry)],
        problems=[
            pb.LogProblem(
                container=item.container,
                pod=item.pod,
                program=item.program,
                reason=item.reason,
                message=item.message,
            )
            for item in batch
            if isinstance(item, Problem)
        ],
        pods=pods,
        resume_token=resume_token,
        programs=programs,
        several=several or pods > 1,
    )
