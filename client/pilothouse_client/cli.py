"""The `pilothouse` command: which verbs there are, and the loading of the one that is called.

A verb is an object in a module of `pilothouse_client.commands`: a `typer.Typer` (a group of commands) or a function
(one command). It is imported when it is called; its place and its line for `--help` stand in `VERBS`, so that help
and completion are instant. Verbs of other distributions, and those of the server, join by the entry-point group
`pilothouse.commands`: each entry's name is the verb, its object a function or a `typer.Typer`. A verb that runs for
as long as a machine may parse plain command lines itself, by the group `pilothouse.programs`: typer's parsing loads
pydantic, 8 MB that such a process would keep.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pilothouse_client.commands import failures
from pilothouse_client.commands.invocation import Invocation, current
from pilothouse_client.commands.terminal import say

_ENTRY_POINT_GROUP = "pilothouse.commands"
_PROGRAMS = "pilothouse.programs"
_COMMANDS = "pilothouse_client.commands"
# Completion is installed for the whole command.
_ONCE_AT_THE_TOP = ("install_completion", "show_completion")

# Verb -> module:object and help.
VERBS = {
    "login": ("session:login", "Log in to a server and remember the session."),
    "logout": ("session:logout", "End the session and forget it."),
    "whoami": ("session:whoami", "Show your user, your grants and permissions."),
    "token": ("tokens:app", "Tokens of programs: exchange that of a platform."),
    "can-i": ("questions:can_i", "Show whether you may do something."),
    "why": ("questions:why", "Show why you may do something, or why not and whom to ask."),
    "who-can": ("questions:who_can", "List the users who may do something."),
    "passwd": ("session:passwd", "Change your password."),
    "totp": ("totp:app", "Your second factor: an authenticator."),
    "contexts": ("contexts:app", "Servers you have logged in to."),
    "users": ("users:app", "People and programs that use the platform."),
    "roles": ("roles:app", "Named sets of permissions."),
    "grants": ("grants:app", "Roles that users hold, by namespace."),
    "api-keys": ("api_keys:app", "Keys by which programs call."),
    "service-accounts": ("service_accounts:app", "Users that are programs, of a namespace."),
    "sessions": ("session:sessions", "Your log-ins."),
    "namespaces": ("namespaces:app", "Units of tenancy, with quotas."),
    "clusters": ("clusters:app", "The Kubernetes clusters."),
    "containers": ("containers:app", "Workloads: create, change, start, stop, watch."),
    "services": ("services:app", "Stable addresses in front of pods."),
    "objects": ("objects:app", "Ingresses, policies, roles and other objects."),
    "volumes": ("volumes:app", "Storage that containers mount: claims, files, folders."),
    "configs": ("configs:app", "Configuration that containers read."),
    "secrets": ("secrets:app", "Encrypted configuration that containers read."),
    "images": ("images:app", "Images that containers use."),
    "apply": ("apply:command", "Take Kubernetes YAML over into the platform."),
    "audit": ("audit:app", "The audit log: operations and their users."),
    "usage": ("usage:command", "Usage of containers over time."),
    "top": ("top:command", "Containers that use most, live."),
}
# The help lines of the server's own verbs, which are not imported for it.
_SERVER_VERBS = {
    "serve": "Run the control plane (needs the server).",
    "migrate": "Bring a database to this version's schema (needs the server).",
    "simulate-cluster": "Run a simulated Kubernetes cluster (needs the server).",
    "backup": "Back up the database (needs the server).",
    "restore": "Restore a backup (needs the server).",
    "keys": "Key-encryption keys (needs the server).",
    "database": "Maintain the database (needs the server).",
    "reset-password": "Set a user's password on the server's machine (needs the server).",
}


@dataclass(frozen=True, slots=True)
class _Origin:
    """The origin of a verb: `place`, our module:object, or an entry point."""

    verb: str
    place: str = ""
    entry: Any = None

    def load(self) -> Any:
        if self.place:
            module, _, name = self.place.partition(":")
            made = getattr(importlib.import_module(f"{_COMMANDS}.{module}"), name)
        else:
            try:
                made = self.entry.load()
            except ImportError as error:
                message = (
                    f"'{self.verb}' needs the server, which is not installed ({error}); "
                    "install it with: pip install 'pilothouse[server]'"
                )
                raise failures.CommandError(message) from error
        return _click_command(self.verb, made)


def _click_command(verb: str, made: Any) -> Any:
    if not isinstance(made, typer.Typer):
        single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        single.command(verb)(made)
        made = single
    # Help is alike everywhere, whoever made the verb.
    made.rich_markup_mode = None
    command = typer.main.get_command(made)
    command.name = verb
    command.params = [each for each in command.params if each.name not in _ONCE_AT_THE_TOP]
    _show_whole_lines(command)
    return command


def _show_whole_lines(group: Any) -> None:
    """In a group's help a command's line ends with "…" at the edge of the terminal, unless it is a short help of the
    command's own: that is wrapped."""
    for command in getattr(group, "commands", {}).values():
        command.short_help = command.short_help or " ".join((command.help or "").partition("\n\n")[0].split())
        _show_whole_lines(command)


class _UnloadedVerb(TyperCommand):
    """Stands for a verb in help and completion until it is called."""

    def __init__(self, origin: _Origin, text: str) -> None:
        super().__init__(origin.verb, help=text, short_help=text, rich_markup_mode=None)
        self.origin = origin


class _Verbs(TyperGroup):
    """The top-level command. Turns the client's errors into messages and exit codes, for every verb."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for verb, (place, text) in VERBS.items():
            self.add_command(_UnloadedVerb(_Origin(verb, place=place), text))
        for entry in _entry_points():
            if entry.name not in self.commands:
                text = _SERVER_VERBS.get(entry.name, f"From {entry.value.partition(':')[0]}.")
                self.add_command(_UnloadedVerb(_Origin(entry.name, entry=entry), text))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if isinstance(command, _UnloadedVerb):
            command = command.origin.load()
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            code = failures.report(error)
            if code is None:
                raise
            raise typer.Exit(code) from None


def _entry_points() -> list[Any]:
    from importlib.metadata import entry_points

    return sorted(entry_points(group=_ENTRY_POINT_GROUP), key=lambda entry: entry.name)


app = typer.Typer(
    name="pilothouse",
    cls=_Verbs,
    no_args_is_help=True,
    # Plain text: loading rich for the help would take longer than all else.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"pilothouse {version('pilothouse')}")
        raise typer.Exit


@app.callback(epilog=failures.EXIT_CODES_HELP)
def _options(
    context: Annotated[
        str,
        typer.Option(
            "--context", envvar="PILOTHOUSE_CONTEXT", help="Context to use in place of the current one."
        ),
    ] = "",
    server: Annotated[
        str,
        typer.Option(
            "--server",
            envvar="PILOTHOUSE_SERVER",
            metavar="HOST:PORT",
            help="Server to call; several with commas between.",
        ),
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            "--token",
            envvar="PILOTHOUSE_TOKEN",
            help="API key or access token; better given by the environment.",
        ),
    ] = "",
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure/--secure", help="Plain text or TLS; default: TLS unless the server is local."
        ),
    ] = None,
    ca_file: Annotated[
        str, typer.Option("--ca-file", envvar="PILOTHOUSE_CA_FILE", help="PEM file of authorities to trust.")
    ] = "",
    client_cert: Annotated[
        str,
        typer.Option(
            "--client-cert",
            envvar="PILOTHOUSE_CLIENT_CERTIFICATE_FILE",
            help="PEM file of your client certificate.",
        ),
    ] = "",
    client_key: Annotated[
        str, typer.Option("--client-key", envvar="PILOTHOUSE_CLIENT_KEY_FILE", help="PEM file of its key.")
    ] = "",
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0.001, help="Seconds a call may take, with its retries.")
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Run and watch containers on Kubernetes clusters."""
    current.set(Invocation(context, server, token, insecure, ca_file, timeout, client_cert, client_key))


def main() -> None:
    """The entry point of the `pilothouse` command."""
    # The library writes lines of its own where a handshake fails: by whoever calls a server, as often as they like.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _end_when_told_to()
    if not _ran_as_program(sys.argv[1:]):
        app()


def _ran_as_program(words: Sequence[str]) -> bool:
    """Whether the verb took the words that follow it, and has ended; if not, they are typer's to read."""
    if not words or words[0] not in _SERVER_VERBS:
        return False
    try:
        programs = [entry.load() for entry in entry_points(group=_PROGRAMS, name=words[0])]
    except ImportError:
        # The server is not installed; typer reports that.
        return False
    return any(program(words[1:]) for program in programs)


def _end_when_told_to() -> None:
    """Takes SIGINT and SIGTERM as requests to end, also if the process that started this one ignored them.

    A shell without job control ignores SIGINT in the programs that it starts in the background, and Python leaves it
    so: without this the command could only be ended by force. SIGHUP, which `nohup` ignores, stays ignored.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
