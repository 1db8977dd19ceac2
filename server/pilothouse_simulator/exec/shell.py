"""Runs a command in a simulated container: a program from a table, or a shell that reads a script or its input.

Time is the cluster's clock. An unknown command fails as in a real container: with exit code 127 in a shell, or with a
start error outside a shell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from pilothouse_simulator.exec.process import Pipe, Process, Sink
from pilothouse_simulator.exec.script import (
    For,
    If,
    Redirection,
    ScriptItem,
    ScriptPipeline,
    ScriptSequence,
    Simple,
    SyntaxFailure,
    While,
    Word,
    WordPart,
    parse,
)

_MOST_STEPS = 100_000
INTERRUPTED = 130
SHELLS = frozenset({"sh", "ash", "bash", "/bin/sh", "/bin/ash", "/bin/bash"})

Tool = Callable[[Process], Awaitable[int]]


class CommandNotFound(Exception):
    """The program does not exist."""


class Exited(Exception):
    """The shell ends; `code` is its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


async def run_command(process: Process, command: list[str], tools: dict[str, Tool]) -> int:
    """Runs a command to its end and returns its exit code. Raises CommandNotFound."""
    name = command[0]
    if name in SHELLS:
        return await _run_shell(process, command[1:], tools)
    tool = tools.get(name) or tools.get(name.rpartition("/")[2] if name.startswith(_PATHS) else "")
    if tool is None:
        raise CommandNotFound(name)
    process.arguments = command[1:]
    return await tool(process)


_PATHS = ("/bin/", "/usr/bin/", "/sbin/", "/usr/sbin/")


async def _run_shell(process: Process, arguments: list[str], tools: dict[str, Tool]) -> int:
    shell = Shell(process, tools)
    try:
        if arguments[:1] == ["-c"]:
            shell.positional = arguments[2:]
            await shell.run(arguments[1] if len(arguments) > 1 else "")
        else:
            await _interact(shell, process)
    except Exited as end:
        return end.code
    return shell.last_code


async def _interact(shell: Shell, process: Process) -> None:
    """Reads commands line by line.

    With a terminal, each line has a prompt. Ctrl-C ends the running command or drops the typed line, and shows the next
    prompt.
    """
    terminal = process.terminal
    if terminal is None:
        while await _turn(shell, process):
            pass
        return
    outer = terminal.interrupt
    turn = None
    try:
        while True:
            await process.stdout(b"/ # ")
            turn = asyncio.create_task(_turn(shell, process))
            terminal.interrupt = turn.cancel
            # `wait` does not raise if the task is cancelled, so an interrupt differs from the cancellation of this
            # coroutine.
            await asyncio.wait({turn})
            if turn.cancelled():
                shell.last_code = INTERRUPTED
            elif not turn.result():
                return
    finally:
        terminal.interrupt = outer
        if turn is not None:
            turn.cancel()


async def _turn(shell: Shell, process: Process) -> bool:
    """Runs one line; returns False at the end of the input."""
    line = await process.stdin.read_line()
    if line:
        await shell.run(line.decode(errors="replace"))
    return bool(line)


class Shell:
    """The state of one shell: variables, last exit code, background tasks."""

    def __init__(self, process: Process, tools: dict[str, Tool]) -> None:
        self.process = process
        self.tools = tools
        self.variables: dict[str, str] = {}
        self.positional: list[str] = []
        self.last_code = 0
        self._steps = 0
        self._background: set[asyncio.Task[int]] = set()

    async def run(self, script: str) -> None:
        """Runs a script and sets `last_code`. Raises Exited at `exit`."""
        try:
            tree = parse(script)
        except SyntaxFailure as failure:
            await self.process.complain(f"sh: syntax error: {failure}")
            self.last_code = 2
            return
        try:
            await self._sequence(tree, self.process)
        finally:
            for task in self._background:
                task.cancel()

    async def _sequence(self, sequence: ScriptSequence, process: Process) -> int:
        for item in sequence.items:
            if (item.joined == "&&" and self.last_code != 0) or (item.joined == "||" and self.last_code == 0):
                continue
            self.last_code = await self._item(item, process)
        return self.last_code

    async def _item(self, item: ScriptItem, process: Process) -> int:
        if not item.background:
            return await self._pipeline(item.pipeline, process)
        task = asyncio.create_task(self._pipeline(item.pipeline, process))
        self._background.add(task)
        return 0

    async def _pipeline(self, pipeline: ScriptPipeline, process: Process) -> int:
        # A busy loop in a script must not block the event loop.
        await asyncio.sleep(0)
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise Exited(137)
        *before, last = pipeline.commands
        stdin, tasks = process.stdin, []
        for command in before:
            joint = Pipe()
            stage = replace(process, stdin=stdin, stdout=joint.write)
            tasks.append(asyncio.create_task(self._stage(command, stage, joint)))
            stdin = joint
        try:
            code = await self._command(last, replace(process, stdin=stdin) if before else process)
        finally:
            if before:
                await stdin.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return int(code == 0) if pipeline.negated else code

    async def _stage(self, command: Command, process: Process, joint: Pipe) -> None:
        try:
            await self._command(command, process)
        except Exited:
            pass
        finally:
            await joint.close()

    async def _command(self, command: Command, process: Process) -> int:
        if isinstance(command, ScriptSequence):
            return await self._sequence(command, process)
        if isinstance(command, For):
            self.last_code = 0
            for word in command.words:
                for value in await self._expand(word, process):
                    self.variables[command.name] = value
                    await self._sequence(command.body, process)
            return self.last_code
        if isinstance(command, While):
            code = 0
            while (await self._sequence(command.condition, process) == 0) is command.wanted:
                code = await self._sequence(command.body, process)
            return code
        if isinstance(command, If):
            if await self._sequence(command.condition, process) == 0:
                return await self._sequence(command.body, process)
            self.last_code = 0
            return await self._sequence(command.otherwise, process) if command.otherwise is not None else 0
        return await self._simple(command, process)

    async def _simple(self, command: Simple, process: Process) -> int:
        words = [text for word in command.words for text in await self._expand(word, process)]
        assigned = {name: await self._joined(word, process) for name, word in command.assignments}
        if not words:
            self.variables.update(assigned)
            for name in assigned.keys() & process.environment.keys():
                process.environment[name] = assigned[name]
            return 0
        redirected = await self._redirected(command.redirections, process)
        if redirected is None:
            return 1
        return await self._run(
            words, replace(redirected, environment={**process.environment, **assigned}), process
        )

    async def _run(self, words: list[str], process: Process, outer: Process) -> int:
        name, arguments = words[0], words[1:]
        if name == "exit":
            raise Exited(int(arguments[0]) & 255 if arguments and arguments[0].isdigit() else self.last_code)
        if name == "wait":
            await asyncio.gather(*self._background, return_exceptions=True)
            return 0
        if name == "export":
            for argument in arguments:
                variable, equals, value = argument.partition("=")
                outer.environment[variable] = value if equals else self.variables.get(variable, "")
            return 0
        if name == "read":
            return await self._read(arguments, process)
        if name == "kill":
            return await self._kill(arguments, process)
        try:
            return await run_command(process, words, self.tools)
        except CommandNotFound:
            await process.complain(f"sh: {name}: not found")
            return 127

    async def _read(self, names: list[str], process: Process) -> int:
        line = (await process.stdin.read_line()).decode(errors="replace")
        values = line.rstrip("\n").split(None, max(0, len(names) - 1))
        for position, name in enumerate(name for name in names if not name.startswith("-")):
            self.variables[name] = values[position] if position < len(values) else ""
        return 0 if line.endswith("\n") else 1

    async def _kill(self, arguments: list[str], process: Process) -> int:
        """Runs `kill`: only the shell itself (process 1 of the exec) can be killed."""
        numbers = {"-9": 9, "-KILL": 9, "-15": 15, "-TERM": 15, "-INT": 2, "-2": 2}
        signal = next((numbers[entry] for entry in arguments if entry in numbers), 15)
        if arguments and arguments[-1] == _SHELL_PROCESS:
            raise Exited(128 + signal)
        await process.complain(f"sh: can't kill pid {arguments[-1] if arguments else ''}: No such process")
        return 1

    async def _redirected(self, redirections: tuple[Redirection, ...], process: Process) -> Process | None:
        for entry in redirections:
            target = await self._joined(entry.target, process)
            if entry.operator == "<":
                content = b"" if target == "/dev/null" else process.files.get(target)
                if content is None:
                    await process.complain(f"sh: can't open {target}: no such file")
                    return None
                source = Pipe()
                await source.write(content)
                await source.close()
                process = replace(process, stdin=source)
                continue
            sink = process.stderr if target == "2" else process.stdout
            if entry.operator != ">&":
                sink = _file_sink(process.files, target, append=entry.operator == ">>")
            process = (
                replace(process, stdout=sink) if entry.descriptor == 1 else replace(process, stderr=sink)
            )
        return process

    # Words

    async def _expand(self, word: Word, process: Process) -> list[str]:
        """Expands a word: to several fields if an unquoted value contains blanks, to none if it is empty."""
        fields: list[str] = []
        current: str | None = None
        for part in word:
            value = await self._value(part, process)
            if part.kind == "text" or part.quoted:
                current = (current or "") + value
                continue
            pieces = value.split()
            if value[:1].isspace() and current is not None:
                fields.append(current)
                current = None
            for position, piece in enumerate(pieces):
                if position:
                    fields.append(current or "")
                    current = None
                current = (current or "") + piece
        return fields if current is None else [*fields, current]

    async def _joined(self, word: Word, process: Process) -> str:
        return "".join([await self._value(part, process) for part in word])

    async def _value(self, part: WordPart, process: Process) -> str:
        if part.kind == "text":
            return part.value
        if part.kind == "command":
            return await self._output(part.value, process)
        name, separator, fallback = part.value.partition(":-")
        value = self._variable(name, process)
        return fallback if separator and not value else value

    def _variable(self, name: str, process: Process) -> str:
        if name == "?":
            return str(self.last_code)
        if name == "$":
            return _SHELL_PROCESS
        if name == "#":
            return str(max(0, len(self.positional) - 1))
        if name.isdigit():
            number = int(name)
            return self.positional[number] if number < len(self.positional) else ("sh" if number == 0 else "")
        return self.variables.get(name, process.environment.get(name, ""))

    async def _output(self, script: str, process: Process) -> str:
        collected = bytearray()

        async def collect(data: bytes) -> None:
            collected.extend(data)

        inner = Shell(replace(process, stdout=collect, environment=dict(process.environment)), self.tools)
        inner.variables, inner.positional = dict(self.variables), self.positional
        try:
            await inner.run(script)
            self.last_code = inner.last_code
        except Exited as end:
            self.last_code = end.code
        return collected.decode(errors="replace").rstrip("\n")


_SHELL_PROCESS = "7"
Command = Simple | For | While | If | ScriptSequence


def _file_sink(files: dict[str, bytes], path: str, *, append: bool) -> Sink:
    if path != "/dev/null":
        files[path] = files.get(path, b"") if append else b""

    async def write(data: bytes) -> None:
        if path != "/dev/null":
            files[path] += data

    return write
