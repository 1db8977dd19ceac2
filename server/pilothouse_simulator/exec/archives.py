"""`tar` in a simulated container: `tar cf - -C FOLDER NAME …` and `tar xf - -C FOLDER`, in memory."""

from __future__ import annotations

import io
import posixpath
import tarfile

from pilothouse_simulator.exec.process import Process

_CHUNK_BYTES = 32_768
_MODE = 0o644


async def tar(process: Process) -> int:
    """Writes an archive to the standard output, or unpacks an archive from the standard input."""
    words = list(process.arguments)
    letters = words.pop(0).lstrip("-") if words else ""
    folder, names = "/", []
    while words:
        word = words.pop(0)
        if word == "-C" and words:
            folder = words.pop(0)
        elif word != "-":
            names.append(word)
    if "f" not in letters or not set("cx") & set(letters):
        await process.complain("tar: only c and x are understood, with f -")
        return 1
    if "c" in letters:
        return await _pack(process, folder, names)
    return await _unpack(process, folder)


async def _pack(process: Process, folder: str, names: list[str]) -> int:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in names:
            path = posixpath.normpath(posixpath.join(folder, name))
            found = sorted(each for each in process.files if each == path or each.startswith(f"{path}/"))
            if not found:
                await process.complain(f"tar: {name}: No such file or directory")
                await process.complain("tar: error exit delayed from previous errors")
                return 1
            for each in found:
                content = process.files[each]
                entry = tarfile.TarInfo(
                    posixpath.join(name, posixpath.relpath(each, path)) if each != path else name
                )
                entry.size, entry.mode = len(content), _MODE
                archive.addfile(entry, io.BytesIO(content))
    data = target.getvalue()
    for start in range(0, len(data), _CHUNK_BYTES):
        await process.stdout(data[start : start + _CHUNK_BYTES])
    return 0


async def _unpack(process: Process, folder: str) -> int:
    data = bytearray()
    while part := await process.stdin.read():
        data += part
    prefix = f"{folder.rstrip('/')}/"
    if folder != "/" and not any(each.startswith(prefix) for each in process.files) and folder != "/tmp":  # noqa: S108
        await process.complain(f"tar: can't change directory to '{folder}': No such file or directory")
        return 1
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                source = archive.extractfile(entry) if entry.isfile() else None
                if source is not None:
                    name = posixpath.normpath(posixpath.join("/", entry.name)).lstrip("/")
                    process.files[posixpath.join(folder, name)] = source.read()
    except tarfile.TarError:
        await process.complain("tar: invalid tar magic")
        return 1
    return 0
