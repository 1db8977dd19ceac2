"""The programs that a simulated container can run, like those of a small BusyBox."""

from __future__ import annotations

import asyncio
import re

from pilothouse_simulator.exec.archives import tar
from pilothouse_simulator.exec.process import Process
from pilothouse_simulator.exec.shell import SHELLS, CommandNotFound, Exited, Tool, run_command

_CHUNK_BYTES = 32_768
_SUFFIXES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "0": "\0"}


async def _echo(process: Process) -> int:
    words = process.arguments
    end, escapes = "\n", False
    while words and re.fullmatch(r"-[ne]+", words[0]):
        end = "" if "n" in words[0] else end
        escapes = escapes or "e" in words[0]
        words = words[1:]
    text = " ".join(words)
    await process.stdout(((_unescape(text) if escapes else text) + end).encode())
    return 0


async def _printf(process: Process) -> int:
    if not process.arguments:
        await process.complain("printf: missing operand")
        return 1
    form, values = _unescape(process.arguments[0]), iter(process.arguments[1:])
    text = re.sub(r"%[sd%]", lambda match: "%" if match[0] == "%%" else next(values, ""), form)
    await process.stdout(text.encode())
    return 0


async def _cat(process: Process) -> int:
    code = 0
    for path in process.arguments or ["-"]:
        if path == "-":
            while data := await process.stdin.read():
                await process.stdout(data)
        elif path == "/dev/zero":
            while True:
                await process.stdout(bytes(_CHUNK_BYTES))
                await asyncio.sleep(0)
        elif path in process.files:
            await process.stdout(process.files[path])
        else:
            await process.complain(f"cat: can't open '{path}': No such file or directory")
            code = 1
    return code


async def _head(process: Process) -> int:
    """Runs `head`: the first lines of the input (ten, or `-n N`), or `-c N` bytes of the input or of /dev/zero."""
    arguments = process.arguments
    if arguments[:1] == ["-c"]:
        match = re.fullmatch(r"(\d+)([kmg]?)", arguments[1].lower()) if len(arguments) > 1 else None
        if match is None or arguments[2:] not in ([], ["/dev/zero"]):
            await process.complain("head: invalid number")
            return 1
        left = int(match[1]) * _SUFFIXES[match[2]]
        while left > 0:
            piece = bytes(min(left, _CHUNK_BYTES)) if arguments[2:] else (await process.stdin.read())[:left]
            if not piece:
                break
            await process.stdout(piece)
            left -= len(piece)
            await asyncio.sleep(0)
        return 0
    count = int(arguments[1]) if arguments[:1] == ["-n"] and arguments[1:2] and arguments[1].isdigit() else 10
    for _ in range(count):
        line = await process.stdin.read_line()
        if not line:
            break
        await process.stdout(line)
    return 0


async def _tr(process: Process) -> int:
    if len(process.arguments) != 2:
        await process.complain("tr: only two sets are understood")
        return 1
    old, new = (_unescape(_ranges(text)).encode("latin-1", "replace") for text in process.arguments)
    if not old or not new:
        await process.complain("tr: an empty set")
        return 1
    table = bytes.maketrans(old, new[: len(old)].ljust(len(old), new[-1:]))
    while data := await process.stdin.read():
        await process.stdout(data.translate(table))
    return 0


async def _grep(process: Process) -> int:
    if len(process.arguments) != 1:
        await process.complain("grep: only a pattern is understood")
        return 2
    found = 1
    pattern = re.compile(process.arguments[0].encode())
    while line := await process.stdin.read_line():
        if pattern.search(line):
            found = 0
            await process.stdout(line)
    return found


async def _wc(process: Process) -> int:
    lines, size = 0, 0
    while data := await process.stdin.read():
        lines, size = lines + data.count(b"\n"), size + len(data)
    await process.print_line(str(size if process.arguments == ["-c"] else lines))
    return 0


async def _sleep(process: Process) -> int:
    text = process.arguments[0] if process.arguments else ""
    if text in ("infinity", "inf"):
        await asyncio.Event().wait()
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        await process.complain(f"sleep: invalid number '{text}'")
        return 1
    await process.clock.sleep(float(text))
    return 0


async def _true(process: Process) -> int:
    return 0


async def _false(process: Process) -> int:
    return 1


async def _hostname(process: Process) -> int:
    await process.print_line(process.host_name)
    return 0


async def _environment(process: Process) -> int:
    """Runs `env`: prints all variables, or runs a command with changed variables."""
    arguments = list(process.arguments)
    while arguments and "=" in arguments[0]:
        name, _, value = arguments.pop(0).partition("=")
        process.environment = {**process.environment, name: value}
    if not arguments:
        for name, value in process.environment.items():
            await process.print_line(f"{name}={value}")
        return 0
    try:
        return await run_command(process, arguments, TOOLS)
    except CommandNotFound:
        await process.complain(f"env: can't execute '{arguments[0]}': No such file or directory")
        return 127
    except Exited as end:
        return end.code


async def _print_environment(process: Process) -> int:
    if not process.arguments:
        return await _environment(process)
    values = [process.environment[name] for name in process.arguments if name in process.environment]
    for value in values:
        await process.print_line(value)
    return 0 if len(values) == len(process.arguments) else 1


async def _id(process: Process) -> int:
    if process.arguments == ["-u"]:
        await process.print_line("0")
    else:
        await process.print_line("uid=0(root) gid=0(root) groups=0(root)")
    return 0


async def _whoami(process: Process) -> int:
    await process.print_line("root")
    return 0


async def _working_directory(process: Process) -> int:
    await process.print_line("/")
    return 0


async def _date(process: Process) -> int:
    now = process.clock.now()
    if process.arguments == ["+%s"]:
        await process.print_line(str(int(now.timestamp())))
    else:
        await process.print_line(now.strftime("%a %b %e %H:%M:%S UTC %Y"))
    return 0


async def _list(process: Process) -> int:
    """Runs `ls`: prints the names directly below the given directories."""
    code = 0
    for path in [argument for argument in process.arguments if not argument.startswith("-")] or ["/"]:
        if path in process.files:
            await process.print_line(path)
            continue
        prefix = path.rstrip("/") + "/"
        names = {name[len(prefix) :].partition("/")[0] for name in process.files if name.startswith(prefix)}
        if not names:
            await process.complain(f"ls: {path}: No such file or directory")
            code = 1
        for name in sorted(names):
            await process.print_line(name)
    return code


async def _test(process: Process) -> int:
    """Runs `test` and `[`: files, empty and equal strings, comparisons of numbers."""
    words = [word for word in process.arguments if word != "]"]
    negated = words[:1] == ["!"]
    words = words[1:] if negated else words
    holds = False
    if len(words) == 1:
        holds = words[0] != ""
    elif len(words) == 2:
        directory = any(name.startswith(words[1].rstrip("/") + "/") for name in process.files)
        holds = {
            "-f": words[1] in process.files,
            "-e": words[1] in process.files or directory,
            "-d": directory,
            "-n": words[1] != "",
            "-z": words[1] == "",
            "-t": process.terminal is not None,
        }.get(words[0], False)
    elif len(words) == 3 and words[1] in ("=", "==", "!="):
        holds = (words[0] == words[2]) is (words[1] != "!=")
    elif len(words) == 3 and all(re.fullmatch(r"-?\d+", word) for word in (words[0], words[2])):
        first, second = int(words[0]), int(words[2])
        holds = {
            "-eq": first == second, "-ne": first != second, "-lt": first < second,
            "-le": first <= second, "-gt": first > second, "-ge": first >= second,
        }.get(words[1], False)  # fmt: skip
    return int(holds is negated)


async def _terminal(process: Process) -> int:
    """Runs `stty size` and `tty`."""
    if process.terminal is None:
        await process.complain("stty: standard input: Inappropriate ioctl for device")
        return 1
    if process.arguments == ["size"]:
        await process.print_line(f"{process.terminal.height} {process.terminal.width}")
    return 0


async def _which(process: Process) -> int:
    code = 0
    for name in process.arguments:
        if name in TOOLS or name in SHELLS:
            await process.print_line(f"/bin/{name}")
        else:
            code = 1
    return code


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), text)


def _ranges(text: str) -> str:
    return re.sub(
        r"([a-zA-Z0-9])-([a-zA-Z0-9])",
        lambda match: "".join(map(chr, range(ord(match[1]), ord(match[2]) + 1))),
        text,
    )


TOOLS: dict[str, Tool] = {
    "echo": _echo, "printf": _printf, "cat": _cat, "head": _head, "tr": _tr, "grep": _grep, "wc": _wc,
    "sleep": _sleep, "true": _true, ":": _true, "false": _false, "hostname": _hostname, "env": _environment,
    "printenv": _print_environment, "id": _id, "whoami": _whoami, "pwd": _working_directory, "date": _date,
    "ls": _list, "test": _test, "[": _test, "stty": _terminal, "which": _which, "tar": tar,
}  # fmt: skip
