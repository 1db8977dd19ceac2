"""Computes the pause after a failed call to a cluster, by its error."""

from __future__ import annotations

from pilothouse_server.kubernetes.errors import (
    LABEL_LOST,
    NAME_TAKEN,
    ClusterError,
    Forbidden,
    Throttled,
)
from pilothouse_server.runtime.backoff import backoff_seconds

# A transient failure ends by itself: retry often. A refusal usually lasts until somebody changes something. If a
# permission, a quota, a policy or a label is missing, that change happens on the cluster, and nothing notifies us.
TRANSIENT_FIRST_SECONDS, TRANSIENT_MOST_SECONDS = 0.5, 30.0
MENDED_ELSEWHERE_MOST_SECONDS = 30.0
REFUSED_FIRST_SECONDS, REFUSED_MOST_SECONDS = 2.0, 300.0


# An API server that has just started denies everything until it has read its roles, with the message of a real denial.
DENIED_ATTEMPTS = 4


def is_passing_denial(error: object, attempts: int) -> bool:
    """Returns whether a missing right may be due to an API server that just started.

    `attempts`: the number of failures before it.
    """
    return isinstance(error, Forbidden) and bool(error.permission) and attempts < DENIED_ATTEMPTS


def after_error(error: ClusterError, attempts: int) -> float:
    """Returns the pause after `error`; a server that gives a time for the retry is not asked earlier."""
    if error.outlook != "passing" and not is_passing_denial(error, attempts - 1):
        elsewhere = isinstance(error, Forbidden) or error.reason in (LABEL_LOST, NAME_TAKEN)
        most = MENDED_ELSEWHERE_MOST_SECONDS if elsewhere else REFUSED_MOST_SECONDS
        return backoff_seconds(attempts, REFUSED_FIRST_SECONDS, most)
    seconds = backoff_seconds(attempts, TRANSIENT_FIRST_SECONDS, TRANSIENT_MOST_SECONDS)
    return max(seconds, error.retry_after_seconds) if isinstance(error, Throttled) else seconds
