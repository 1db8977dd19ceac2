"""Refusals of a backup or a restore. Nothing is written, or written files are removed again."""

from __future__ import annotations

from pilothouse_server.errors import FailedPrecondition


def refused(message: str, reason: str) -> FailedPrecondition:
    """Returns the error for a state that forbids the operation; `reason` is UPPER_SNAKE, without BACKUP_."""
    return FailedPrecondition(message, reason=f"BACKUP_{reason}")


def unreadable(path: object, error: OSError) -> FailedPrecondition:
    """Returns the error for a file that the system does not let us read or write."""
    return refused(f"{path}: {(error.strerror or 'cannot be used').lower()}", "FILE_UNUSABLE")
