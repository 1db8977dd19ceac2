"""Archives of `cp`: packed from local files, and unpacked from a pod, which is not trusted.

A program of the container may have replaced `tar` (CVE-2019-1002101, -11246, -11251). So the rules for unpacking an
archive are stricter than those of `tarfile`'s filters: entries go only into the target, never through a link, and links
are created last. Absolute names, `..`, devices and pipes are left out. A symbolic link is created if it is relative and
cannot leave the target: `..` may be only at its beginning, at most once for each directory above it in the target.
Entries, sizes and headers are bounded, and the archive is read once.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse_client.commands.failures import CommandError

MOST_ENTRIES = 100_000
MOST_BYTES = 16 * 1024**3
# Bounds for extended headers, which `tarfile` reads as a whole and keeps with their entries.
_MOST_HEADER_BYTES, _MOST_HEADERS_BYTES = 1024 * 1024, 256 * 1024 * 1024
_CHUNK_BYTES = 32 * 1024
_BLOCK_BYTES = 512
_MOST_LEFT_OUT, _LONGEST_NAME = 20, 200
# Errors about one name, after which other entries can still be written.
_NAME_ERRORS = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.ENOENT)


class ArchiveError(CommandError):
    """The archive is malformed or exceeds a bound."""


@dataclass(slots=True)
class Unpacked:
    """The number of files and bytes that were written; the first entries that were left out, and their number."""

    files: int = 0
    size: int = 0
    left_out: list[str] = field(default_factory=list)
    left_out_count: int = 0

    def leave_out(self, name: str, why: str) -> None:
        """Records an entry that is left out."""
        self.left_out_count += 1
        if len(self.left_out) < _MOST_LEFT_OUT:
            self.left_out.append(f"{name[:_LONGEST_NAME]}: {why}")

    def add(self, size: int, most: int) -> None:
        """Counts a file that is about to be written. Raises ArchiveError beyond the bound."""
        if size < 0 or self.size + size > most:
            raise ArchiveError(f"the archive has more than {most} bytes of files: copy less at a time")
        self.files, self.size = self.files + 1, self.size + size


class _Forward(io.RawIOBase):
    """A stream of bytes as a file that seeks forward, and back within the last block, which `tarfile` needs.

    The number of bytes that may be read is that which `allow` has added up, and the bound for all headers.
    """

    def __init__(self, parts: Iterable[bytes], most: int) -> None:
        self._parts = iter(parts)
        self._left = most + _MOST_HEADERS_BYTES
        self._allowed = _MOST_HEADERS_BYTES
        self._kept = b""
        self._at = 0
        # The offset of `_kept` in the stream.
        self._begin = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def allow(self, size: int) -> None:
        """Allows reading the content of an entry."""
        self._allowed += size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence != os.SEEK_SET or offset < self._begin:
            raise ArchiveError("the archive cannot be read: it refers to an earlier part of itself")
        while offset > self._begin + len(self._kept) and self._more():
            self._forget(min(offset, self._begin + len(self._kept)))
        self._at = min(offset, self._begin + len(self._kept))
        return self._at

    def read(self, size: int = -1) -> bytes:
        self._allowed -= size
        if not 0 <= size <= _MOST_HEADER_BYTES or self._allowed < 0:
            raise ArchiveError("the archive cannot be read: its headers are too long")
        while self._begin + len(self._kept) < self._at + size and self._more():
            pass
        start = self._at - self._begin
        data = self._kept[start : start + size]
        self._at += len(data)
        self._forget(self._at)
        return data

    def _more(self) -> bool:
        part = next(self._parts, None)
        self._left -= len(part or b"")
        if self._left < 0:
            raise ArchiveError("the archive exceeds the limit for files and headers: copy less at a time")
        self._kept += part or b""
        return part is not None

    def _forget(self, before: int) -> None:
        done = before - self._begin - _BLOCK_BYTES
        if done > 0:
            self._kept = self._kept[done:]
            self._begin += done


def unpack(
    parts: Iterable[bytes], target: Path, *, most_entries: int = MOST_ENTRIES, most_bytes: int = MOST_BYTES
) -> Unpacked:
    """Unpacks an archive: its first directory, or its only file, becomes `target`.

    Existing files are overwritten.

    Raises ArchiveError if the archive is malformed or exceeds a bound; files that were already unpacked stay.
    """
    stream = _Forward(parts, most_bytes)
    try:
        with tarfile.TarFile(fileobj=stream, mode="r") as archive:
            unpacking = _Unpacking(archive, stream, target, most_bytes)
            for number, entry in enumerate(archive, start=1):
                if number > most_entries:
                    raise ArchiveError(
                        f"the archive has more than {most_entries} entries: copy less at a time"
                    )
                unpacking.take(entry)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise ArchiveError(f"the pod has sent no readable archive: {error}") from error
    except OSError as error:
        raise ArchiveError(f"cannot write {error.filename or target}: {error.strerror}") from error
    unpacking.make_links()
    return unpacking.done


class _Unpacking:
    def __init__(self, archive: tarfile.TarFile, stream: _Forward, target: Path, most: int) -> None:
        self.done = Unpacked()
        self._archive, self._stream, self._target, self._most = archive, stream, target, most
        # The written files by their names in the archive, for hard links.
        self._written: dict[str, Path] = {}
        self._links: list[tuple[list[str], str]] = []

    def take(self, entry: tarfile.TarInfo) -> None:
        """Unpacks one entry, or leaves it out."""
        inner = _inner(entry.name)
        try:
            if inner is None or not _is_free(self._target, inner):
                self.done.leave_out(
                    entry.name,
                    "must be in the folder, with no backslash, and without a link or a file as parent",
                )
            else:
                self._put(entry, inner)
        except OSError as error:
            if error.errno not in _NAME_ERRORS:
                raise
            self.done.leave_out(entry.name, f"cannot be written: {error.strerror}")

    def _put(self, entry: tarfile.TarInfo, inner: list[str]) -> None:
        place = self._target.joinpath(*inner)
        if entry.isdir():
            _make_folder(place)
        elif entry.isreg():
            self.done.add(entry.size, self._most)
            self._stream.allow(entry.size)
            _write(self._archive, entry, place)
            self._written[posixpath.normpath(entry.name)] = place
        elif entry.islnk() and (source := self._written.get(posixpath.normpath(entry.linkname))) is not None:
            self.done.add(source.lstat().st_size, self._most)
            _copy(source, place)
        elif entry.issym() and inner and _stays_inside(entry.linkname, len(inner) - 1):
            self._links.append((inner, entry.linkname))
        else:
            leads = entry.issym() or entry.islnk()
            self.done.leave_out(
                entry.name,
                "is a link whose target is not in the folder" if leads else "is not a file, folder or link",
            )

    def make_links(self) -> None:
        """Creates the links after all files, so that no file is written through a link."""
        for inner, leads_to in self._links:
            try:
                self._make_link(inner, leads_to)
            except OSError as error:
                self.done.leave_out("/".join(inner), f"cannot be written: {error.strerror}")

    def _make_link(self, inner: list[str], leads_to: str) -> None:
        place = self._target.joinpath(*inner)
        # A link that was created before may be on the path to this one.
        if not _is_free(self._target, inner) or (place.exists() and not place.is_symlink()):
            self.done.leave_out(
                "/".join(inner), "is a link whose path is taken or leads through another link"
            )
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink():
            place.unlink()
        place.symlink_to(leads_to)


def _inner(name: str) -> list[str] | None:
    """Returns the parts of a name below the first directory.

    None if it is absolute or leaves the directory."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        return None
    return parts[1:]


def _is_free(target: Path, inner: list[str]) -> bool:
    """Returns whether no directory on the path is a link; one may have existed before."""
    place = target
    for part in inner[:-1]:
        place /= part
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            return False
    return True


def _make_folder(place: Path) -> None:
    if place.is_symlink():
        place.unlink()
    place.mkdir(parents=True, exist_ok=True)


def _write(archive: tarfile.TarFile, entry: tarfile.TarInfo, place: Path) -> None:
    source = archive.extractfile(entry)
    assert source is not None
    with _opened(place, entry.mode) as target:
        left = entry.size
        while left > 0 and (data := source.read(min(left, _CHUNK_BYTES))):
            target.write(data)
            left -= len(data)
    if left:
        raise ArchiveError("the archive ends in the middle of a file")


def _copy(source: Path, place: Path) -> None:
    if source == place:
        return
    with source.open("rb") as origin, _opened(place, source.stat().st_mode) as target:
        while data := origin.read(_CHUNK_BYTES):
            target.write(data)


def _opened(place: Path, mode: int) -> io.BufferedWriter:
    """Opens a new file that only its owner may write, even if the archive permits others to."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        place.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(place, flags, (mode & 0o755) | 0o600), "wb")


def _stays_inside(leads_to: str, depth: int) -> bool:
    parts = [part for part in leads_to.split("/") if part not in ("", ".")]
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    plain = not leads_to.startswith("/") and "\0" not in leads_to and ".." not in parts[up:]
    return plain and up <= depth


def pack(source: Path, name: str) -> Iterator[bytes]:
    """Yields an archive of a file or directory; its names begin with `name`.

    Links stay links, devices are left out.

    The archive ends with a whole record, because clusters before Kubernetes 1.30 cannot close the input of `tar`.
    """
    written = 0
    for part in _entries(source, name):
        written += len(part)
        yield part
    end = 2 * _BLOCK_BYTES
    yield bytes(end + -(written + end) % tarfile.RECORDSIZE)


def _entries(source: Path, name: str) -> Iterator[bytes]:
    for path, inner in _below(source, name):
        found = path.lstat()
        entry = tarfile.TarInfo(inner)
        entry.mode, entry.mtime = stat.S_IMODE(found.st_mode) & 0o777, int(found.st_mtime)
        if stat.S_ISDIR(found.st_mode):
            entry.type = tarfile.DIRTYPE
            yield entry.tobuf(tarfile.GNU_FORMAT)
        elif stat.S_ISLNK(found.st_mode):
            entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(path)
            yield entry.tobuf(tarfile.GNU_FORMAT)
        elif stat.S_ISREG(found.st_mode):
            entry.size = found.st_size
            yield entry.tobuf(tarfile.GNU_FORMAT)
            yield from _content(path, entry.size)


def _below(source: Path, name: str) -> Iterator[tuple[Path, str]]:
    yield source, name
    if source.is_dir() and not source.is_symlink():
        for each in sorted(source.iterdir()):
            yield from _below(each, f"{name}/{each.name}")


def _content(path: Path, size: int) -> Iterator[bytes]:
    """Yields as many bytes as the header has declared, even if the file changes, and pads the last block."""
    left = size
    with path.open("rb") as file:
        while left > 0 and (data := file.read(min(left, _CHUNK_BYTES))):
            yield data
            left -= len(data)
    padding = left + -size % _BLOCK_BYTES
    while padding > 0:
        yield bytes(min(padding, _CHUNK_BYTES))
        padding -= _CHUNK_BYTES
