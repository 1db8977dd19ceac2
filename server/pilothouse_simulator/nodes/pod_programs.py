"""The program of a simulated container: its log lines and their times, its end, and its reaction to SIGTERM.

A program is data (lines at offsets, a repeating part, an end), so a container's log at any moment follows from its
start time alone: the log needs no storage and no timers. A program comes from the behaviour in the pod's annotations,
or from a shell script given as `sh -c`, of which simple forms are supported (echo, sleep, exit, trap, wait, for, while
true, if and test of two strings, `tail -c N /dev/zero` to allocate memory). Otherwise the program is a server that runs
until it gets a signal to stop; so is a script with anything else in it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pilothouse_simulator.values.pod_behavior import Behavior, PodBehavior
from pilothouse_simulator.values.quantities import parse_quantity

JsonObject = dict[str, Any]

KILLED = 137
START_FAILED = 128
_SHELLS = frozenset({"sh", "bash", "ash", "/bin/sh", "/bin/bash", "/bin/ash"})
_TOOLS = frozenset({"true", "false", "sleep", "echo"})
_MOST_STEPS = 10_000
_HEARTBEAT_SECONDS = 30.0
_TAIL_SECONDS = 0.1


@dataclass(frozen=True)
class PodProgram:
    """The program of a container.

    `lines`: (seconds after the start, text without newline). `cycle`: the same, relative to each repetition, with its
    start and period. `end`: when and with which code the program ends by itself. `memory`: the most bytes that it
    allocates (0: its usage level), at `memory_at`. `on_term`: its exit code on SIGTERM, None if it ignores SIGTERM.
    `termination_message`: the text that it writes to /dev/termination-log.
    """

    lines: tuple[tuple[float, str], ...] = ()
    cycle: tuple[tuple[float, str], ...] = ()
    cycle_start: float = 0.0
    cycle_period: float = 0.0
    end: tuple[float, int] | None = None
    memory: int = 0
    memory_at: float = 0.0
    on_term: int | None = 0
    termination_message: str = ""

    def output(self, until: float) -> Iterator[tuple[float, str]]:
        """Yields the lines written up to `until` seconds after the start, in order."""
        for offset, text in self.lines:
            if offset > until:
                return
            yield offset, text
        if not self.cycle or self.cycle_period <= 0:
            return
        start = self.cycle_start
        while start <= until:
            for offset, text in self.cycle:
                if start + offset > until:
                    return
                yield start + offset, text
            start += self.cycle_period

    def next_output_after(self, moment: float) -> float | None:
        """Returns the time of the first line after `moment`, both in seconds after the start; None if there is none."""
        for offset, _ in self.lines:
            if offset > moment:
                return offset
        if not self.cycle or self.cycle_period <= 0:
            return None
        repetition = max(0, int((moment - self.cycle_start) // self.cycle_period))
        for start in (repetition, repetition + 1, repetition + 2):
            for offset, _ in self.cycle:
                due = self.cycle_start + start * self.cycle_period + offset
                if due > moment:
                    return due
        return None


def program_of(behavior: PodBehavior, container: JsonObject, *, is_main: bool) -> PodProgram:
    """Returns the program of a container. Init containers without a script succeed immediately."""
    name = container["name"]
    if is_main and behavior.explicit:
        if behavior.kind is Behavior.CRASH_LOOP:
            lines = ((0.0, f"{name}: starting"), (0.1, f"{name}: fatal error, giving up"))
            return PodProgram(lines=lines, end=(0.2, 1))
        if behavior.kind is Behavior.EXIT:
            return PodProgram(
                lines=((0.0, f"{name}: starting"), (0.9, f"{name}: done")), end=(1.0, behavior.exit_code)
            )
        if behavior.kind is Behavior.OOM:
            return PodProgram(lines=((0.0, f"{name}: starting"),), memory=2**62, memory_at=1.0)
    command = [*(container.get("command") or []), *(container.get("args") or [])]
    known = _program_of_command(command, dict(behavior.variables))
    if known is not None:
        return known
    if not is_main:
        return PodProgram(lines=((0.0, f"{name}: done"),), end=(0.1, 0))
    return PodProgram(
        lines=((0.0, f"{name}: started"),),
        cycle=((0.0, f"{name}: serving"),),
        cycle_start=_HEARTBEAT_SECONDS,
        cycle_period=_HEARTBEAT_SECONDS,
    )


def start_failure(behavior: PodBehavior, container: JsonObject) -> str | None:
    """Returns the error of a command that does not exist; None if it exists. Only `nosuch` counts as missing."""
    command = container.get("command") or []
    if behavior.kind is Behavior.START_ERROR:
        command = command or ["/nosuch"]
    elif not command or command[0].rpartition("/")[2] != "nosuch":
        return None
    return (
        "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
        f'unable to start container process: exec: "{command[0]}": stat {command[0]}: no such file or directory: '
        "unknown"
    )


def exec_fails(command: list[str]) -> bool:
    """Returns whether the command of a probe is known to fail."""
    program = _program_of_command(command)
    return program is not None and program.end is not None and program.end[1] != 0


def _program_of_command(command: list[str], variables: dict[str, str] | None = None) -> PodProgram | None:
    """Returns the program of a supported command: a script, or one of the simplest tools."""
    if len(command) >= 3 and command[0] in _SHELLS and command[1] == "-c":
        return _interpret(str(command[2]), variables or {})
    if command and command[0] in _TOOLS:
        return _interpret(shlex.join(command), {})
    return None


class _Unsupported(Exception):
    """The script contains something that this interpreter does not support."""


class _Ended(Exception):
    """The script has reached its end, or a part that repeats forever."""


class _Script:
    """Runs a script once, on its own clock."""

    def __init__(self, tokens: list[str], variables: dict[str, str]) -> None:
        self.tokens = tokens
        self.time = 0.0
        self.lines: list[tuple[float, str]] = []
        self.exit_code: int | None = None
        self.last_code = 0
        self.on_term: int | None = None
        self.memory = 0
        self.memory_at = 0.0
        self.termination_message = ""
        self.background_until = 0.0
        self.cycle: tuple[tuple[float, str], ...] = ()
        self.cycle_start = 0.0
        self.cycle_period = 0.0
        self.variables = variables
        self.steps = 0

    def program(self) -> PodProgram:
        try:
            self._block(0, len(self.tokens))
        except _Ended:
            pass
        else:
            self.exit_code = self.last_code
        return PodProgram(
            lines=tuple(self.lines),
            cycle=self.cycle,
            cycle_start=self.cycle_start,
            cycle_period=self.cycle_period,
            end=None if self.exit_code is None else (max(self.time, 0.01), self.exit_code),
            memory=self.memory,
            memory_at=self.memory_at,
            on_term=self.on_term,
            termination_message=self.termination_message,
        )

    def _block(self, position: int, end: int) -> None:
        while position < end:
            word = self.tokens[position]
            if word == "&&" and self.last_code != 0:
                raise _Unsupported
            if word in (";", "&&", "&"):
                position += 1
            elif word == "for":
                position = self._for(position, end)
            elif word == "while":
                position = self._while(position, end)
            elif word == "if":
                position = self._if(position, end)
            else:
                stop = position
                while stop < end and self.tokens[stop] not in (";", "&&", "&"):
                    stop += 1
                background = stop < end and self.tokens[stop] == "&"
                self._command(self.tokens[position:stop], background=background)
                position = stop

    def _body(self, position: int, end: int) -> tuple[int, int]:
        """Returns the bounds of `do … done` that begins at or after `position`."""
        while position < end and self.tokens[position] == ";":
            position += 1
        if position >= end or self.tokens[position] != "do":
            raise _Unsupported
        depth, stop = 0, position
        while stop < end:
            if self.tokens[stop] == "do":
                depth += 1
            elif self.tokens[stop] == "done":
                depth -= 1
                if depth == 0:
                    return position + 1, stop
            stop += 1
        raise _Unsupported

    def _for(self, position: int, end: int) -> int:
        name = self.tokens[position + 1]
        if self.tokens[position + 2] != "in":
            raise _Unsupported
        stop = position + 3
        while stop < end and self.tokens[stop] != ";":
            stop += 1
        values = self.tokens[position + 3 : stop]
        first, last = self._body(stop, end)
        for value in values:
            self.variables[name] = value
            self._block(first, last)
        return last + 1

    def _while(self, position: int, end: int) -> int:
        if self.tokens[position + 1] not in ("true", ":"):
            raise _Unsupported
        first, last = self._body(position + 2, end)
        start, known = self.time, len(self.lines)
        self._block(first, last)
        body = self.lines[known:]
        del self.lines[known:]
        self.cycle = tuple((offset - start, text) for offset, text in body)
        self.cycle_start, self.cycle_period = start, max(self.time - start, 0.01)
        raise _Ended

    def _if(self, position: int, end: int) -> int:
        """Runs `if …; then …; else …; fi`; nested `if` is not supported."""
        words = self.tokens[position:end]
        then, last = position + words.index("then"), position + words.index("fi")
        between = self.tokens[then:last]
        other = then + between.index("else") if "else" in between else last
        if "if" in between:
            raise _Unsupported
        self._block(position + 1, then)
        if self.last_code == 0:
            self._block(then + 1, other)
        elif other < last:
            self._block(other + 1, last)
        return last + 1

    def _command(self, words: list[str], *, background: bool) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            raise _Unsupported
        words = [self._substitute(word) for word in words if word != ">&2"]
        if not words:
            return
        name, arguments = words[0], words[1:]
        self.last_code = 0
        if name == "sleep":
            self._sleep(arguments, background=background)
        elif name in (handlers := self._handlers()):
            handlers[name](arguments)
        else:
            raise _Unsupported

    def _handlers(self) -> dict[str, Callable[[list[str]], None]]:
        return {
            "echo": self._echo,
            "wait": self._wait,
            "exit": self._exit,
            "trap": self._trap,
            "tail": self._tail,
            "true": lambda _: None,
            ":": lambda _: None,
            "false": self._fail,
            "test": self._test,
            "[": lambda arguments: self._test(arguments[:-1]),
        }

    def _echo(self, arguments: list[str]) -> None:
        if arguments[-2:] == [">", "/dev/termination-log"]:
            self.termination_message = " ".join(arguments[:-2]) + "\n"
        else:
            self.lines.append((self.time, " ".join(arguments)))

    def _sleep(self, arguments: list[str], *, background: bool) -> None:
        if len(arguments) != 1 or not re.fullmatch(r"\d+(\.\d+)?", arguments[0]):
            raise _Unsupported
        until = self.time + float(arguments[0])
        if background:
            self.background_until = max(self.background_until, until)
        else:
            self.time = until

    def _wait(self, _: list[str]) -> None:
        self.time = max(self.time, self.background_until)

    def _exit(self, arguments: list[str]) -> None:
        self.exit_code = int(arguments[0]) if arguments and arguments[0].isdigit() else 0
        raise _Ended

    def _trap(self, arguments: list[str]) -> None:
        if len(arguments) != 2 or arguments[1] not in ("TERM", "SIGTERM", "15"):
            raise _Unsupported
        match = re.fullmatch(r"exit(?: (\d+))?", arguments[0].strip())
        self.on_term = int(match[1] or 0) if match else None

    def _fail(self, _: list[str]) -> None:
        self.last_code = 1

    def _test(self, arguments: list[str]) -> None:
        if len(arguments) != 3 or arguments[1] not in ("=", "!="):
            raise _Unsupported
        equal = arguments[0] == arguments[2]
        self.last_code = 0 if equal == (arguments[1] == "=") else 1

    def _tail(self, arguments: list[str]) -> None:
        """Runs `tail -c SIZE /dev/zero`, with which a script allocates memory."""
        if len(arguments) != 3 or arguments[0] != "-c" or arguments[2] != "/dev/zero":
            raise _Unsupported
        self.memory_at, self.memory = self.time, _bytes(arguments[1])
        self.time += _TAIL_SECONDS

    def _substitute(self, word: str) -> str:
        if "`" in word or "$(" in word:
            raise _Unsupported

        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            if name not in self.variables:
                raise _Unsupported
            return self.variables[name]

        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, word)


def _bytes(text: str) -> int:
    """Returns the size of an argument of `tail -c` (`400m`, where m is mebibytes)."""
    number = text.rstrip("kmgKMGB")
    unit = {"k": "Ki", "m": "Mi", "g": "Gi"}.get(text[len(number) :][:1].lower(), "")
    if not number.isdigit():
        raise _Unsupported
    return int(parse_quantity(number + unit))


def _interpret(script: str, variables: dict[str, str]) -> PodProgram | None:
    """Returns the program of a shell script, or None if the script contains unsupported forms."""
    text = script.replace("\n", ";").replace("1>&2", ">&2").replace(">&2", " >&2 ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";&")
    lexer.whitespace_split = True
    try:
        tokens = [part for token in lexer for part in ([";"] if set(token) == {";"} else [token])]
        joined = _rejoin_redirections(tokens)
        return _Script(joined, variables).program()
    except (ValueError, IndexError, _Unsupported):
        return None


def _rejoin_redirections(tokens: list[str]) -> list[str]:
    """Joins `>&2`, which the lexer splits at the ampersand."""
    joined: list[str] = []
    for token in tokens:
        if len(joined) >= 2 and joined[-1] == "&" and joined[-2] == ">" and token == "2":
            joined[-2:] = [">&2"]
        else:
            joined.append(token)
    return joined
