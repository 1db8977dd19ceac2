"""`pilothouse audit sinks`: credentials are read from files and never printed."""

from __future__ import annotations

from pathlib import Path

from tests.client.command import Command


async def test_sinks_are_created_listed_and_deleted(logged_in: Command, tmp_path: Path) -> None:
    key, headers = tmp_path / "key", tmp_path / "headers"
    key.write_text("canary\n")
    headers.write_text("authorization: Bearer canary\n")
    create = ("audit", "sinks", "create", "siem", "--kind", "http", "--address", "https://siem.example.com")
    made = await logged_in(
        *create, "--signing-key-file", str(key), "--headers-file", str(headers), "-o", "json"
    )
    assert made.code == 0, made.err
    assert '"kind": "AUDIT_SINK_KIND_HTTP"' in made.out
    assert "canary" not in made.out + made.err
    for wrong in (("--headers-file", str(key)), ("--client-key-file", str(tmp_path / "missing"))):
        assert (await logged_in(*create, *wrong)).code == 2
    assert (await logged_in("audit", "sinks", "create", "x", "--kind", "fax", "--address", "y")).code == 2
    listed = (await logged_in("audit", "sinks", "list")).lines
    assert listed[1].split()[:2] == ["siem", "HTTP"]
    assert (await logged_in("audit", "sinks", "delete", "siem")).code == 2
    assert (await logged_in("audit", "sinks", "delete", "siem", "--yes")).code == 0
