"""The page about the form of records is correct: its vectors have the hashes that it shows.

The product computes the same hashes.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from pilothouse_server.store import audit_records
from pilothouse_server.store.audit_records import AuditRecord
from tests.audit.canonical import as_canonical_json

PAGE = Path("docs/audit-format.md")
_VECTOR = re.compile(r"```json\n(?P<json>.*)\n```\n\n```text\nrecord_hash (?P<record>[0-9a-f]{64})\n```")


def vectors(page: str) -> list[tuple[bytes, str]]:
    """Returns the canonical form and the hash of each vector of the page."""
    return [(found["json"].encode(), found["record"]) for found in _VECTOR.finditer(page)]


def faults(page: str) -> list[str]:
    """Returns the faults of the vectors."""
    found: list[str] = []
    for sequence, (text, record) in enumerate(vectors(page), start=1):
        if as_canonical_json(json.loads(text)) != text:
            found.append(f"{sequence}: not canonical")
        if hashlib.sha256(text).hexdigest() != record:
            found.append(f"{sequence}: record_hash")
    return found


def test_the_vectors_of_the_page_are_correct() -> None:
    page = PAGE.read_text()
    assert len(vectors(page)) == 2
    assert faults(page) == []


@pytest.mark.parametrize(
    ("was", "becomes", "fault"),
    [
        ('"admin"', '"Admin"', "record_hash"),
        ('{"bootstrap":true}', '{"bootstrap": true}', "not canonical"),
        ("record_hash dc", "record_hash dd", "record_hash"),
    ],
)
def test_a_wrong_vector_is_detected(was: str, becomes: str, fault: str) -> None:
    page = PAGE.read_text()
    assert was in page
    assert any(fault in each for each in faults(page.replace(was, becomes, 1)))


def test_the_product_computes_the_hashes_of_the_vectors() -> None:
    """The names of the members are also those of the product."""
    for text, record in vectors(PAGE.read_text()):
        given = json.loads(text)
        given["operation_id"] = UUID(given["operation_id"])
        for moment in ("started_at", "completed_at"):
            given[moment] = datetime.fromisoformat(given[moment])
        made = audit_records.canonical_json(AuditRecord(**given).as_row())
        assert made == text
        assert audit_records.record_hash(made).hex() == record


def test_the_page_names_every_member_of_a_record() -> None:
    table = PAGE.read_text().partition("## Canonical JSON")[0]
    named = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    assert named == {field.name for field in msgspec.structs.fields(AuditRecord)}
