"""A PKCS#11 token, used through the program that loads its library (`encryption.hsm.program`).

Requests are numbered, and handled in the order in which they arrive. A request without a response in time ends the
program: the waiting requests fail with it, and the next request starts it again. So if a token hangs or a library
crashes, a server loses only the calls that need the token. A program that has failed is not started again within a
second.

A PIN that was refused is not tried again: three wrong ones lock most tokens.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from pilothouse_server.encryption.hsm import program
from pilothouse_server.encryption.token_keys import refused
from pilothouse_server.errors import PilothouseError, Unavailable
from pilothouse_server.runtime.account import ProcessAccount
from pilothouse_server.runtime.child_program import launch
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.settings.model import PREFIX, Settings, SettingsError

log = structlog.get_logger(__name__)

_PROGRAM: Final = "pilothouse_server.encryption.hsm.program"
_MOST_WAITING: Final = 256
_LINE_BYTES: Final = 1 << 20
_PAUSE_SECONDS: Final = 1.0
# The longest time of one response: network HSMs take some ten milliseconds, and a caller waits for it.
ANSWER_SECONDS = 5.0
# Opening may take this many times as long: it loads the library, which may connect to a network of tokens, and logs in.
_OPEN_FACTOR: Final = 4
_FOR_GOOD: Final = (program.PIN_WRONG, program.PIN_LOCKED, program.PIN_LAST_TRY)


@dataclass(frozen=True, slots=True)
class TokenLocation:
    """The token, the label of its keys, and the longest time of a response."""

    module: Path
    token: str
    pin: str = field(repr=False)
    label: str
    seconds: float
    writes: bool = False

    @classmethod
    def of(cls, settings: Settings, *, writes: bool = False) -> TokenLocation:
        """Returns the location that the settings name. `writes`: keys are to be added. Raises SettingsError."""
        if settings.pkcs11_module is None or not settings.pkcs11_token or not settings.pkcs11_key_label:
            raise SettingsError(
                f"{PREFIX}PKCS11_MODULE, {PREFIX}PKCS11_TOKEN and {PREFIX}PKCS11_KEY_LABEL are needed: "
                f"{PREFIX}KEY_PROVIDERS names pkcs11"
            )
        return cls(
            settings.pkcs11_module.absolute(),
            settings.pkcs11_token,
            _pin(settings),
            settings.pkcs11_key_label,
            ANSWER_SECONDS,
            writes,
        )

    def words(self, word: str) -> str:
        """Returns the message for a refusal of the program: the setting at fault, and the remedy."""
        token = f'the token "{self.token}"'
        return {
            program.NOT_INSTALLED: f"{PREFIX}KEY_PROVIDERS: pkcs11 needs the package python-pkcs11: install "
            "the wheel of Pilothouse with the extra pkcs11",
            program.MODULE: f"{PREFIX}PKCS11_MODULE: {self.module} cannot be loaded as a PKCS#11 library",
            program.TOKEN_MISSING: f'{PREFIX}PKCS11_TOKEN: {self.module} has no token with the label "{self.token}"',
            program.TOKEN_TWICE: f'{PREFIX}PKCS11_TOKEN: several tokens have the label "{self.token}"',
            program.PIN_WRONG: f"{PREFIX}PKCS11_PIN_FILE: {token} refused the PIN",
            program.PIN_LOCKED: f"{PREFIX}PKCS11_TOKEN: the user's PIN of {token} is locked, expired or not set",
            program.PIN_LAST_TRY: (
                f"{PREFIX}PKCS11_PIN_FILE: {token} allows one more PIN attempt, which the server does "
                "not use: log in with the token's own tool first"
            ),
            program.KEY_EXTRACTABLE: f'{PREFIX}PKCS11_KEY_LABEL: a key "{self.label}" of {token} can be extracted '
            "(CKA_EXTRACTABLE, or not CKA_SENSITIVE): create one with `pilothouse keys add`",
            program.NO_AES_GCM: f"{PREFIX}PKCS11_TOKEN: {token} does not support AES-GCM (CKM_AES_GCM)",
            program.KEY_MISSING: f'{token} has no key "{self.label}" with the requested identifier',
        }.get(word, f"{token} failed ({word})")


def _pin(settings: Settings) -> str:
    path = settings.pkcs11_pin_file
    if path is None:
        return ""
    try:
        text, mode = path.read_text(), path.stat().st_mode
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{PREFIX}PKCS11_PIN_FILE: {path} cannot be read") from None
    if mode & 0o077:
        raise SettingsError(f"{PREFIX}PKCS11_PIN_FILE: {path} can be read by others: chmod 600 it")
    return text.rstrip("\r\n")


class _Run:
    """One run of the program."""

    def __init__(
        self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._writer = writer
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ended = False
        self._reading = asyncio.create_task(self._read(reader), name="token")

    @classmethod
    async def launch(cls) -> _Run:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = launch(
                    # -P: modules are those of this process, not of its working directory.
                    [sys.executable, "-P", "-m", _PROGRAM],
                    account=ProcessAccount(os.geteuid(), os.getegid(), changed=False),
                    dies_by="KILL",
                    environment=_environment(),
                    stdin=theirs.fileno(),
                    # Nobody reads the library's output.
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES)
        return cls(process, reader, writer)

    @property
    def alive(self) -> bool:
        return not self._ended

    async def ask(self, seconds: float, asked: Mapping[str, Any]) -> Any:
        """Sends a request, and returns its response. Raises _Refused; TimeoutError, after which the run is over."""
        if len(self._waiting) >= _MOST_WAITING:
            raise _Refused("BUSY")
        self._number += 1
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(json.dumps({**asked, "n": number}).encode() + b"\n")
            async with asyncio.timeout(seconds):
                return await answer
        finally:
            self._waiting.pop(number, None)

    async def end(self) -> None:
        """Kills the program, and waits for its end."""
        self._ended = True
        self._process.kill()
        await cancel_and_wait(self._reading)
        self._writer.close()
        self._fail("ENDED")
        await asyncio.to_thread(self._process.wait)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                answer = json.loads(line)
                waiting = self._waiting.get(answer["n"])
                if waiting is None or waiting.done():
                    continue
                if "refused" in answer:
                    waiting.set_exception(_Refused(answer["refused"]))
                else:
                    waiting.set_result(answer["is"])
        except (OSError, ValueError):
            pass
        finally:
            self._ended = True
            self._fail("ENDED")

    def _fail(self, word: str) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_Refused(word))


class _Refused(Exception):
    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class PkcsToken:
    """The token of a server; the protocol `token_keys.Token`."""

    def __init__(self, place: TokenLocation) -> None:
        self._place = place
        self._run: _Run | None = None
        self._starting = asyncio.Lock()
        # The number of times that the program was started.
        self.launches = 0
        self._refused_for_good = ""
        self._failed = ""
        self._again_at = 0.0

    async def keys(self) -> Mapping[str, str]:
        """Returns the keys' names, by identifier, newest first. Raises Unavailable."""
        return dict(await self._ask({"do": "keys"}))

    async def wrap(self, key_id: str, plaintext: bytes) -> bytes:
        """Encrypts with a key. Raises Unavailable."""
        return bytes.fromhex(await self._ask({"do": "wrap", "key": key_id, "data": plaintext.hex()}))

    async def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Decrypts with a key. Raises Unavailable, and FailedPrecondition for a value that was changed."""
        return bytes.fromhex(await self._ask({"do": "unwrap", "key": key_id, "data": wrapped.hex()}))

    async def add(self) -> str:
        """Creates a new newest key in the token; returns its identifier. Raises Unavailable."""
        return str(await self._ask({"do": "add"}))

    async def rename(self, key_id: str, name: str) -> None:
        """Gives a key another label. Raises Unavailable."""
        await self._ask({"do": "rename", "key": key_id, "name": name})

    async def close(self) -> None:
        """Ends the program, with its session."""
        run, self._run = self._run, None
        if run is not None:
            await run.end()

    async def _ask(self, asked: Mapping[str, Any]) -> Any:
        run = await self._started()
        try:
            return await run.ask(self._place.seconds, asked)
        except _Refused as refusal:
            raise self._error(refusal.word) from None
        except TimeoutError:
            await self._end(run)
            raise self._note("TIMEOUT") from None

    async def _started(self) -> _Run:
        async with self._starting:
            if self._run is not None and self._run.alive:
                return self._run
            if self._refused_for_good:
                raise self._error(self._refused_for_good)
            if time.monotonic() < self._again_at:
                raise self._error(self._failed)
            if self._run is not None:
                await self._end(self._run)
            self.launches += 1
            try:
                run = await _Run.launch()
            except OSError as error:
                raise self._note(type(error).__name__) from None
            place = self._place
            orders = {
                "module": str(place.module),
                "token": place.token,
                "pin": place.pin,
                "label": place.label,
                "writes": place.writes,
            }
            try:
                await run.ask(_OPEN_FACTOR * place.seconds, orders)
            except _Refused as refusal:
                await run.end()
                if refusal.word in _FOR_GOOD:
                    self._refused_for_good = refusal.word
                raise self._note(refusal.word) from None
            except TimeoutError:
                await run.end()
                raise self._note("TIMEOUT") from None
            except BaseException:
                await run.end()
                raise
            self._run = run
            return run

    async def _end(self, run: _Run) -> None:
        if self._run is run:
            self._run = None
        await run.end()

    def _note(self, word: str) -> PilothouseError:
        self._failed, self._again_at = word, time.monotonic() + _PAUSE_SECONDS
        log.warning("the token failed", reason=word)
        return self._error(word)

    def _error(self, word: str) -> PilothouseError:
        if word == program.CHANGED:
            return refused()
        if word == "TIMEOUT":
            message = f'the token "{self._place.token}" did not respond within {self._place.seconds:g} s'
        else:
            message = self._place.words(word)
        return Unavailable(message, reason="ENCRYPTION_TOKEN_AWAY", metadata={"why": word})


def _environment() -> dict[str, str]:
    """Returns the environment of this process without our settings; the library may read other variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
