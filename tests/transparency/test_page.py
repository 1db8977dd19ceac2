"""The page of the audit log, typed from top to bottom by an auditor; and the verbs that refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.harness import PASSWORD, running_server
from tests.main_job.command import Shell as Command
from tests.readme.served import ROOT, Shell
from tests.transparency.logs import fill

TYPED = r"""
pilothouse audit head
pilothouse audit head --checkpoint > kept-checkpoint
KEY=$(pilothouse audit head -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["verifier_keys"][0])')
pilothouse audit export audit.jsonl
python3 client/pilothouse_client/audit_verifier.py audit.jsonl "$KEY" kept-checkpoint
pilothouse audit verify --from-checkpoint kept-checkpoint
pilothouse audit list --limit 1
ID=$(pilothouse audit list --limit 1 -o yaml | sed -n 's/^[- ]*operation_id: //p')
pilothouse audit prove "$ID" --record record.json > record.tlog-proof
pilothouse audit publish public
pilothouse namespaces create shop
pilothouse namespaces update shop --legal-hold
"""


@pytest.mark.full
async def test_an_auditor_types_the_page(database: Database, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "client").symlink_to(ROOT / "client")
    async with running_server(database, tmp_path / "server", with_cluster=False) as server:
        await fill(server, 300)
        shell = Shell(server.address, tmp_path, directory_of_files=files)
        await shell.run(f"pilothouse login --server {server.address} --user admin --password-stdin", PASSWORD)
        printed = await shell.run(TYPED)
        assert '"checkpoint": "matches"' in printed
        assert "intact: " in printed
        head, *entries, end = [json.loads(line) for line in (files / "audit.jsonl").read_text().splitlines()]
        assert end == {"end": True, "records": len(entries), "complete": True}
        assert (files / "record.tlog-proof").read_text().startswith("c2sp.org/tlog-proof@v1\nindex ")
        assert (files / "record.json").read_text().startswith('{"action":')
        assert (files / "public/checkpoint").read_text().startswith(head["origin"])
        assert (files / "public/tile/0/000").stat().st_size == 8192
        assert (files / "public/tile/entries/000").stat().st_size == 256 * 34
        await _refused(server.address, files, tmp_path, head["keys"][0])


async def _refused(address: str, files: Path, directory: Path, key: str) -> None:
    command = Command(directory)
    export = files / "audit.jsonl"
    good = await command.run("audit", "verify", "--offline", str(export), "--key", key)
    assert good.code == 0, good.errors
    there = await command.run("audit", "export", str(export))
    assert (there.code, "--resume" in there.errors) == (2, True)
    cut = files / "cut.jsonl"
    lines = export.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[:100]) + lines[100][:20])
    refused = await command.run("audit", "verify", "--offline", str(cut), "--key", key)
    assert refused.code == 1
    # It goes on where it was cut, in the middle of a line, with the same head.
    resumed = await command.run("audit", "export", "--resume", str(cut))
    assert resumed.code == 0, resumed.errors
    assert cut.read_text() == export.read_text()
    other = files / "other-checkpoint"
    other.write_text((files / "kept-checkpoint").read_text().replace("pilothouse/", "another/"))
    refused = await command.run("audit", "verify", "--from-checkpoint", str(other))
    assert refused.code == 7
    assert "is of the log another/" in refused.errors
