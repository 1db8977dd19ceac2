"""`pilothouse serve` that keeps no audit records: the other arm of row 3, and of nothing else.

It replaces two functions in its own process before the command begins: the one that makes a record of a call, and the
one that turns records into what the database takes, with their hashes. The sequencer then has no record to write and
no chain to take forward; it still numbers and writes events. The product has no such switch.
"""

from __future__ import annotations

from typing import Any

from pilothouse_client.cli import main as command
from pilothouse_server.rpc import redaction
from pilothouse_server.rpc.interceptors import audit
from pilothouse_server.store import append


def _no_record(*_arguments: Any, **_named: Any) -> None:
    return None


def _no_rows(_records: object) -> tuple[str, list[bytes]]:
    return "[]", []


def _no_body(_message: object) -> dict[str, Any]:
    return {}


def main() -> None:
    """The command."""
    for module, name, replacement in (
        (audit, "_record", _no_record),
        (redaction, "body", _no_body),
        (append, "audit_rows", _no_rows),
    ):
        if not hasattr(module, name):
            raise RuntimeError(f"{module.__name__} has no {name} to replace: this must follow the product")
        setattr(module, name, replacement)
    command()


if __name__ == "__main__":
    main()
