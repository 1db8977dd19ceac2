"""The verbs that the server adds to the `pilothouse` command: serve, migrate, simulate-cluster."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec

from pilothouse_client.commands import verbs
from pilothouse_client.commands.terminal import say
from pilothouse_server.launch.processes import CLOSING_SECONDS
from pilothouse_server.launch.processes.failures import words_of
from pilothouse_server.rpc.transport import check_transport
from pilothouse_server.runtime import event_loop, log_lines
from pilothouse_server.runtime.process_tuning import (
    allow_many_open_files,
    collect_rarely,
    give_back_large_buffers,
    no_collections,
    served_calls_go_first,
)
from pilothouse_server.settings.model import (
    MOST_PROCESSES,
    PREFIX,
    Settings,
    SettingsError,
    address_refused,
    database_secured,
    load,
)
from pilothouse_server.values import listening

if TYPE_CHECKING:
    from pilothouse_server.app import Application
    from pilothouse_server.launch.processes.supervisor import Processes

# Used by `serve --dev` at its default address only: with another address it may not be the only one on the machine.
_DEVELOPMENT_HTTP = "127.0.0.1:50080"
_FAULT = 1
_USAGE = 2


def _in_lines(setting: str) -> str:
    """Returns the setting in lines for a narrow terminal; a long list is wrapped, indented, after a comma."""
    lines = [""]
    for item in re.findall(r"[^,]*,?", setting):
        if len(lines[-1]) + len(item) > 78:
            lines.append(" " * 6)
        lines[-1] += item
    return "\n".join(lines)


def described() -> list[tuple[str, str, str]]:
    """Returns each setting as its variable, its default in the form in which it is set, and its description."""
    return [
        (f"{PREFIX}{field.name.upper()}", _written(field.default), field.type.__metadata__[0])
        for field in msgspec.structs.fields(Settings)
    ]


def _written(default: object) -> str:
    if default is None:
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


# The backspace keeps the lines of a paragraph as they are: a setting, and below it its description.
_SETTINGS = "Settings, with their defaults:\n\n\b\n" + "\n".join(
    _in_lines(f"{variable}={default}")
    + "\n"
    + fill(what, 74, initial_indent=" " * 4, subsequent_indent=" " * 4)
    for variable, default, what in described()
)
migrate = verbs.VerbGroup(help="Bring a database to this version's schema.", no_args_is_help=True)


def _serve_until_ended(
    dev: Annotated[
        bool,
        verbs.Option("--dev", help="Start PostgreSQL and a simulated cluster unless they are configured."),
    ] = False,
    processes: Annotated[
        int | None,
        verbs.Option(
            min=1,
            max=MOST_PROCESSES,
            metavar="N",
            help="Serve with N processes on one port; default PILOTHOUSE_PROCESSES.",
        ),
    ] = None,
    tls_self_signed: Annotated[
        bool,
        verbs.Option(
            "--tls-self-signed",
            help="With --dev: serve TLS with a self-signed certificate in the data folder.",
        ),
    ] = False,
) -> None:
    """Run the control plane until SIGTERM or Ctrl-C. Settings are environment variables, listed below."""
    _run_server(dev, "" if processes is None else str(processes), self_signed=tls_self_signed)


serve = verbs.Verb("serve", _serve_until_ended, epilog=_SETTINGS)


def serve_plainly(words: Sequence[str]) -> bool:
    """Serves if the words are options of `serve` as in its help; otherwise returns False."""
    rest, dev, self_signed, processes = list(words), False, False, ""
    while rest:
        word = rest.pop(0)
        if word == "--dev":
            dev = True
        elif word == "--tls-self-signed":
            self_signed = True
        elif word == "--processes" and rest and rest[0].isdecimal():
            processes = rest.pop(0)
        else:
            return False
    try:
        _run_server(dev, processes, self_signed=self_signed)
    except verbs.Exit as end:
        sys.exit(end.exit_code)
    return True


def _run_server(dev: bool, processes: str, *, self_signed: bool) -> None:
    """Serves until a signal ends it. `processes`, if given, overrides the setting."""
    settings = _settings(PROCESSES=processes) if processes else _settings()
    if dev and not settings.http_listen and settings.listen == Settings().listen:
        settings = msgspec.structs.replace(settings, http_listen=_DEVELOPMENT_HTTP)
    if self_signed:
        settings = _with_certificate(settings, dev=dev)
    try:
        check_transport(settings)
    except SettingsError as error:
        _fail(str(error), _USAGE)
    log_lines.configure(settings.log_level, settings.log_format)
    give_back_large_buffers()
    allow_many_open_files()
    if not dev and not settings.database_url:
        _fail(f"{PREFIX}DATABASE_URL must be set (or try it with --dev)", _USAGE)
    # The supervisor of several processes has little work, so asyncio is fast enough.
    _run(_serve(settings, dev=dev), settings.event_loop if settings.processes == 1 else "asyncio")


def _with_certificate(settings: Settings, *, dev: bool) -> Settings:
    """Returns the settings with a certificate in the data folder; creates one if there is none."""
    if not dev:
        _fail("--tls-self-signed requires --dev", _USAGE)
    if settings.tls_certificate_file is not None:
        _fail(f"--tls-self-signed and {PREFIX}TLS_CERTIFICATE_FILE exclude each other", _USAGE)
    import msgspec

    from pilothouse_server.launch.embedded.certificate import self_signed

    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        pair = self_signed(settings.data_dir / "tls", listening.split(settings.listen)[0])
    except Exception as error:
        if (words := words_of(error)) is None:
            raise
        _fail(words, _FAULT)
    return msgspec.structs.replace(settings, tls_certificate_file=pair.certificate, tls_key_file=pair.key)


async def _serve(settings: Settings, *, dev: bool) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    kubeconfigs = _kubeconfigs(settings)
    # Checked before anything is created for the server, so a taken address is reported immediately.
    addresses = _free_addresses(settings)
    environment = None
    if dev:
        from pilothouse_server.launch.development import Development

        environment = Development(settings, kubeconfigs, _say)
    try:
        if environment is not None:
            settings = await environment.start()
            kubeconfigs = environment.kubeconfigs
            _say("server", "starts")
        server = _server(settings, kubeconfigs)
        addresses.close()
        try:
            try:
                port = await server.start()
            except BaseException:
                if (password := server.password_made) is not None:
                    say(f"administrator admin, password {password} (made now, shown once)")
                raise
            collect_rarely()
            served_calls_go_first()
            _welcome(settings, port, server.password_made, dev=dev)
            if server.asking_port is not None:
                host = settings.tls_client_listen.rpartition(":")[0]
                say(f"Clients with certificates call {host}:{server.asking_port}")
            await stopping.wait()
            say("draining: calls in flight may finish, watches must reconnect elsewhere")
            # A supervisor ends its processes itself, and the dependencies of `--dev` must be stopped in order.
            if settings.processes == 1 and not dev:
                _end_at_last(settings.grace_seconds + CLOSING_SECONDS)
        finally:
            await server.stop()
    finally:
        addresses.close()
        if environment is not None:
            await environment.stop()


def _end_at_last(seconds: float) -> None:
    """Ends the process after `seconds`, if it has not ended by itself.

    Nothing can end a thread that waits for a disk that hangs, and a process ends only after its threads.
    """

    def end() -> None:
        time.sleep(seconds)
        say(
            "pilothouse: it has not ended within the grace period, so it is killed; a disk may hang", err=True
        )
        os._exit(_FAULT)

    threading.Thread(target=end, name="end at last", daemon=True).start()


def _free_addresses(settings: Settings) -> contextlib.ExitStack:
    """Reserves the addresses to serve on, until they are released; addresses with a free port are left out.

    Raises:
        SettingsError: something else listens on an address, or it is not an address of this machine.
    """
    with contextlib.ExitStack() as held:
        for name in ("listen", "tls_client_listen", "metrics_listen", "audit_tiles_listen", "http_listen"):
            address: str = getattr(settings, name)
            if listening.unix_problem(address):
                raise address_refused(address, name.upper())
            if not address or listening.is_unix(address) or not listening.split(address)[1]:
                continue
            from pilothouse_server.rpc.port import reserve

            held.callback(reserve(address, name.upper()).close)
        return held.pop_all()


def _server(settings: Settings, kubeconfigs: dict[str, Any]) -> Application | Processes:
    """Returns one server in this process, or a supervisor of several."""
    # `Application` imports libraries for half a second, which neither other verbs nor the supervisor need.
    if settings.processes == 1:
        with no_collections():
            from pilothouse_server.app import Application

        return Application(settings, kubeconfigs)
    from pilothouse_server.launch.processes.supervisor import Processes

    return Processes(settings, kubeconfigs)


def _say(step: str, what: str) -> None:
    """Prints a step in one line, as the Makefile does, to stderr, because stdout is for the address."""
    say(f"{step:<12} {what}", err=True)


def _welcome(settings: Settings, port: int, password: str | None, *, dev: bool) -> None:
    host = settings.listen.rpartition(":")[0]
    address = settings.listen if listening.is_unix(settings.listen) else f"{host}:{port}"
    lines = [f"Pilothouse serves gRPC on {address}"]
    if settings.http_listen:
        scheme = "http" if settings.tls_certificate_file is None else "https"
        lines.append(f"It serves HTTP/JSON and browsers on {scheme}://{settings.http_listen}")
    if dev and settings.tls_certificate_file is not None:
        lines += ["", f"  certificate    {_fingerprint(settings.tls_certificate_file)}"]
    if password is not None:
        lines += [
            "",
            f"  administrator  admin   password  {password}",
            "  (made now, shown once, not stored)",
        ]
    if dev:
        command = _own_command()
        lines += [
            "",
            "Try next, in another terminal:",
            f"  {command} login --server {listening.called_by(settings.listen, port)}{_how(settings)} --user admin",
            f"  {command} namespaces create demo",
            f"  {command} containers create web --namespace demo --image nginx:1.27 --port 80 --wait",
            f"  {command} containers list --namespace demo --watch",
            f"  {command} audit tail",
        ]
    say("\n".join(lines))


def _fingerprint(certificate: Path) -> str:
    from pilothouse_server.launch.embedded.certificate import fingerprint

    return fingerprint(certificate)


def _how(settings: Settings) -> str:
    """Returns options for a client on this machine; clients use plain text for their own machine, TLS for others."""
    local = listening.is_called_in_plain_text(settings.listen)
    encrypted = settings.tls_certificate_file is not None
    if encrypted == local:
        return " --secure" if encrypted else " --insecure"
    return ""


def _own_command() -> str:
    """Returns the command to call this program: its path if PATH does not contain it."""
    own = Path(sys.argv[0])
    if shutil.which(own.name) is not None:
        return own.name
    return str(own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own)


@migrate.command("init")
def migrate_init(
    admin_url: Annotated[
        str, verbs.Option(help="postgresql:// URL of a superuser, for the product's database.")
    ],
    app_password: Annotated[
        str, verbs.Option(envvar=f"{PREFIX}APP_PASSWORD", help="Password of the role pilothouse_app.")
    ] = "",
    system_password: Annotated[
        str, verbs.Option(envvar=f"{PREFIX}SYSTEM_PASSWORD", help="Password of the role pilothouse_system.")
    ] = "",
    maintenance_password: Annotated[
        str,
        verbs.Option(
            envvar=f"{PREFIX}MAINTENANCE_PASSWORD", help="Password of the role pilothouse_maintenance."
        ),
    ] = "",
) -> None:
    """Create the four database roles, once, as an administrator; then run `pilothouse migrate up`."""
    from pilothouse_migrations.roles import LOGINS, OWNER, ensure_roles

    given = {"app": app_password, "system": system_password, "maintenance": maintenance_password}
    _run(ensure_roles(_secured(admin_url), {role: password for role, password in given.items() if password}))
    say(f"roles {', '.join((OWNER, *LOGINS.values()))} exist")


@migrate.command("up")
def migrate_up(revision: Annotated[str, verbs.Argument()] = "head") -> None:
    """Apply migrations up to REVISION."""
    from pilothouse_migrations import runner

    applied = _run(runner.upgrade(_maintenance_url(), revision))
    say(f"applied {', '.join(applied)}" if applied else "nothing to apply")


@migrate.command("down")
def migrate_down(
    revision: Annotated[str, verbs.Argument(help="The last migration to keep; base: none.")],
) -> None:
    """Revert the migrations after REVISION."""
    from pilothouse_migrations import runner

    reverted = _run(runner.downgrade(_maintenance_url(), revision))
    say(f"reverted {', '.join(reverted)}" if reverted else "nothing to revert")


@migrate.command("status")
def migrate_status() -> None:
    """Show which migrations are applied."""
    from pilothouse_migrations import runner

    for entry in _run(runner.status(_maintenance_url())):
        say(f"{entry.version}  {'applied' if entry.applied else 'pending'}")
    for name in _run(runner.pending_functions(_maintenance_url())):
        say(f"function {name}  pending")


@migrate.command("new-history")
def migrate_new_history(
    reason: Annotated[str, verbs.Option(help="Reason, for the audit log.")] = "an administrator asked for it",
) -> None:
    """Begin a new history of events, after a database rewind that no server can detect.

    Resume tokens of earlier watches are refused from then on; running watches end and their clients list
    again. The servers may keep running. Nothing else changes; the audit log records the call.
    """
    from pilothouse_migrations.histories import begin_new_history

    say(f"history {_run(begin_new_history(_maintenance_url(), reason))} begins")


def simulate_cluster(
    port: Annotated[int, verbs.Option(min=0, max=65535, help="Port of the API server; 0: a free one.")] = 0,
    nodes: Annotated[int, verbs.Option(min=1, max=1000)] = 3,
    speed: Annotated[float, verbs.Option(min=0.01, max=1000.0, help="Simulated seconds per second.")] = 1.0,
    state: Annotated[Path | None, verbs.Option(help="File that stores the cluster between runs.")] = None,
) -> None:
    """Run a simulated Kubernetes cluster and print its kubeconfig, until Ctrl-C.

    \b
      pilothouse simulate-cluster > k.yaml &
      KUBECONFIG=k.yaml kubectl get nodes
      PILOTHOUSE_KUBECONFIG=k.yaml pilothouse serve --dev

    It serves HTTPS. Each run has a new certificate and a new token, which are in the kubeconfig.

    The annotation simulate.pilothouse.dev/behavior of a pod sets its behavior:

    \b
      run                it serves (as without the annotation)
      crash-loop         its containers fail again and again
      exit:CODE          its containers exit with this code
      oom                its containers are OOM-killed
      start-error        its containers cannot be started
      readiness-failing  it runs but never becomes ready
      image-pull-error   its images cannot be pulled
      unschedulable      no node accepts it

    The annotations simulate.pilothouse.dev/cpu and /memory set the usage of each main container, as quantities, and
    /start-seconds sets the time until a container serves.

    A POST of JSON to /simulator/faults sets faults of the whole cluster, and a GET shows them:

    \b
      echo '{"latency_seconds": 2}' | kubectl create --raw /simulator/faults -f -
      latency_seconds                           delay of every response
      error_rate, error_code                    share of requests, and their code
      fail_next {"count", "code"}               the next requests fail
      lose_answers                              next writes succeed but return 504
      retry_after_seconds                       delay in a response with code 429
      refuse_connections, storage_stalled, storage_stopped, too_busy_for_bookmarks
                                                true, and false again
      webhooks                                  refuse writes: a list of {"name", "resources", "message", "fails"}
      restart {"kill", "down_seconds"}          the API server stops and restarts
      drop_watches, clear                       true: end watches; remove faults
    """
    from pilothouse_server.launch.simulation import simulate_for_kubectl

    log_lines.configure("INFO", "text")
    _run(simulate_for_kubectl(nodes, speed, port, state, _print_kubeconfig))


def _print_kubeconfig(kubeconfig: dict[str, Any]) -> None:
    import yaml

    say(yaml.safe_dump(kubeconfig, sort_keys=False))


def _settings(**given: str) -> Settings:
    """Returns the settings; those of the command line override the environment's."""
    try:
        return load({**os.environ, **{f"{PREFIX}{name}": value for name, value in given.items()}})
    except SettingsError as error:
        _fail(str(error), _USAGE)


def _secured(url: str) -> str:
    """Returns a URL of the command line with its degree of TLS, by the same rules as for settings."""
    try:
        return database_secured("--admin-url", url, _settings().database_ca_file, os.environ)
    except SettingsError as error:
        _fail(str(error), _USAGE)


def _maintenance_url() -> str:
    settings = _settings()
    url = settings.maintenance_database_url or settings.database_url
    if not url:
        _fail(f"{PREFIX}MAINTENANCE_DATABASE_URL or {PREFIX}DATABASE_URL must be set", _USAGE)
    return url


def _kubeconfigs(settings: Settings) -> dict[str, Any]:
    if settings.kubeconfig is None:
        return {}
    import yaml

    try:
        document = yaml.safe_load(settings.kubeconfig.read_text())
    except (OSError, yaml.YAMLError) as error:
        _fail(f"{PREFIX}KUBECONFIG: {settings.kubeconfig}: {error}", _USAGE)
    return {"local": document}


def _run(work: Coroutine[Any, Any, Any], loop: str = "asyncio") -> Any:
    """Runs `work` to the end on that event loop; reports a known failure in one line, without a traceback."""
    try:
        return event_loop.run(work, loop)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (words := words_of(error)) is None:
            raise
        _fail(words, _FAULT)


def _fail(message: str, code: int) -> NoReturn:
    say(f"pilothouse: {message}", err=True)
    raise verbs.Exit(code)
