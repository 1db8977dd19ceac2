"""An auditor types the page of the audit log from top to bottom; then the commands that refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Database, connection
from tests.harness import PASSWORD, running_server
from tests.main_job.command import Shell as Command
from tests.readme.served import ROOT, Shell
from tests.transparency.logs import fill

TYPED = r"""
pilothouse audit head
pilothouse audit head --checkpoint > kept-checkpoint
KEY=$(pilothouse audit head -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["verifier_keys"][0])')
pilothouse audit export audit.jsonl --from-checkpoint kept-checkpoint
python3 client/pilothouse_client/audit_verifier.py audit.jsonl "$KEY" --from-checkpoint kept-checkpoint
pilothouse audit verify --from-checkpoint kept-checkpoint
pilothouse audit list --limit 1
ID=$(pilothouse audit list --limit 1 -o yaml | sed -n 's/^[- ]*operation_id: //p')
pilothouse audit prove "$ID" --record record.json > record.tlog-proof
cat > verify_proof.py <<'END'
import base64, sys
sys.path.insert(0, "client/pilothouse_client")
from audit_verifier import head, root_of, sha256

proof, record = (open(name, "rb").read() for name in sys.argv[1:3])
path, _, note = proof.decode().partition("\n\n")
_, index, *hashes = path.split("\n")
origin, size, root = head(note, sys.argv[3])
leaf = sha256(b"\x00" + sha256(record))
found = root_of(leaf, int(index.removeprefix("index ")), size, [base64.b64decode(each) for each in hashes])
print("proven" if found == root else "WRONG")
END
python3 verify_proof.py record.tlog-proof record.json "$KEY"
pilothouse audit publish public
pilothouse namespaces create shop
pilothouse namespaces update shop --legal-hold
pilothouse audit verify --namespace shop
pilothouse audit export --namespace shop shop.jsonl
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
        assert "\nproven\n" in printed
        page = (ROOT / "docs/audit.md").read_text()
        beside = [line for line in TYPED.strip().splitlines() if line not in page]
        assert beside == ["pilothouse namespaces create shop"], "all else that is typed is on the page"
        head, *entries, end = [json.loads(line) for line in (files / "audit.jsonl").read_text().splitlines()]
        assert end.pop("consistency")["size"] > 0
        assert end == {"end": True, "records": len(entries), "complete": True}
        assert "these are the records of namespace shop" in printed
        assert (files / "shop.jsonl").stat().st_size > 0
        assert (files / "audit.jsonl").stat().st_mode & 0o777 == 0o600
        assert (files / "record.tlog-proof").read_text().startswith("c2sp.org/tlog-proof@v1\nindex ")
        assert (files / "record.json").read_text().startswith('{"action":')
        assert (files / "public/checkpoint").read_text().startswith(head["origin"])
        assert (files / "public/tile/0/000").stat().st_size == 8192
        assert (files / "public/tile/entries/000").stat().st_size == 256 * 34
        await _refused(server.address, files, tmp_path, head["keys"][0])
        await _left_alone(files, tmp_path)
        await _not_proven(database, tmp_path)


async def _refused(address: str, files: Path, directory: Path, key: str) -> None:
    command = Command(directory)
    export = files / "audit.jsonl"
    good = await command.run("audit", "verify", "--offline", str(export), "--key", key)
    assert good.code == 0, good.errors
    # A fault is reported with the file or the key that causes it.
    for key_given, checkpoint, words in (
        ("rubbish", "kept-checkpoint", "rubbish is not an Ed25519 key of a log"),
        (key, "audit.jsonl", f"{export}: "),
        (key, "record.json", f"{files / 'record.json'}: the head is not signed"),
    ):
        refused = await command.run(
            "audit", "verify", "--offline", str(export), "--key", key_given,
            "--from-checkpoint", str(files / checkpoint),
        )  # fmt: skip
        assert refused.code == 1
        assert words in refused.errors
    there = await command.run("audit", "export", str(export))
    assert (there.code, "--resume" in there.errors) == (2, True)
    cut = files / "cut.jsonl"
    lines = export.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[:100]) + lines[100][:20])
    refused = await command.run("audit", "verify", "--offline", str(cut), "--key", key)
    assert refused.code == 1
    # The export continues where it was cut, in the middle of a line, with the same head.
    resumed = await command.run(
        "audit", "export", "--resume", str(cut), "--from-checkpoint", str(files / "kept-checkpoint")
    )
    assert resumed.code == 0, resumed.errors
    assert cut.read_text() == export.read_text()
    other = files / "other-checkpoint"
    other.write_text((files / "kept-checkpoint").read_text().replace("pilothouse/", "another/"))
    refused = await command.run("audit", "verify", "--from-checkpoint", str(other))
    assert refused.code == 7
    assert "belongs to the log another/" in refused.errors


async def _left_alone(files: Path, directory: Path) -> None:
    """A file that is not such an export is not written to, and no file is left if nothing was exported."""
    command = Command(directory)
    other = files / "other.jsonl"
    for text in (
        "notes of mine",
        '{"format": "another"}\n',
        '{"format":"pilothouse-audit-export/1"}\n',
        "\n",
    ):
        other.write_text(text)
        refused = await command.run("audit", "export", "--resume", str(other))
        assert (refused.code, other.read_text()) == (2, text), refused.errors
    whole = (files / "audit.jsonl").read_text()
    other.write_text(whole[: len(whole) // 2])
    refused = await command.run("audit", "export", "--resume", "--namespace", "shop", str(other))
    assert refused.code == 2
    assert "not 'shop'" in refused.errors
    refused = await command.run("audit", "export", "--filter", "no such filter", str(files / "new.jsonl"))
    assert refused.code != 0
    assert not (files / "new.jsonl").exists()


async def _not_proven(database: Database, directory: Path) -> None:
    """The database shows another record than was logged, so its proof would be of something else."""
    command = Command(directory)
    async with connection(database.admin_dsn) as sql:
        operation = str(await sql.fetchval("SELECT operation_id FROM operation_logs WHERE sequence = 100"))
        assert (await command.run("audit", "prove", operation)).code == 0
        await sql.execute("UPDATE operation_logs SET username = 'x' WHERE sequence = 100")
    refused = await command.run("audit", "prove", operation, "--record", str(directory / "record"))
    assert refused.code == 1
    assert "does not match record 100" in refused.errors
    assert not (directory / "record").exists()
