"""Archives for copies: entries from a hostile pod stay inside the target, and a packed folder is restored."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from pilothouse_client.commands.archives import ArchiveError, pack, unpack
from pilothouse_client.commands.container_port_forward import PortPair, port_pair
from pilothouse_client.commands.failures import CommandError

NAMES = ("base", "base/a", "base/a/b", "base/link", "base/link/x", "./base/c", "other", "base/" + "n" * 300)
HOSTILE = (
    "/etc/x",
    "../x",
    "base/../../x",
    "base/a/../../..",
    "base/link/../../x",
    "base\\..\\x",
    "..",
    "/",
    "",
)
TARGETS = ("a", ".", "..", "../..", "../outside", "/etc", "link/../..", "a/../../..", "base/a", "x\0y", "")
TYPES = (
    *(tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE),
)


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", leads_to: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, leads_to, len(content), 0o7777
    padding = bytes(-len(content) % 512)
    return info.tobuf(tarfile.GNU_FORMAT) + content + padding


def hostile(random: Random) -> bytes:
    made = b""
    for _ in range(random.randrange(1, 14)):
        kind = random.choice(TYPES)
        content = b"evil" * random.randrange(300) if kind in (tarfile.REGTYPE, tarfile.CONTTYPE) else b""
        name = random.choice(NAMES if random.random() < 0.7 else HOSTILE)
        leads_to = random.choice((*TARGETS, *NAMES))
        made += entry(name, kind, content, leads_to)
    return made + bytes(1024)


def in_pieces(data: bytes, random: Random) -> Iterator[bytes]:
    while data:
        size = random.randrange(1, 3000)
        yield data[:size]
        data = data[size:]


def tree(folder: Path) -> dict[str, object]:
    return {
        str(each.relative_to(folder)): each.readlink()
        if each.is_symlink()
        else each.is_file() and each.read_bytes()
        for each in sorted(folder.rglob("*"))
    }


def test_no_archive_writes_or_links_outside_the_target(tmp_path: Path) -> None:
    for seed in range(400):
        random = Random(seed)
        home = tmp_path / str(seed)
        target = home / "work" / "target"
        (home / "outside").mkdir(parents=True)
        target.parent.mkdir()
        (home / "outside" / "kept").write_text("kept")
        (home / "work" / "neighbour").write_text("kept")
        if random.random() < 0.3:
            # Left by an earlier copy, or created by the user.
            target.mkdir()
            (target / "link").symlink_to("../../outside")
        before = tree(home / "outside")
        with suppress(ArchiveError):
            unpack(in_pieces(hostile(random), random), target)
        assert tree(home / "outside") == before, seed
        assert {each.name for each in (home / "work").iterdir()} <= {"target", "neighbour"}, seed
        assert {each.name for each in home.iterdir()} == {"work", "outside"}, seed
        own = [each for each in target.rglob("*") if each != target / "link"] if target.is_dir() else []
        for each in own:
            mode = each.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode), (seed, each)
            assert stat.S_ISLNK(mode) or not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH), (seed, each)
            if each.is_symlink() and "link" not in os.readlink(each).split("/"):
                assert Path(os.path.realpath(each)).is_relative_to(target.resolve()), (seed, each)


@pytest.mark.parametrize(
    "entries",
    [
        # A link that leads out of the target, and a file written through it.
        pytest.param(
            [
                entry("base/link", tarfile.SYMTYPE, leads_to="../../outside"),
                entry("base/link/evil", content=b"evil"),
            ],
            id="CVE-2019-1002101",
        ),
        # A name that leads out of the target.
        pytest.param([entry("base/../../../outside/evil", content=b"evil")], id="CVE-2019-11246"),
        # Two links: the second leads out of the target only through the first.
        pytest.param(
            [
                entry("base/one", tarfile.SYMTYPE, leads_to="."),
                entry("base/two", tarfile.SYMTYPE, leads_to="one/../../../outside"),
                entry("base/two/evil", content=b"evil"),
            ],
            id="CVE-2019-11251",
        ),
    ],
)
def test_known_attacks_on_kubectl_cp_write_nothing_outside(tmp_path: Path, entries: list[bytes]) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "work" / "target"
    target.parent.mkdir()
    done = unpack([b"".join(entries) + bytes(1024)], target)
    assert done.left_out_count >= 1
    assert list(outside.iterdir()) == []
    assert not any(each.is_symlink() and "outside" in os.readlink(each) for each in target.rglob("*"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no readable archive"),
        (b"x" * 2000, "no readable archive"),
        (entry("base/a", content=b"x" * 1900)[:1500], "no readable archive|middle of a file"),
        (b"".join(entry(f"base/{number}") for number in range(12)) + bytes(1024), "more than 10 entries"),
        (entry("base/a", content=b"x" * 3000) + bytes(1024), "more than 2000 bytes"),
    ],
)
def test_an_invalid_or_too_large_archive_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(ArchiveError, match=words):
        unpack([data], tmp_path / "target", most_entries=10, most_bytes=2000)


def test_the_size_limit_covers_headers_and_endless_streams(tmp_path: Path) -> None:
    def endless(head: bytes) -> Iterator[bytes]:
        yield head
        while True:
            yield bytes(64 * 1024 - 1) + b"x"

    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 8 * 1024**3
    skipped = tarfile.TarInfo("../x")
    skipped.size = 8 * 1024**3
    for head in (long_name, skipped):
        with pytest.raises(ArchiveError):
            unpack(endless(head.tobuf(tarfile.GNU_FORMAT)), tmp_path / "target", most_bytes=10_000)


def test_a_packed_folder_is_restored_with_its_links(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "empty").mkdir(parents=True)
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "big").write_bytes(os.urandom(200_000))
    (source / "program").write_text("#!/bin/sh\n")
    (source / "program").chmod(0o755)
    (source / "deep" / "near").symlink_to("../program")
    (source / "away").symlink_to("/etc/passwd")
    done = unpack(pack(source, "./name"), tmp_path / "target")
    expected = tree(source)
    del expected["away"]
    assert tree(tmp_path / "target") == expected
    assert (tmp_path / "target" / "program").stat().st_mode & 0o777 == 0o755
    assert (done.files, done.left_out) == (2, ["./name/away: is a link whose target is not in the folder"])
    one = unpack(pack(source / "program", "program"), tmp_path / "one")
    assert ((tmp_path / "one").read_text(), one.files) == ("#!/bin/sh\n", 1)
    assert sum(map(len, pack(source, "name"))) % tarfile.RECORDSIZE == 0
    # The standard `tarfile` module reads it, too.
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack(source, "name")))) as made:
        assert sorted(made.getnames())[:3] == ["name", "name/away", "name/deep"]


def test_ports_are_parsed_as_in_kubectl() -> None:
    assert port_pair("8080:80") == PortPair(8080, 80)
    assert port_pair("80") == PortPair(80, 80)
    assert port_pair(":80") == PortPair(0, 80)
    for text in ("", "x", "80:", "0", "8080:0", "65536", "1:2:3", "-1:80", "8080:99999"):
        with pytest.raises(CommandError, match="a port is PORT"):
            port_pair(text)
