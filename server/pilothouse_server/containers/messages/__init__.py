"""Containers, images and history: value ↔ protobuf.

`shown` is what callers get, `wanted` what they send.
"""

from __future__ import annotations

from pilothouse_server.containers.messages.conversation import check_start, conversation
from pilothouse_server.containers.messages.live import log_answer
from pilothouse_server.containers.messages.shown import (
    container,
    image,
    render,
    status_change,
)
from pilothouse_server.containers.messages.wanted import STATUS_OF, UPDATABLE, merger, wanted

__all__ = [
    "STATUS_OF",
    "UPDATABLE",
    "check_start",
    "container",
    "conversation",
    "image",
    "log_answer",
    "merger",
    "render",
    "status_change",
    "wanted",
]
