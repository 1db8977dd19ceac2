"""Files that are read again when they change, while the server runs.

A tool that renews a certificate replaces files one after the other, and not always atomically. So unusable
files (half written, or a key that does not belong to the certificate) change nothing: the former certificate stays in
use, and the log and a metric report the fault, until the files change again. At start there is no former certificate,
so unusable files are an error.

A check costs a `stat` of each file. All file access runs in a thread, because a file may be on a slow disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog
from prometheus_client import Counter, Gauge

from pilothouse_server.settings.model import PREFIX, SettingsError

log = structlog.get_logger(__name__)

T = TypeVar("T")
_Signature = tuple[tuple[int, ...] | None, ...]

MOST_BYTES: Final = 1 << 20

RELOADS = Counter("pilothouse_tls_reloads_total", "Changed TLS files that were loaded.", ("what",))
REFUSED = Gauge(
    "pilothouse_tls_files_refused",
    "1 while changed TLS files cannot be used, so the previous ones stay in use.",
    ("what",),
)
EXPIRY = Gauge(
    "pilothouse_tls_expiry_timestamp_seconds",
    "Time at which the first certificate of a file, or a revocation list, expires.",
    ("what",),
)


class Reloaded(Generic[T]):
    """The content of `paths`, as `load` parses it: `value`.

    `what` is its name in the log and in metrics. `load` raises SettingsError.

    Raises:
        SettingsError: the files cannot be used at start.
    """

    def __init__(self, what: str, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self.what = what
        self._paths = tuple(paths)
        self._load = load
        # Taken before the files are read, so that the next check detects a write in between.
        self._seen = self._signature()
        self.value = load()
        REFUSED.labels(what).set(0)

    def look(self) -> bool:
        """Reads the files if they have changed; returns whether there is a new value."""
        signature = self._signature()
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            value = self._load()
        except SettingsError as error:
            REFUSED.labels(self.what).set(1)
            log.warning(
                "changed TLS files cannot be used: the previous ones stay in use",
                what=self.what,
                why=str(error),
            )
            return False
        REFUSED.labels(self.what).set(0)
        # The files were rewritten with the same content.
        if value == self.value:
            return False
        self.value = value
        RELOADS.labels(self.what).inc()
        return True

    def _signature(self) -> _Signature:
        return tuple(map(_state, self._paths))


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read(setting: str, path: Path, most: int = MOST_BYTES) -> bytes:
    """Returns the content of the file that the setting `setting` names.

    Raises:
        SettingsError: it cannot be read, or is too long.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise SettingsError(f"{PREFIX}{setting}: {path} cannot be read ({type(error).__name__})") from None
    if len(content) > most:
        raise SettingsError(f"{PREFIX}{setting}: {path} is longer than {most} bytes")
    return content
