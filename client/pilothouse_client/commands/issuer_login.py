"""Logging in at an OpenID Connect issuer: by this machine's browser, or by a code that is typed elsewhere.

By the browser (RFC 8252): this program listens on a loopback address, to which the issuer redirects the browser. Only a
redirect with the log-in's `state` counts; other requests to the listener are ignored. The redirect's parameters go to
the server, which alone calls the issuer. The listener is closed when the log-in ends, successfully or not.
"""

from __future__ import annotations

import hmac
import itertools
import os
import queue
import sys
import time
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl, urlsplit

from pilothouse_client.commands import hints, verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.terminal import say

if TYPE_CHECKING:
    from pilothouse_client import Client

NOT_LOGGED_IN = 4
# The server accepts the redirect's parameters for this long.
WAIT_SECONDS = 600.0
# A proof is valid for ten minutes after the issuer authenticated the person; with this limit, most of that is left.
_MAX_AGE_SECONDS = 60
_PATH = "/callback"
# Browsers open spare connections and send nothing on them.
_SILENT_SECONDS = 10.0
_GONE_ON = "The log-in continues in your terminal. You can close this page."
_REFUSED = "The issuer did not log you in; your terminal shows the reason. You can close this page."
_FOREIGN = "No log-in is in progress for this page."


Issuer = Annotated[
    str,
    verbs.Option("--issuer", help="Log in at this issuer, by its name on the server; default the only one."),
]
ByBrowser = Annotated[
    bool, verbs.Option("--browser", help="Log in at an issuer with this machine's browser.")
]
ByDevice = Annotated[
    bool, verbs.Option("--device", help="Log in at an issuer with a code that you type in any browser.")
]
NoOpen = Annotated[bool, verbs.Option("--no-open", help="Print the address instead of opening a browser.")]
CallbackPort = Annotated[
    int,
    verbs.Option("--callback-port", min=0, max=65535, help="Port to which the browser returns; 0: any."),
]


@dataclass(frozen=True, slots=True)
class Way:
    """How to log in.

    `port` 0 means any free port. `opens`: the browser is opened; otherwise the address is only printed.
    """

    issuer: str = ""
    device: bool = False
    opens: bool = True
    port: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """The options of `login` that choose this way."""
        issuer = ("--issuer", self.issuer) if self.issuer else ()
        if self.device:
            return ("--device", *issuer)
        # An issuer may allow redirects only to this port.
        return ("--browser", *issuer, *(("--callback-port", str(self.port)) if self.port else ()))


def refuse_both(*, user: bool, password: bool, code: bool, browser: bool, device: bool) -> None:
    """Raises CommandError for options of which one would have no effect."""
    if browser and device:
        raise CommandError("--browser and --device exclude each other", 2)
    if user:
        raise CommandError("--user is for log-ins by password: at an issuer, the issuer names the user", 2)
    for option, given in (("--password-stdin", password), ("--code", code)):
        if given:
            raise CommandError(f"{option} is for log-ins by password: at an issuer, you type it there", 2)


def log_in_at(client: Client, way: Way) -> Any:
    """Logs in; returns the response with the tokens, which the client stores.

    Raises CommandError, PilothouseError."""
    return client.login_by_device(way.issuer, _show_code) if way.device else _by_browser(client, way)


def _show_code(begun: Any) -> None:
    say(f"open {begun.verification_uri} in any browser, and type the code {begun.user_code}", err=True)
    if begun.verification_uri_complete:
        say(f"or open {begun.verification_uri_complete}", err=True)


def way_of(words: Sequence[str]) -> Way | None:
    """Returns the way for the options of `Way.words`.

    None for a device code, which needs no local browser."""
    if "--device" in words:
        return None
    values = dict(itertools.pairwise(words))
    return Way(values.get("--issuer", ""), port=int(values.get("--callback-port", "0")))


def proved_by_browser(client: Client, way: Way) -> Any:
    """Logs in at an issuer, which must authenticate the person.

    Returns the response with tokens, without storing them.

    Raises CommandError, PilothouseError.
    """
    begun, answer = _come_back(client, way, _MAX_AGE_SECONDS)
    return client.identity.complete_oidc_login(
        login_token=begun.login_token,
        state=begun.state,
        code=answer.get("code", ""),
        iss=answer.get("iss", ""),
    )


def _by_browser(client: Client, way: Way) -> Any:
    begun, answer = _come_back(client, way)
    return client.login_by_code(begun.login_token, begun.state, answer.get("code", ""), answer.get("iss", ""))


def _come_back(client: Client, way: Way, max_age_seconds: int = 0) -> tuple[Any, Mapping[str, str]]:
    """Begins a log-in and waits for the browser.

    Returns the begun log-in and the redirect's parameters."""
    with _listening(way.port) as listener:
        begun = client.identity.begin_oidc_login(
            issuer=way.issuer, redirect_uri=listener.redirect_uri, max_age_seconds=max_age_seconds
        )
        listener.expect(begun.state)
        _send_browser(begun.authorization_url, opens=way.opens)
        answer = listener.wait(WAIT_SECONDS, way)
    if "error" in answer:
        words = f"{_plain(answer['error'])} {_plain(answer.get('error_description', ''))}"
        raise CommandError(f"the issuer did not log you in: {words.strip()}", NOT_LOGGED_IN)
    return begun, answer


def _send_browser(url: str, *, opens: bool) -> None:
    if urlsplit(url).scheme not in ("https", "http") or not url.isprintable():
        raise CommandError(
            "the server returned a log-in address that is not a printable http or https address"
        )
    if opens and _has_a_screen() and webbrowser.open(url):
        say("your browser opens for the log-in; if it does not, open", err=True)
    else:
        say("to log in, open", err=True)
    say(f"  {url}", err=True)


def _has_a_screen() -> bool:
    """Returns whether a browser would open in a window of its own, not in this terminal."""
    if sys.platform in ("darwin", "win32"):
        return True
    return any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))


class _Listener:
    """The address to which the issuer redirects the browser."""

    def __init__(self, server: _Server) -> None:
        self._server = server

    @property
    def redirect_uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}{_PATH}"

    def expect(self, state: str) -> None:
        """Accepts only the redirect of this log-in."""
        self._server.state = state

    def wait(self, seconds: float, way: Way) -> Mapping[str, str]:
        """Returns the redirect's parameters.

        Raises CommandError if there is no redirect in time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                # Waits for a second at a time, so that Ctrl-C works on every system.
                return self._server.answers.get(timeout=min(left, 1.0))
            except queue.Empty:
                continue
        by_device = hints.log_in(way=replace(way, device=True).words)
        raise CommandError(
            f"no browser returned in time; without a browser: {by_device}",
            NOT_LOGGED_IN,
        )


class _Server(ThreadingHTTPServer):
    def __init__(self, port: int) -> None:
        self.state = ""
        self.answers: queue.Queue[Mapping[str, str]] = queue.Queue(maxsize=1)
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores a broken connection."""


class _Handler(BaseHTTPRequestHandler):
    timeout = _SILENT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        answer = dict(parse_qsl(asked.query, keep_blank_values=True))
        state = self.server.state
        if (
            asked.path != _PATH
            or not state
            or not hmac.compare_digest(answer.get("state", "").encode(), state.encode())
        ):
            self._say(404, _FOREIGN)
            return
        # The page is sent first: the answer of a refused log-in ends the process.
        try:
            self._say(200, _REFUSED if "error" in answer else _GONE_ON)
        finally:
            if not self.server.answers.full():
                self.server.answers.put(answer)

    def _say(self, status: int, text: str) -> None:
        body = f"<!doctype html><meta charset=utf-8><title>Pilothouse</title><p>{text}</p>".encode()
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Writes nothing: the log line would contain the code."""


@contextmanager
def _listening(port: int) -> Iterator[_Listener]:
    try:
        server = _Server(port)
    except OSError as error:
        raise CommandError(
            f"cannot listen on 127.0.0.1:{port}: {error.strerror}; name another with --callback-port, or leave it out"
        ) from error
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield _Listener(server)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _plain(text: str) -> str:
    """Returns an issuer's text without the characters that control a terminal."""
    return "".join(character for character in text[:300] if character.isprintable())
