"""Containers, images, history, logs and programs: value ↔ protobuf."""

from __future__ import annotations

from pilothouse_server.containers.messages.container import (
    CACHE,
    CONTAINER,
    IMAGE,
    KIND,
    RUN,
    STATUS,
    STATUS_CHANGE,
    pod_to_proto,
)
from pilothouse_server.containers.messages.exec import check_start, exec_answers
from pilothouse_server.containers.messages.forwarding import archive_parts, forwarded_bytes
from pilothouse_server.containers.messages.logs import log_answer
from pilothouse_server.containers.messages.revision import changes_between, revision_to_proto

__all__ = [
    "CACHE",
    "CONTAINER",
    "IMAGE",
    "KIND",
    "RUN",
    "STATUS",
    "STATUS_CHANGE",
    "archive_parts",
    "changes_between",
    "check_start",
    "exec_answers",
    "forwarded_bytes",
    "log_answer",
    "pod_to_proto",
    "revision_to_proto",
]
