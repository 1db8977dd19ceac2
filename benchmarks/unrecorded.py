"""`pilothouse serve` that keeps no audit records and no events: the other arm of row 3, and of nothing else.

It replaces functions in its own process before the command begins: those that make a record of a call and the bodies in
it, those that turn records into what the database takes, with their hashes, those by which a change has an event
(with it goes the message that reads answer with), and the one by which a commit has the sequencer called. In its
database a trigger (`NOTHING_PENDING`) keeps rows of `pending_changes` away that hold nothing. The product has no such
switch.
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
    """The command."""
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
