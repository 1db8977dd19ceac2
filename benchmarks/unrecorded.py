"""`pilothouse serve` without audit records and events: the other arm of row 3, and used for nothing else.

It replaces functions in its own process before the command starts: the functions that build a call's record and the
bodies in it; those that convert records to database rows with their hashes; those that add an event to a change, and
with it the message that reads return; and the one that makes a commit call the sequencer. In its database, a trigger
(`NOTHING_PENDING`) drops empty rows of `pending_changes`. The product has no such option.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilothouse_client.cli import main as command
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.interceptors import audit
from pilothouse_server.store import append
from pilothouse_server.store.draft import Draft
from pilothouse_server.store.feed import Feed
from pilothouse_server.store.unit_of_work import Transaction

NOTHING_PENDING = """
CREATE FUNCTION nothing_pending() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER nothing_pending BEFORE INSERT ON pending_changes FOR EACH ROW
    WHEN (cardinality(NEW.records) = 0 AND cardinality(NEW.events) = 0) EXECUTE FUNCTION nothing_pending();
"""
_PARAMETERS = append.parameters


def _no_record(*_arguments: Any, **_named: Any) -> None:
    return None


def _no_row(_record: object) -> bytes:
    return b""


def _without_records(_audit: Sequence[bytes], *others: Any) -> dict[str, Any]:
    return _PARAMETERS([], *others)


def _no_body(_message: object) -> dict[str, Any]:
    return {}


def _no_event(_change: Transaction | Draft, _event: object) -> None:
    return None


def _nothing_to_number(_feed: Feed) -> None:
    return None


def main() -> None:
    """Runs the command."""
    for owner, name, replacement in (
        (Transaction, "emit", _no_event),
        (Draft, "emit", _no_event),
        (Feed, "committed", _nothing_to_number),
        (audit, "_record", _no_record),
        (redaction, "body", _no_body),
        (append, "audit_row", _no_row),
        (append, "parameters", _without_records),
    ):
        if not hasattr(owner, name):
            raise RuntimeError(f"{owner.__name__} has no {name} to replace: this must follow the product")
        setattr(owner, name, replacement)
    command()


if __name__ == "__main__":
    main()
