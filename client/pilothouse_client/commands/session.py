"""The user's session: `pilothouse login`, `logout`, `whoami`, `passwd` and `sessions`.

Passwords come from a prompt or from standard input, never from the command line, which others can read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

from pilothouse_client.commands import grants, hints, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import (
    certificate_files,
    client_certificate,
    config_file,
    connect,
    current,
    report_retry,
    selected,
    showing,
    tls_of,
)
from pilothouse_client.commands.issuer_login import (
    ByBrowser,
    ByDevice,
    CallbackPort,
    Issuer,
    NoOpen,
    Way,
    log_in_at,
    refuse_both,
)
from pilothouse_client.commands.login_steps import completed
from pilothouse_client.commands.name_completion import complete_session, complete_user
from pilothouse_client.commands.options import Format, Limit, Output
from pilothouse_client.commands.output import AGE_COLUMNS, OutputColumn, done, show, show_all
from pilothouse_client.commands.secret_input import FromStdin, read_password
from pilothouse_client.commands.terminal import say
from pilothouse_client.commands.users import EndKeys, keys_left
from pilothouse_client.commands.values import age, enum_label, moment
from pilothouse_client.config_file import Configuration, Context

if TYPE_CHECKING:
    from pilothouse_client import Tls
    from pilothouse_client.commands.server_certificate import Trust, Wish

sessions = verbs.VerbGroup(no_args_is_help=True, help="Your log-ins.")
_Whose = Annotated[
    str, verbs.Option("--user", complete=complete_user, help="The user, if not you; for administrators.")
]
_SESSIONS: list[OutputColumn[Any]] = [
    OutputColumn("ID", lambda session: session.session_id, whole=True),
    OutputColumn("CURRENT", lambda session: "yes" if session.current else ""),
    *AGE_COLUMNS,
    OutputColumn("USED", lambda session: age(session.last_used_time)),
    OutputColumn("ADDRESS", lambda session: session.client_ip),
    OutputColumn("METHOD", lambda session: enum_label(session, "method")),
    OutputColumn("LAST USED", lambda session: moment(session.last_used_time), wide=True),
    OutputColumn("EXPIRES", lambda session: moment(session.expire_time), wide=True),
    OutputColumn("PROGRAM", lambda session: session.user_agent, wide=True),
    OutputColumn("KIND", lambda session: enum_label(session, "kind"), wide=True),
]


def login(
    server: Annotated[
        str,
        verbs.Option(
            "--server",
            metavar="HOST:PORT",
            help="Server, or several separated by commas; default the context's.",
        ),
    ] = "",
    user: Annotated[
        str, verbs.Option("--user", "-u", help="User name; the command asks for it if it is missing.")
    ] = "",
    password_stdin: FromStdin = False,
    code: Annotated[
        str,
        verbs.Option(
            "--code",
            help="Code of your authenticator, or a recovery code; the command asks for it if required.",
        ),
    ] = "",
    name: Annotated[str, verbs.Option("--name", help="Name of the context; default USER@SERVER.")] = "",
    namespace: Annotated[
        str, verbs.Option("--namespace", "-n", help="Default namespace of the context.")
    ] = "",
    insecure: Annotated[bool | None, verbs.Option("--insecure/--secure", help="Plain text or TLS.")] = None,
    ca_file: Annotated[str, verbs.Option("--ca-file", help="PEM file of authorities to trust.")] = "",
    fingerprint: Annotated[
        str,
        verbs.Option(
            "--fingerprint", help="Fingerprint of the server's certificate, as the server printed it."
        ),
    ] = "",
    trust_new_certificate: Annotated[
        bool, verbs.Option("--trust-new-certificate", help="Trust the certificate even if it has changed.")
    ] = False,
    issuer: Issuer = "",
    browser: ByBrowser = False,
    device: ByDevice = False,
    no_open: NoOpen = False,
    callback_port: CallbackPort = 0,
) -> None:
    """Log in to a server and remember the session. The context becomes the current one.

    Log in by password, or at an OpenID Connect issuer that the server trusts: with --browser (or --issuer) on this
    machine, or with --device and a code that you type in any browser.

    With --password-stdin, the lines after the first are a new password and a code, if they are required.

    The first log-in shows the fingerprint of a self-signed certificate and trusts it; later ones refuse any other.
    """
    from pilothouse_client import Client, MemoryTokenStore
    from pilothouse_client.commands.server_certificate import Wish

    way = None
    if issuer or browser or device:
        refuse_both(user=bool(user), password=password_stdin, code=bool(code), browser=browser, device=device)
        way = Way(issuer, device, not no_open, callback_port)
    invocation = current.get()
    file = config_file()
    configuration = file.read()
    _, former = selected(configuration, invocation)
    address = server or invocation.server or (former.server if former else "")
    if not address:
        raise CommandError("name the server: pilothouse login --server HOST:PORT --user NAME", 2)
    same = former if former is not None and former.server == address else None
    # Options on either side of the verb take precedence over the stored context.
    insecure, ca_file = invocation.insecure if insecure is None else insecure, ca_file or invocation.ca_file
    if former is not None and same is not None:
        insecure = former.insecure if insecure is None else insecure
        ca_file, namespace = ca_file or former.ca_file, namespace or former.namespace
        user = user or former.username
    told = {"--user": "" if way else user, "--name": name, "--namespace": namespace}
    hints.called.set(
        hints.Called(
            address,
            insecure,
            ca_file,
            invocation.context,
            login=_words(told),
            way=way.words if way else (),
            trust=(
                *_words({"--fingerprint": fingerprint}),
                *(("--trust-new-certificate",) if trust_new_certificate else ()),
            ),
            shown=certificate_files(invocation, same),
        )
    )
    username = "" if way else user or str(verbs.prompt("User name", err=True))
    # The certificate is checked before the user types a password.
    known = configuration.known_of(address, former)
    tls, trust = _secured(address, insecure, ca_file, known, Wish(fingerprint, trust_new_certificate))
    password = "" if way else read_password(f"Password of {username}", from_stdin=password_stdin)
    store = MemoryTokenStore()
    try:
        client = Client(
            address,
            tokens=store,
            device_token=_device_token(file.read(), address, username),
            insecure=insecure,
            tls=None if insecure else showing(tls, client_certificate(invocation, same)),
            timeout=invocation.timeout,
            on_retry=report_retry,
        )
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    with client:
        if way:
            answer = log_in_at(client, way)
        else:
            begun = client.login(username, password)
            answer = completed(client, username, begun, code, from_stdin=password_stdin)
    tokens = store.load()
    assert tokens is not None
    context_name = name or invocation.context or f"{answer.user.username or username}@{address}"
    context = Context(
        address, answer.user.username or username, namespace, insecure, ca_file, tokens=asdict(tokens)
    )
    context = replace(
        context, device_token=client.device_token, login_options=way.words if way else ()
    ).showing(certificate_files(invocation, same))
    if client.by_tls:
        context = replace(
            context,
            certificate=trust.certificate,
            server_name=trust.server_name,
            vouched_for=not trust.certificate,
        )
    elif known is not None:
        # A call in plain text does not delete the trust in the server's certificate.
        context = context.trusting(known)

    def remember(configuration: Configuration) -> Configuration:
        # All contexts of a server trust it by the same certificate.
        known = configuration.with_trust(context) if client.by_tls else configuration
        return known.with_context(context_name, context, use=True)

    file.change(remember)
    say(f"logged in to {address} as {context.username} (context {context_name})")


def _words(options: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the options for the command line, without the empty ones."""
    return tuple(word for option, value in options.items() if value for word in (option, value))


def _secured(
    address: str, insecure: bool | None, ca_file: str, former: Context | None, wish: Wish
) -> tuple[Tls | None, Trust]:
    """Returns the TLS settings for the server, and the trust in its certificate."""
    from pilothouse_client.commands.server_certificate import Trust, trust_in
    from pilothouse_client.target import target_of

    given = None if insecure else tls_of(ca_file)
    try:
        target = target_of(address, insecure=insecure, tls=given)
    except ValueError as error:
        raise CommandError(str(error), 2) from error
    if ca_file and not wish.fingerprint:
        return given, Trust()
    trust = trust_in(target, former, wish)
    return trust.tls() or given, trust


def _device_token(configuration: Configuration, address: str, username: str) -> str:
    """Returns the device token of this user's last log-in to this server.

    Empty if there is none.

    The device tokens of other users and servers are never sent."""
    found = (
        context.device_token
        for context in configuration.contexts.values()
        if context.device_token
        and context.server == address
        and context.username.casefold() == username.casefold()
    )
    return next(found, "")


def logout() -> None:
    """End the session and delete its tokens. The context stays, to log in again."""
    from pilothouse_client import DeadlineExceededError, RetryPolicy, UnavailableError

    file = config_file()
    name, context = selected(file.read(), current.get())
    if context is None or not context.tokens:
        say("not logged in")
        return
    try:
        # A user who logs out should not wait for a server: it is enough that this machine drops the tokens.
        with connect(RetryPolicy(attempts=6)) as client:
            client.logout()
        say(f"logged out of {context.server}")
    except (UnavailableError, DeadlineExceededError):
        # The tokens must go even then, because the user wants that for this machine.
        def forget(configuration: Configuration) -> Configuration:
            return configuration.with_context(name, replace(configuration.contexts[name], tokens=None))

        file.change(forget)
        say(
            (
                f"{context.server} is unavailable: the session may stay valid until it expires, but this command "
                "has deleted its tokens"
            ),
            err=True,
        )


def whoami(output: Output = Format.TABLE) -> None:
    """Show your user, your grants and the permissions that you hold everywhere."""
    with connect() as client:
        answer = client.identity.who_am_i()
    if not output.is_table:
        show(answer, [], output)
        return
    say(f"{answer.user.username} {answer.user.email}".strip())
    if answer.HasField("api_key"):
        key = answer.api_key
        say(f"by the key {key.name} ({key.api_key_id}), until {moment(key.expire_time)}")
    if answer.HasField("certificate"):
        say(f"by the certificate of {answer.certificate.name} ({answer.certificate.fingerprint})")
    if answer.permissions:
        say(f"everywhere: {', '.join(answer.permissions)}")
    show_all(answer.grants, grants.COLUMNS, output)


def passwd(password_stdin: FromStdin = False, end_keys: EndKeys = False) -> None:
    """Change your password. With --password-stdin the first line is the current one, the second the new one."""
    present = read_password("Current password", from_stdin=password_stdin)
    new = read_password("New password", from_stdin=password_stdin, repeat=True)
    with connect() as client:
        answer = client.identity.change_password(
            current_password=present, new_password=new, revoke_keys=end_keys
        )
    say("password changed; your other sessions have ended")
    keys_left(answer.valid_api_keys)


@sessions.command("list")
def list_sessions(user: _Whose = "", limit: Limit = 0, output: Output = Format.TABLE) -> None:
    """List your sessions, newest first."""
    with connect() as client:
        show_all(client.identity.list_sessions(username=user), _SESSIONS, output, limit)


@sessions.command("revoke")
def revoke(
    session_id: Annotated[str, verbs.Argument(help="As `list` shows it.", complete=complete_session)],
    user: _Whose = "",
) -> None:
    """End one of your sessions."""
    with connect() as client:
        client.identity.revoke_session(session_id=session_id, username=user)
    done(f"session {session_id} ended")
