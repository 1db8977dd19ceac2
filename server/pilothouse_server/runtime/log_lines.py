"""Log lines: one event and its facts each, on standard error.

They are text for people or JSON for programs.

The libraries' own loggers use the same renderer. Their lines at DEBUG may contain parameters of statements, so
the loggers in `QUIET` stay at WARNING at any configured level. Any client that reaches the port can provoke
their warnings: gRPC reports each header that is not UTF-8, with its content. So the number of their lines of one
kind is bounded, and bytes are not shown.

If the database is unreachable, full or takes no writes, every call and every task of the server fails. All of them
together write one line a minute for each such reason.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any

# structlog imports these if they are installed: rich for a traceback style and greenlet for a module that this server
# does not use. Without them each server takes 7 MB less.
_unwanted = {"rich", "greenlet"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(_unwanted))  # type: ignore[arg-type]
import structlog  # noqa: E402

from pilothouse_server.errors import PilothouseError  # noqa: E402

for _name in _unwanted:
    del sys.modules[_name]

# Returns the facts of the current task for each of its log lines, such as the call that it serves.
SCOPE: ContextVar[Callable[[], Mapping[str, str]] | None] = ContextVar("SCOPE", default=None)

# Libraries whose loggers stay at WARNING.
QUIET = ("sqlalchemy", "asyncpg", "aiohttp", "urllib3", "kubernetes", "alembic", "grpc", "asyncio")

# The most lines of one kind in a period, and the period. A kind is one logging statement of a library.
_MOST_OF_A_KIND, _WHILE_SECONDS = 10, 60.0
# Reasons that get one line in each period.
_OF_THE_DATABASE = frozenset({"DATABASE_BUSY", "DATABASE_FULL", "DATABASE_UNAVAILABLE"})


def configure(level: str, log_format: str, *, process: int | None = None) -> None:
    """Sets logging up for the process; `log_format` is `text` or `json`.

    Each line has the number `process`, unless it is None because there is only one process.
    """
    shared: list[Any] = [
        OneLineAMinute(),
        *([] if process is None else [lambda _logger, _method, event: {**event, "process": process}]),
        _with_scope,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    exceptions = [structlog.processors.format_exc_info] if log_format == "json" else []
    structlog.configure(
        processors=[*shared, *exceptions, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *exceptions, renderer],
        )
    )
    handler.addFilter(_Bounded())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class OneLineAMinute:
    """Drops all lines but the first in a minute that have the same database reason.

    The reasons are those in `_OF_THE_DATABASE`. That line has the number of lines that were left out since the previous
    one.
    """

    def __init__(self) -> None:
        # For each reason: when its minute ends, and how many lines were left out.
        self._reasons: dict[str, tuple[float, int]] = {}

    def __call__(self, _logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        """Returns the line, or raises DropEvent."""
        reason = event.get("reason")
        if reason not in _OF_THE_DATABASE:
            return event
        now = time.monotonic()
        ends, left_out = self._reasons.get(reason, (0.0, 0))
        if now < ends:
            self._reasons[reason] = ends, left_out + 1
            raise structlog.DropEvent
        self._reasons[reason] = now + _WHILE_SECONDS, 0
        return {**event, "left_out": left_out} if left_out else event


class _Bounded(logging.Filter):
    """Passes a bounded number of libraries' warnings of each kind in a period.

    The first line of the next period has the number of lines that were left out.
    """

    def __init__(self) -> None:
        super().__init__()
        # For each kind: when its period ends, and how many lines it has had.
        self._kinds: dict[tuple[str, str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind, now = (record.name, record.pathname, record.lineno), time.monotonic()
        ends, so_far = self._kinds.get(kind, (0.0, 0))
        left_out = 0
        if now >= ends:
            left_out, ends, so_far = max(0, so_far - _MOST_OF_A_KIND), now + _WHILE_SECONDS, 0
        self._kinds[kind] = ends, so_far + 1
        if so_far >= _MOST_OF_A_KIND:
            return False
        _without_received(record)
        if left_out:
            # The arguments are not formatted here: an error in the format must not be raised in the library.
            record.msg = f"{record.msg} ({left_out} more like it were left out)"
        return True


def _without_received(record: logging.LogRecord) -> None:
    """Removes received bytes and an exception's text from a library's line.

    It also removes the traceback of a refused request, which shows no bug of the server.
    """
    has_bytes = isinstance(record.args, tuple) and any(isinstance(each, bytes) for each in record.args)
    if has_bytes:
        record.args = tuple("[not shown]" if isinstance(each, bytes) else each for each in record.args or ())
    error = record.exc_info[1] if record.exc_info else None
    # aiohttp quotes the invalid header, which may be the one with the credentials.
    if has_bytes or type(error).__module__ == "aiohttp.http_exceptions":
        record.exc_info = None
    elif error is not None:
        record.exc_info = without_values(error)


def _with_scope(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    scope = SCOPE.get()
    return event if scope is None else {**scope(), **event}


def reason_of(error: BaseException) -> str:
    """Returns the reason of a domain error; '' for all other errors.

    A domain error needs no traceback. For a group it is the reason of the first error, if all of them are domain
    errors.
    """
    if isinstance(error, BaseExceptionGroup):
        reasons = [reason_of(each) for each in error.exceptions]
        return reasons[0] if all(reasons) else ""
    return error.reason if isinstance(error, PilothouseError) else ""


def without_values(error: BaseException) -> tuple[type[Exception], Exception, TracebackType | None]:
    """Returns the traceback of an unexpected error, for `exc_info`, without its text.

    It has the error's type in place of the text. The text may contain values: a parameter of a statement, an address
    with its password, a cluster's response. So may the texts of its causes, which are left out. For a group, the first
    error is reported.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (RuntimeError, RuntimeError(type(error).__name__), error.__traceback__)
