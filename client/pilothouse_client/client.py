"""The two clients. They differ in their transport alone; nouns, log-in and options are declared once, in
`Nouns` (all_nouns.py).

with Client("127.0.0.1:50051", username="admin", password=password) as client:
    for container in client.containers.list(namespace="shop"):
        print(container.name)

async with AsyncClient("pilothouse.example:443", token=api_key) as client:
    async for change in client.containers.watch(namespace="shop"):
        print(change.kind, change.resource.name)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

from pilothouse_client.all_nouns import Nouns
from pilothouse_client.calls import CallOptions, Interruption, Retry, ignore
from pilothouse_client.connection import ServerConnection
from pilothouse_client.credentials import Credentials, DeviceToken, Password
from pilothouse_client.retry import DEFAULT_DEADLINES, DEFAULT_RETRY, Deadlines, RetryPolicy
from pilothouse_client.target import Target, Tls, target_of
from pilothouse_client.tokens import MemoryTokenStore, Tokens, TokenStore
from pilothouse_client.transport import AsyncTransport, BlockingTransport, TransportT, run
from pilothouse_client.workloads import Workload

if TYPE_CHECKING:
    from pilothouse.container.v1 import container_pb2
    from pilothouse.identity.v1 import federation_pb2, identity_pb2
    from pilothouse_client.config_file import Context
    from pilothouse_client.connection import ShowCode
    from pilothouse_client.waiting import Goal


class ClientOptions(TypedDict, total=False):
    """The keyword arguments of both clients; every one may be left out.

    Credentials are one of four:

    - `token`: an API key or access token.
    - `tokens`: the tokens of an earlier session, or a token store; the client refreshes them as needed.
    - `username` and `password`: log in at the first call, and again whenever the session has ended.
    - `workload`: a token that a program has from its platform, exchanged at the first call, and again whenever the
      session ends.

    - `device_token`: with a password, the value of `Client.device_token` after the last log-in of this user on this
      device. Password guessing elsewhere then does not lock the account for this device.

    Without credentials, only calls that need no token succeed, until `login`. The other options:

    - `insecure`: plain text if True, TLS if False; default: TLS unless the address is a loopback address.
    - `tls`: certificates; forces TLS.
    - `timeout`: seconds for every call with its retries, in place of `deadlines`, and for the whole life of a stream.
    - `deadlines`: seconds by the kind of call.
    - `retry`: how a call that failed is sent again.
    - `on_interruption`: called when a watch or another stream that resumes by itself is cut and cannot resume
      immediately: with the error, and with None once it has resumed.
    - `on_retry`: called with the error and the number of failed attempts, before a call is sent again.
    """

    token: str | None
    tokens: Tokens | TokenStore | None
    username: str | None
    password: str | None
    device_token: str
    workload: Workload | None
    insecure: bool | None
    tls: Tls | None
    timeout: float | None
    deadlines: Deadlines
    retry: RetryPolicy
    on_interruption: Interruption | None
    on_retry: Retry | None


def _connect(
    make_transport: Callable[[Target], TransportT], target: Target, options: ClientOptions
) -> ServerConnection[TransportT]:
    transport = make_transport(target)
    call_options = CallOptions(
        options.get("timeout"),
        options.get("deadlines", DEFAULT_DEADLINES),
        options.get("retry", DEFAULT_RETRY),
        options.get("on_interruption") or ignore,
        options.get("on_retry") or ignore,
    )
    device = DeviceToken(options.get("device_token", ""))
    credentials = Credentials(
        transport, _token_store(options), _password(options), call_options, device, _workload(options)
    )
    return ServerConnection(transport, credentials, call_options)


def _token_store(options: ClientOptions) -> TokenStore:
    token, tokens = options.get("token"), options.get("tokens")
    if token is not None and tokens is not None:
        raise ValueError("token and tokens exclude each other")
    if token is not None:
        tokens = Tokens(access_token=token)
    return MemoryTokenStore(tokens) if tokens is None or isinstance(tokens, Tokens) else tokens


def _password(options: ClientOptions) -> Password | None:
    username, password = options.get("username"), options.get("password")
    if (username is None) != (password is None):
        raise ValueError("username and password belong together")
    return None if username is None or password is None else Password(username, password)


def _workload(options: ClientOptions) -> Workload | None:
    workload = options.get("workload")
    if workload is not None and any(options.get(name) is not None for name in ("token", "username")):
        raise ValueError("workload cannot be combined with token, username or password")
    return workload


def _target(address: str, options: ClientOptions) -> Target:
    for name in options:
        if name not in ClientOptions.__annotations__:
            raise TypeError(f"a client has no option {name!r}")
    return target_of(address, insecure=options.get("insecure"), tls=options.get("tls"))


def _from_environment(options: ClientOptions) -> tuple[str, ClientOptions]:
    """Reads the address and the options from the environment; explicit options override them."""
    from pilothouse_client.environment import Environment

    found = Environment.read()
    chosen: ClientOptions = {**options}
    if found.token and not {"token", "tokens", "username"} & options.keys():
        chosen["token"] = found.token
    if "tls" not in options and not options.get("insecure") and (tls := found.tls) is not None:
        chosen["tls"] = tls
    return found.server, chosen


def _from_context(name: str, options: ClientOptions) -> tuple[str, ClientOptions, str]:
    """Returns address, options and namespace of a context; explicit options override the context's."""
    from pilothouse_client.config_file import ConfigFile, FileTokenStore, default_path

    file = ConfigFile(default_path())
    configuration = file.read()
    chosen_name = name or os.environ.get("PILOTHOUSE_CONTEXT") or configuration.current
    context = configuration.contexts.get(chosen_name)
    if context is None:
        known = ", ".join(sorted(configuration.contexts)) or "none"
        raise ValueError(f"there is no context {chosen_name!r}; known: {known}; pilothouse login creates one")
    chosen: ClientOptions = {**options}
    if "insecure" not in options and "tls" not in options:
        tls = _tls_of(context)
        if tls is not None and not context.insecure:
            chosen["tls"] = tls
        else:
            chosen["insecure"] = context.insecure
    if context.tokens and not {"token", "tokens", "username", "workload"} & options.keys():
        chosen["tokens"] = FileTokenStore(file, chosen_name)
    return context.server, chosen, context.namespace


def _tls_of(context: Context) -> Tls | None:
    """Returns a context's trusted certificates and client certificate.

    None if it has neither."""
    roots = Path(context.ca_file).read_bytes() if context.ca_file else None
    certificate, key = (
        Path(each).read_bytes() if each else None
        for each in (context.client_certificate_file, context.client_key_file)
    )
    if roots is None and context.certificate:
        pem = context.certificate.encode("ascii")
        return Tls(pem, certificate, key, server_name=context.server_name, pinned=True)
    return Tls(roots, certificate, key) if roots or certificate else None


def _answered(login_token: str, state: str, code: str, iss: str) -> federation_pb2.CompleteOidcLoginRequest:
    from pilothouse.identity.v1 import federation_pb2

    return federation_pb2.CompleteOidcLoginRequest(login_token=login_token, state=state, code=code, iss=iss)


class Client(Nouns[BlockingTransport]):
    """A blocking client; threads may share it.

    `address` is HOST, HOST:PORT (default port 50051), several IP addresses separated by commas, or `unix:PATH`;
    `ClientOptions` lists the other arguments. If a name or a list leads to several servers, calls go to them in turn.

    Calls raise `PilothouseError`. The constructor does not connect; it raises ValueError.

    >>> with Client(address, username="admin", password=password) as client:
    ...     made = client.containers.create(
    ...         container=Container(namespace=namespace, name="web", image="nginx")
    ...     )
    ...     print(*(each.name for each in client.containers.list(namespace=namespace)))
    web
    """

    def __init__(self, address: str, **options: Unpack[ClientOptions]) -> None:
        target = _target(address, options)
        super().__init__(_connect(BlockingTransport, target, options), target)

    @classmethod
    def from_environment(cls, **options: Unpack[ClientOptions]) -> Self:
        """Returns a client of the server in PILOTHOUSE_SERVER.

        It uses the key in PILOTHOUSE_TOKEN and the authorities in PILOTHOUSE_CA_FILE, or the certificate in
        PILOTHOUSE_CLIENT_CERTIFICATE_FILE and its key. Explicit options override the environment. Raises ValueError if
        PILOTHOUSE_SERVER is not set."""
        address, chosen = _from_environment(options)
        return cls(address, **chosen)

    @classmethod
    def from_context(cls, name: str = "", **options: Unpack[ClientOptions]) -> Self:
        """Returns a client of a context that `pilothouse login` has stored.

        It uses the context's server, trusted certificates and session, and writes the renewed session to the file. The
        default context is the one in PILOTHOUSE_CONTEXT, else the current one. Raises ValueError if there is none."""
        address, chosen, namespace = _from_context(name, options)
        made = cls(address, **chosen)
        made._namespace = namespace
        return made

    def wait_for(
        self,
        container: container_pb2.Container,
        goal: Goal | str = "running",
        *,
        timeout: float = 300.0,
        stable_for: float = 10.0,
        progress: Callable[[container_pb2.Container], object] = ignore,
    ) -> container_pb2.Container:
        """Waits until a container that a call has returned reaches a goal.

        Returns its last state.

        The goals are running, succeeded, stopped, paused, applied and deleted. `stable_for` is the number of seconds
        without a restart that `running` requires. `progress` is called with each state on the way. Raises WaitError if
        the container fails or `timeout` seconds pass."""
        from pilothouse_client.waiting import Goal, Patience, wait_for

        patience = Patience(stable_for=stable_for)
        return wait_for(self, container, Goal(goal), timeout=timeout, patience=patience, progress=progress)

    def login(self, username: str, password: str) -> identity_pb2.LoginResponse:
        """Logs in; the calls that follow use the new session.

        If the response has a `challenge` there is no session yet: call `complete_login`.
        """
        return run(self._connection.login(username, password))

    def complete_login(
        self,
        username: str,
        challenge: str,
        *,
        code: str = "",
        recovery_code: str = "",
        new_password: str = "",
    ) -> identity_pb2.CompleteLoginResponse:
        """Completes a log-in for which `login` has returned a `challenge`.

        Pass the values for the challenge's `steps`: a code of the user's authenticator, a recovery code, or a new
        password if the given one was a one-time code. The calls that follow use the new session.
        """
        return run(self._connection.complete_login(username, challenge, code, recovery_code, new_password))

    def login_by_code(
        self, login_token: str, state: str, code: str, iss: str = ""
    ) -> identity_pb2.CompleteOidcLoginResponse:
        """Completes a log-in that `identity.begin_oidc_login` began, with the parameters of the browser's redirect."""
        return run(self._connection.login_by_code(_answered(login_token, state, code, iss)))

    def login_by_device(self, issuer: str, show: ShowCode) -> identity_pb2.CompleteDeviceLoginResponse:
        """Logs in by a code that a person types in any browser.

        It calls `show` once with the code, and then polls the server until the person has approved or denied the
        log-in, or the code has expired. `issuer` may be empty if the server has only one."""
        return run(self._connection.login_by_device(issuer, show))

    def exchange_token(self, workload: Workload) -> identity_pb2.ExchangeTokenResponse:
        """Exchanges a program's token for a short session, which the calls that follow use.

        Unlike with `Client(…, workload=…)`, the session is not renewed."""
        return run(self._connection.exchange_token(workload))

    def logout(self) -> None:
        """Ends the session and drops the tokens, also if the server no longer knows them."""
        run(self._connection.logout())

    def close(self) -> None:
        """Closes the connection; calls and streams that wait end with CancelledError."""
        run(self._connection.transport.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(Nouns[AsyncTransport]):
    """An asynchronous client, for one event loop.

    Arguments and errors are those of `Client`.

    >>> async def deploy() -> str:
    ...     async with AsyncClient(address, username="admin", password=password) as client:
    ...         web = Container(namespace=namespace, name="web", image="nginx")
    ...         return (await client.containers.create(container=web)).name
    >>> asyncio.run(deploy())
    'web'
    """

    def __init__(self, address: str, **options: Unpack[ClientOptions]) -> None:
        target = _target(address, options)
        super().__init__(_connect(AsyncTransport, target, options), target)

    @classmethod
    def from_environment(cls, **options: Unpack[ClientOptions]) -> Self:
        """Returns a client as `Client.from_environment` does."""
        address, chosen = _from_environment(options)
        return cls(address, **chosen)

    @classmethod
    def from_context(cls, name: str = "", **options: Unpack[ClientOptions]) -> Self:
        """Returns a client as `Client.from_context` does."""
        address, chosen, namespace = _from_context(name, options)
        made = cls(address, **chosen)
        made._namespace = namespace
        return made

    async def wait_for(
        self,
        container: container_pb2.Container,
        goal: Goal | str = "running",
        *,
        timeout: float = 300.0,
        stable_for: float = 10.0,
        progress: Callable[[container_pb2.Container], object] = ignore,
    ) -> container_pb2.Container:
        """As `Client.wait_for`; a WaitError has no `last_lines`."""
        from pilothouse_client.waiting import Goal, Patience, wait_for_async

        patience = Patience(stable_for=stable_for)
        return await wait_for_async(
            self, container, Goal(goal), timeout=timeout, patience=patience, progress=progress
        )

    async def login(self, username: str, password: str) -> identity_pb2.LoginResponse:
        """Logs in; the calls that follow use the new session.

        If the response has a `challenge` there is no session yet: call `complete_login`.
        """
        return await self._connection.login(username, password)

    async def complete_login(
        self,
        username: str,
        challenge: str,
        *,
        code: str = "",
        recovery_code: str = "",
        new_password: str = "",
    ) -> identity_pb2.CompleteLoginResponse:
        """As `Client.complete_login`."""
        return await self._connection.complete_login(username, challenge, code, recovery_code, new_password)

    async def login_by_code(
        self, login_token: str, state: str, code: str, iss: str = ""
    ) -> identity_pb2.CompleteOidcLoginResponse:
        """Completes a log-in that `identity.begin_oidc_login` began, with the parameters of the browser's redirect."""
        return await self._connection.login_by_code(_answered(login_token, state, code, iss))

    async def login_by_device(self, issuer: str, show: ShowCode) -> identity_pb2.CompleteDeviceLoginResponse:
        """Logs in by a code that a person types in any browser; as `Client.login_by_device`."""
        return await self._connection.login_by_device(issuer, show)

    async def exchange_token(self, workload: Workload) -> identity_pb2.ExchangeTokenResponse:
        """Exchanges a program's token for a short session; as `Client.exchange_token`."""
        return await self._connection.exchange_token(workload)

    async def logout(self) -> None:
        """Ends the session and drops the tokens, also if the server no longer knows them."""
        await self._connection.logout()

    async def close(self) -> None:
        """Closes the connection; calls and streams that wait end with CancelledError."""
        await self._connection.transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
