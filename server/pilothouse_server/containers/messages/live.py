"""Logs and programs: what the cluster says → protobuf."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse_server.containers.logs import Entry, Problem
from pilothouse_server.kubernetes.exec import Ended, Output

_KEPT_BYTES = 8 * 1024
_MOST_WORDS = 2000


class Transcript:
    """The first bytes of a conversation with a program, kept for the audit record if that is wanted."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._kept: dict[str, bytearray] = {}

    def add(self, stream: str, data: bytes) -> None:
        """Keeps what there is room for."""
        if self._wanted:
            kept = self._kept.setdefault(stream, bytearray())
            kept += data[: max(0, _KEPT_BYTES - len(kept))]

    def facts(self) -> dict[str, str]:
        """The text by stream; NUL, which the database cannot hold, as a replacement character."""
        return {
            stream: bytes(kept).decode("utf-8", "replace").replace("\x00", "\ufffd")
            for stream, kept in self._kept.items()
        }


def log_entry(entry: Entry) -> pb.LogEntry:
    """One line."""
    seconds, nanos = divmod(entry.line.nanoseconds, 1_000_000_000)
    return pb.LogEntry(
        container=entry.container,
        pod=entry.pod,
        timestamp=Timestamp(seconds=seconds, nanos=nanos) if entry.line.nanoseconds else None,
        line=entry.line.text,
    )


def log_answer(batch: Sequence[Entry | Problem], *, pods: int, resume_token: str) -> pb.StreamLogsResponse:
    """Some lines, and what keeps others from coming."""
    return pb.StreamLogsResponse(
        entries=[log_entry(item) for item in batch if isinstance(item, Entry)],
        problems=[
            pb.LogProblem(container=item.container, pod=item.pod, reason=item.reason, message=item.message)
            for item in batch
            if isinstance(item, Problem)
        ],
        pods=pods,
        resume_token=resume_token,
    )


def exec_output(output: Output) -> pb.ExecResponse:
    """Bytes that a program wrote."""
    if output.stream == "stdout":
        return pb.ExecResponse(stdout=output.data)
    return pb.ExecResponse(stderr=output.data)


def ending(ended: Ended) -> dict[str, int | str]:
    """How a program ended, for the audit record; with -1, why it could not be run."""
    told: dict[str, int | str] = {"exit_code": ended.exit_code}
    if ended.message:
        told["message"] = ended.message[:_MOST_WORDS]
    return told


def exec_result(ended: Ended) -> pb.ExecResponse:
    """How a program ended."""
    return pb.ExecResponse(result=pb.ExecResult(exit_code=ended.exit_code, message=ended.message))
