"""The messages between a supervisor and its child: lines of JSON over the socket that is the child's stdin.

The supervisor begins with `ChildOrders`. The child sends `Prepared` when it is ready to listen, and listens once the
supervisor has sent `LISTEN`. `ServingState` or `Failed` ends its start. An empty line requests its `Figures`, at any
time. A child whose socket ends drains as after SIGTERM, because no supervisor is left to end it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pilothouse_server.settings.model import Settings

# The longest line: a server's metrics are some 100 KB.
LINE_BYTES = 16 * 1024 * 1024
ASK_FOR_FIGURES = b"\n"
LISTEN = b"listen\n"


class ChildOrders(msgspec.Struct, frozen=True):
    """The orders for a child. `launcher` is the process id of its supervisor, `number` its own among the
    children.
    """

    launcher: int
    number: int
    settings: Settings
    kubeconfigs: dict[str, dict[str, Any]]


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """Everything except the listeners is started."""


class ServingState(msgspec.Struct, frozen=True, tag=True):
    """Calls are served. `password`: of an administrator that this start created; it is shown nowhere else."""

    password: str | None = None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The start failed; `why` is a text for people. `password` as in `ServingState`, if it was created before."""

    why: str
    password: str | None = None


class ProcessSample(msgspec.Struct, frozen=True, array_like=True):
    """One value of a Prometheus metric: `name` with its suffix, as in `_total`."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric: `kind` is counter, gauge, histogram, summary, info or unknown."""

    name: str
    help: str
    kind: str
    samples: list[ProcessSample]


class Figures(msgspec.Struct, frozen=True, tag=True):
    """The metrics of one process."""

    families: list[Family]


Said = Prepared | ServingState | Failed | Figures


def encode(message: ChildOrders | Said) -> bytes:
    """Returns the message as a line."""
    return msgspec.json.encode(message, enc_hook=str) + b"\n"


def orders_of(line: bytes) -> ChildOrders:
    """Reads the supervisor's line."""
    return msgspec.json.decode(line, type=ChildOrders, dec_hook=_path)


def said_by(line: bytes) -> Said:
    """Reads a child's line."""
    said: Said = _SAID.decode(line)
    return said


_SAID = msgspec.json.Decoder(Said)


def _path(wanted: type, value: object) -> object:
    return Path(str(value)) if wanted is Path else value
