"""The observed programs in a container's pods."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

ProgramKind = Literal["main", "sidecar", "native_sidecar", "init"]
ProgramState = Literal["waiting", "running", "terminated"]


class ProgramStatus(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One program in all running pods; `containers.program_status` describes which pods each field is from."""

    name: str
    kind: ProgramKind
    pods: int = 0
    ready_pods: int = 0
    restart_count: int = 0
    state: ProgramState = "waiting"
    reason: str = ""
    message: str = ""
    image: str = ""
    image_id: str = ""
    exit_code: int | None = None
    exit_reason: str = ""
    exited_at: datetime | None = None
    started_at: datetime | None = None
    pod: str = ""
