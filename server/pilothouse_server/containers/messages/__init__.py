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
    added_to,
    parts,
)
from pilothouse_server.containers.messages.exec import check_start, exec_answers
from pilothouse_server.containers.messages.logs import log_answer

__all__ = [
    "CACHE",
    "CONTAINER",
    "IMAGE",
    "KIND",
    "RUN",
    "STATUS",
    "STATUS_CHANGE",
    "added_to",
    "check_start",
    "exec_answers",
    "log_answer",
    "parts",
]
