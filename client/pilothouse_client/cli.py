"""The `pilothouse` command: its verbs, and the loading of the verb that is called.

A verb is an object in a module of `pilothouse_client.commands`: a `verbs.VerbGroup` (a group of commands) or a function
(one command). It is imported only when it is called: `VERBS` has its module and its line for `--help`, so that help and
completion are instant. Verbs of the server and of other distributions are found by the entry-point group
`pilothouse.commands`: each entry's name is the verb, its object a function or a `verbs.VerbGroup`. A verb that runs
permanently may parse plain command lines itself, by the group `pilothouse.programs`: its process then need not keep a
parser in memory.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import click

from pilothouse_client.commands import failures
from pilothouse_client.commands.invocation import Invocation, config_file, current
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.verbs import SYNONYMS, Context, Exit, Option, UnloadedVerb, Verb, VerbGroup

_ENTRY_POINT_GROUP = "pilothouse.commands"
_PROGRAMS = "pilothouse.programs"

# Verb -> module:object and help.
VERBS = {
    "login": ("session:login", "Log in to a server and remember the session."),
    "logout": ("session:logout", "End the session and forget it."),
    "whoami": ("session:whoami", "Show your user, your grants and permissions."),
    "token": ("tokens:app", "Exchange a platform's token for a session token."),
    "can-i": ("questions:can_i", "Show whether you may do something."),
    "why": ("questions:why", "Show why you may do something, or why not and whom to ask."),
    "who-can": ("questions:who_can", "List the users who may do something."),
    "passwd": ("session:passwd", "Change your password."),
    "totp": ("totp:app", "Your second factor: an authenticator."),
    "contexts": ("contexts:app", "Servers you have logged in to."),
    "users": ("users:app", "People and programs that use the platform."),
    "roles": ("roles:app", "Named sets of permissions."),
    "grants": ("grants:app", "Roles that users hold, by namespace."),
    "api-keys": ("api_keys:app", "API keys for programs."),
    "service-accounts": ("service_accounts:app", "Accounts for programs, by namespace."),
    "sessions": ("session:sessions", "Your log-ins."),
    "namespaces": ("namespaces:app", "Units of tenancy, with quotas."),
    "clusters": ("clusters:app", "The Kubernetes clusters."),
    "containers": ("containers:app", "Workloads: create, change, start, stop, watch."),
    "applications": ("applications:app", "Objects that are changed and rolled back together."),
    "services": ("services:app", "Stable addresses in front of pods."),
    "objects": ("objects:app", "Ingresses, policies, roles and other objects."),
    "volumes": ("volumes:app", "Storage that containers mount: claims, files, folders."),
    "configs": ("configs:app", "Configuration that containers read."),
    "secrets": ("secrets:app", "Encrypted configuration that containers read."),
    "images": ("images:app", "Images that containers use."),
    "events": ("events:command", "Kubernetes Events of a namespace."),
    "search": ("search:command", "Search names, labels, images and reasons."),
    "describe": ("describe:describe", "Show a resource's state, conditions, events and changes."),
    "wait": ("wait:wait", "Wait until resources are in a state."),
    "rollout": ("rollout:app", "Rollouts of a container: status, history, undo."),
    "port-forward": ("container_port_forward:port_forward", "Forward ports of this machine to a container."),
    "cp": ("container_copy:copy", "Copy files out of a container, or into one."),
    "apply": ("apply:command", "Apply Kubernetes YAML to the platform."),
    "diff": ("files:diff", "Show what apply would change."),
    "delete": ("files:delete", "Delete the objects of Kubernetes YAML."),
    "audit": ("audit:app", "The audit log: operations and their users."),
    "usage": ("usage:command", "Usage of containers over time."),
    "protos": ("protos:command", "Write the proto files of the API, for stubs in other languages."),
    "completion": ("completion:command", "Write the completion of a shell: bash, zsh or fish."),
    "top": ("top:command", "Containers with the highest usage, live."),
}
# The help lines of the server's own verbs, so that help need not import them.
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


def _entry(entry: Any) -> UnloadedVerb:
    """Returns the verb of an entry point."""

    def load() -> Any:
        try:
            return entry.load()
        except ImportError as error:
            raise failures.CommandError(
                f"'{entry.name}' needs the server, which is not installed ({error}); install it from the "
                "wheel that the command came from: " + failures.INSTALL_SERVER
            ) from error

    return UnloadedVerb(
        entry.name, load, _SERVER_VERBS.get(entry.name, f"From {entry.value.partition(':')[0]}.")
    )


# Verbs that kubectl and others write before the noun -> the verb that follows the noun here.
_BEFORE_THEIR_NOUN = {
    "attach": "exec",
    "create": "create",
    "edit": "edit",
    "events": "get",
    "exec": "exec",
    "get": "list",
    "list": "list",
    "log": "logs",
    "logs": "logs",
    "ps": "list",
    "restart": "restart",
    "run": "create",
    "scale": "scale",
    "set": "set",
    "ssh": "exec",
    "start": "start",
    "stop": "stop",
}


_ELSEWHERE = {
    "help": "pilothouse --help",
    "info": "whoami",
    "status": "containers list",
    "version": "pilothouse --version",
}


class _Verbs(VerbGroup):
    """The top-level command. Turns the client's errors into messages and exit codes, for every verb."""

    def __init__(self, name: str, **attributes: Any) -> None:
        super().__init__(name, elsewhere=_ELSEWHERE, **attributes)
        for verb, (place, text) in VERBS.items():
            self.later(verb, place, text)

    def list_commands(self, ctx: Context) -> list[str]:
        self._join()
        return super().list_commands(ctx)

    def meant(self, ctx: Context, args: Sequence[str]) -> str:
        """Returns the suggestion of any group; for `get pods` and the like, a line with the noun first."""
        verb = _BEFORE_THEIR_NOUN.get(args[0].lower())
        if verb is None:
            return super().meant(ctx, args)
        named = [each.lower() for each in args[1:] if not each.startswith("-")]
        noun = SYNONYMS.get(named[0], named[0]) if named else ""
        if noun == "all":
            noun, named = "containers", []
        if noun not in VERBS:
            noun, named = "containers", ["", *named]
        if verb == "list" and len(named) > 1:
            verb = "get"
        return f" Did you mean {noun} {verb}?"

    def get_command(self, ctx: Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            self._join()
        return super().get_command(ctx, cmd_name)

    def _join(self) -> None:
        """Adds the verbs of the server and of other distributions.

        Reading them takes a tenth of a call's time."""
        joined = {entry.name: entry for entry in _entry_points() if entry.name not in VERBS}
        for name in [each for each in self.commands if each not in VERBS and each not in joined]:
            del self.commands[name]
        for name, entry in joined.items():
            self.add_command(_entry(entry), name)

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        words = args[: args.index("--")] if "--" in args else args
        if _JSON_ERRORS in words:
            # Parse errors are written as JSON, too, wherever the option is on the line.
            failures.as_json.set(True)
        with _reported():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Context) -> Any:
        with _reported():
            return super().invoke(ctx)


@contextmanager
def _reported() -> Iterator[None]:
    """Turns a known error of the block into its message and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        raise Exit(_INTERRUPTED) from None
    except Exception as error:
        code = failures.report(error)
        if code is None:
            raise
        raise Exit(code) from None


@functools.cache
def _entry_points() -> Sequence[Any]:
    from importlib.metadata import entry_points

    return sorted(entry_points(group=_ENTRY_POINT_GROUP), key=lambda entry: entry.name)


app = _Verbs("pilothouse", no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})


_INTERRUPTED = 130
_JSON_ERRORS = "--json-errors"
_CONTEXT = "--context"
_ContextName = Annotated[
    str,
    Option(
        _CONTEXT,
        envvar="PILOTHOUSE_CONTEXT",
        complete=lambda _context, _text: sorted(config_file().read().contexts),
        help="Context to use in place of the current one.",
    ),
]
_JsonErrors = Annotated[
    bool,
    Option(
        _JSON_ERRORS,
        envvar="PILOTHOUSE_JSON_ERRORS",
        callback=lambda given: failures.as_json.set(given or failures.as_json.get()),
        is_eager=True,
        help="Write errors as JSON, one line each.",
    ),
]


def _take_context(_context: Context, _param: click.Parameter, name: str | None) -> None:
    if name:
        current.set(replace(current.get(), context=name))


# Each verb accepts these options, too, because people add them at the end of a line.
Verb.ALSO += [
    click.Option(
        [_CONTEXT],
        expose_value=False,
        callback=_take_context,
        shell_complete=lambda _context, _param, text: [
            each for each in sorted(config_file().read().contexts) if each.startswith(text)
        ],
        hidden=True,
    ),
    # `parse_args` has already read this option.
    click.Option([_JSON_ERRORS], is_flag=True, expose_value=False, hidden=True),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"pilothouse {version('pilothouse')}")
        raise Exit


@app.main_verb(epilog=failures.EXIT_CODES_HELP)
def _options(
    context: _ContextName = "",
    server: Annotated[
        str,
        Option(
            "--server",
            envvar="PILOTHOUSE_SERVER",
            metavar="HOST:PORT",
            help="Server to call; several separated by commas.",
        ),
    ] = "",
    token: Annotated[
        str,
        Option(
            "--token",
            envvar="PILOTHOUSE_TOKEN",
            help="API key or access token; prefer the variable.",
        ),
    ] = "",
    insecure: Annotated[
        bool | None,
        Option("--insecure/--secure", help="Plain text or TLS; default: TLS unless the server is local."),
    ] = None,
    ca_file: Annotated[
        str, Option("--ca-file", envvar="PILOTHOUSE_CA_FILE", help="PEM file of authorities to trust.")
    ] = "",
    client_cert: Annotated[
        str,
        Option(
            "--client-cert",
            envvar="PILOTHOUSE_CLIENT_CERTIFICATE_FILE",
            help="PEM file of your client certificate.",
        ),
    ] = "",
    client_key: Annotated[
        str, Option("--client-key", envvar="PILOTHOUSE_CLIENT_KEY_FILE", help="PEM file of its key.")
    ] = "",
    timeout: Annotated[
        float | None, Option("--timeout", min=0.001, help="Seconds a call may take, with its retries.")
    ] = None,
    _json_errors: _JsonErrors = False,
    _version: Annotated[
        bool,
        Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Run and watch containers on Kubernetes clusters."""
    current.set(Invocation(context, server, token, insecure, ca_file, timeout, client_cert, client_key))


def main() -> None:
    """The entry point of the `pilothouse` command."""
    # gRPC logs failed handshakes itself. In a server, any caller could cause any number of these lines.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _end_when_told_to()
    if not _ran_as_program(sys.argv[1:]):
        app(prog_name="pilothouse")


def _ran_as_program(words: Sequence[str]) -> bool:
    """Runs a verb that parses its own arguments.

    Returns False if click is to parse them."""
    if not words or words[0] not in _SERVER_VERBS:
        return False
    from importlib.metadata import entry_points

    try:
        programs = [entry.load() for entry in entry_points(group=_PROGRAMS, name=words[0])]
    except ImportError:
        # The server is not installed; the verb reports that.
        return False
    return any(program(words[1:]) for program in programs)


def _end_when_told_to() -> None:
    """Handles SIGINT and SIGTERM as requests to end, also if the parent process ignored them.

    A shell without job control ignores SIGINT in the programs that it starts in the background, and Python keeps it
    ignored: without this, the command could only be ended by force. SIGHUP, which `nohup` ignores, stays ignored.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
