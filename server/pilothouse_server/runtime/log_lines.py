"""Log lines: one event and its facts each, as text for people or JSON for programs, on standard error.

The libraries' own loggers go through the same renderer. Their lines at DEBUG may hold parameters of
statements, so those of the database and of HTTP stay at WARNING at any level of our own. Anyone who reaches
the port can provoke their warnings: gRPC reports each header that is no UTF-8, with its content. So their
lines of one kind have a bound, and bytes are not shown.

Where the database is away, full or takes no writes, each call and each task of the server fails by it. All of them
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

# structlog takes these where it finds them, rich for tracebacks that we do not show so, greenlet for a module that we
# do not use: 7 MB in each server.
_unwanted = {"rich", "greenlet"} - sys.modules.keys()
sys.modules.update(dict.fromkeys(_unwanted))  # type: ignore[arg-type]
import structlog  # noqa: E402

from pilothouse_server.errors import PilothouseError  # noqa: E402

for _name in _unwanted:
    del sys.modules[_name]

# Returns the facts of the present task for each of its log lines, such as the call that it serves.
SCOPE: ContextVar[Callable[[], Mapping[str, str]] | None] = ContextVar("SCOPE", default=None)

# Libraries whose own words stay at WARNING.
QUIET = ("sqlalchemy", "asyncpg", "aiohttp", "urllib3", "kubernetes", "alembic", "grpc", "asyncio")

# So many lines of one kind, which is a place in the code, in so long.
_MOST_OF_A_KIND, _WHILE_SECONDS = 10, 60.0
# Reasons that need one line in so long.
_OF_THE_DATABASE = frozenset({"DATABASE_BUSY", "DATABASE_FULL", "DATABASE_UNAVAILABLE"})


def configure(level: str, log_format: str, *, process: int | None = None) -> None:
    """Sets logging up for the process; `log_format` is `text` or `json`. Each line has its process's number if there
    are several.
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
    """Drops all lines but the first in a minute that have the same reason of the database. That line has the number
    of lines left out since the one before.
    """

    def __init__(self) -> None:
        # Of each reason: when its minute ends, and how many lines were left out.
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
    """Lets through a bounded number of libraries' warnings of each kind in a period. The first line of the next
    period has the number of lines left out.
    """

    def __init__(self) -> None:
        super().__init__()
        # Of each kind when its while ends, and how many there were in it.
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
            # Its arguments are not put in here: where they do not fit, the library is not to hear of it.
            record.msg = f"{record.msg} ({left_out} more like it were left out)"
        return True


def _without_received(record: logging.LogRecord) -> None:
    """Removes received bytes and the words of an exception from a library's line, and the traceback of a refused
    request, which shows no fault in our code."""
    has_bytes = isinstance(record.args, tuple) and any(isinstance(each, bytes) for each in record.args)
    if has_bytes:
        record.args = tuple("[not shown]" if isinstance(each, bytes) else each for each in record.args or ())
    error = record.exc_info[1] if record.exc_info else None
    # aiohttp quotes the header that is wrong, which may be the one with the credentials.
    if has_bytes or type(error).__module__ == "aiohttp.http_exceptions":
        record.exc_info = None
    elif error is not None:
        record.exc_info = without_values(error)


def _with_scope(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    scope = SCOPE.get()
    return event if scope is None else {**scope(), **event}


def reason_of(error: BaseException) -> str:
    """Returns the reason of a domain error, which needs no traceback; '' for all others.

    Of several that is the first one's, if all of them are domain errors.
    """
    if isinstance(error, BaseExceptionGroup):
        reasons = [reason_of(each) for each in error.exceptions]
        return reasons[0] if all(reasons) else ""
    return error.reason if isinstance(error, PilothouseError) else ""


def without_values(error: BaseException) -> tuple[type[Exception], Exception, TracebackType | None]:
    """The traceback of an unforeseen error, for `exc_info`, with its kind in place of its words.

    Its text may hold values: a parameter of a statement, an address with its password, a cluster's answer. So
    may the texts of its causes, which are left out. Of several, the first is reported.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (RuntimeError, RuntimeError(type(error).__name__), error.__traceback__)
