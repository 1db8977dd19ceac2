"""The configuration file of the `pilothouse` command: contexts with their tokens.

A context is a server, a user and a default namespace.

The file contains credentials, so it has mode 0600 in a directory with mode 0700. It is replaced as a whole, so that a
reader never sees half of it. Several commands may run at the same time: each reads, changes and writes the file while
it holds a lock file next to it (`.lock`), and only one of them renews a session. The format is JSON, because reading
JSON costs no import.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pilothouse_client.tokens import Tokens


class ConfigError(Exception):
    """The file cannot be read or written; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Context:
    """One way to use one server.

    `tokens` are those of `pilothouse_client.tokens.Tokens`, as a mapping.

    `certificate` (PEM) is the server's own certificate if no authority has signed it, and `server_name` is a name in
    it. `vouched_for`: at the last log-in, an authority had signed the server's certificate. `client_certificate_file`
    and `client_key_file` identify the user if there are no tokens. `device_token` is that of the last log-in, and stays
    when the session ends. `login_options` are the options of `pilothouse login` at an issuer, such as `--device`, or
    `--issuer` and its name; it is empty after a log-in by a password, and in older files.
    """

    server: str
    username: str = ""
    namespace: str = ""
    insecure: bool | None = None
    ca_file: str = ""
    certificate: str = ""
    server_name: str = ""
    vouched_for: bool = False
    tokens: Mapping[str, Any] | None = field(default=None, repr=False)
    device_token: str = field(default="", repr=False)
    client_certificate_file: str = ""
    client_key_file: str = ""
    login_options: tuple[str, ...] = ()

    def showing(self, files: tuple[str, str]) -> Context:
        """Returns this context with the files of a certificate and its key, as absolute paths."""
        certificate, key = (os.path.abspath(each) if each else "" for each in files)
        return replace(self, client_certificate_file=certificate, client_key_file=key)

    def trusting(self, known: Context) -> Context:
        """Returns this context with the trust settings of `known` for the server."""
        return replace(
            self,
            certificate=known.certificate,
            server_name=known.server_name,
            vouched_for=known.vouched_for,
        )


def _context(given: Mapping[str, Any]) -> Context:
    """Returns a context from its form in the file; fields that a later release added are left out."""
    context = Context(**{each.name: given[each.name] for each in fields(Context) if each.name in given})
    return replace(context, login_options=tuple(context.login_options))


@dataclass(frozen=True, slots=True)
class Configuration:
    """All contexts, and the name of the one in use; empty if there is none."""

    current: str = ""
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def with_context(self, name: str, context: Context, *, use: bool = False) -> Configuration:
        return replace(
            self,
            contexts={**self.contexts, name: context},
            current=name if use or not self.current else self.current,
        )

    def known_of(self, server: str, first: Context | None) -> Context | None:
        """Returns a context that trusts the server by a certificate; `first` if it does."""
        same = (
            each for each in (first, *self.contexts.values()) if each is not None and each.server == server
        )
        return next((each for each in same if each.certificate or each.vouched_for), None)

    def with_trust(self, context: Context) -> Configuration:
        """Returns this configuration with the trust settings of `context` in all contexts of its server."""
        changed = {
            name: each.trusting(context)
            for name, each in self.contexts.items()
            if each.server == context.server
        }
        return replace(self, contexts={**self.contexts, **changed})

    def without_context(self, name: str) -> Configuration:
        contexts = {each: context for each, context in self.contexts.items() if each != name}
        return replace(self, contexts=contexts, current="" if self.current == name else self.current)


def default_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Returns the path in PILOTHOUSE_CONFIG, else `pilothouse/config.json` in XDG_CONFIG_HOME (default: ~/.config)."""
    if given := environment.get("PILOTHOUSE_CONFIG"):
        return Path(given)
    base = environment.get("XDG_CONFIG_HOME", "")
    # The XDG rules: a relative path there is invalid and is ignored.
    folder = Path(base) if base and Path(base).is_absolute() else Path.home() / ".config"
    return folder / "pilothouse" / "config.json"


class ConfigFile:
    """The file at one path; a missing file counts as empty."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Configuration:
        """Returns the file's content. Raises ConfigError if it cannot be read or parsed."""
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            contexts = {name: _context(context) for name, context in data.get("contexts", {}).items()}
            return Configuration(data.get("current", ""), contexts)
        except FileNotFoundError:
            return Configuration()
        except OSError as error:
            raise ConfigError(f"cannot read {self.path}: {error.strerror}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{self.path} is not a configuration of pilothouse; repair or delete it"
            ) from error

    def change(self, change: Callable[[Configuration], Configuration]) -> Configuration:
        """Reads, changes and writes the file under its lock."""
        with self.locked():
            changed = change(self.read())
            self._write(changed)
        return changed

    @contextlib.contextmanager
    def locked(self, suffix: str = ".lock") -> Iterator[None]:
        """Holds one of the file's locks, after waiting for its holder.

        The kernel releases it if this process dies."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(f"{self.path}{suffix}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot write next to {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, configuration: Configuration) -> None:
        content = json.dumps(asdict(configuration), indent=2, ensure_ascii=False) + "\n"
        try:
            # mkstemp creates the file with mode 0600; the rename keeps the mode and is atomic within the directory.
            import tempfile

            handle, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from error


class FileTokenStore:
    """The tokens of one context, as a `TokenStore`.

    A renewal holds a separate lock during its call to the server, so that commands which only read or change the file
    do not wait for it."""

    def __init__(self, file: ConfigFile, context: str) -> None:
        self._file = file
        self._context = context

    def load(self) -> Tokens | None:
        from pilothouse_client.tokens import Tokens

        context = self._file.read().contexts.get(self._context)
        if context is None or not context.tokens:
            return None
        try:
            return Tokens(**context.tokens)
        except TypeError as error:
            raise ConfigError(f"{self._file.path} has tokens of another version; log in again") from error

    def save(self, tokens: Tokens | None) -> None:
        def change(configuration: Configuration) -> Configuration:
            context = configuration.contexts.get(self._context)
            if context is None:  # deleted in the meantime: do not bring it back
                return configuration
            kept = replace(context, tokens=None if tokens is None else asdict(tokens))
            return configuration.with_context(self._context, kept)

        self._file.change(change)

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        return self._file.locked(".session.lock")
