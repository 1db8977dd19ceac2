"""An OpenID Connect issuer for tests: real HTTP on its own port, with real keys.

    async with issuer() as company:
        company.register("pilothouse", secret="s3cret")
        company.arrive("ada", groups=["ops"])           # the person at the browser
        code = parse_qs(urlsplit((await browse(url)).location).query)["code"]

It follows the standards where a relying party could notice: discovery and keys (OpenID Connect Discovery
1.0), the authorization code with PKCE by S256 (RFC 6749, 7636), the response's `iss` (RFC 9207), refresh
tokens that rotate, and the device authorization grant (RFC 8628). Codes work once; a second use ends the
session of the first one.

The faults of an issuer, or of an attacker in its place, are set separately: `faults` for the HTTP response,
`forged` for the ID token in it (`tests.identity.forge`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from aiohttp import web

from tests.identity.faults import Fault
from tests.identity.jose import SigningKey, b64

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"
AUTHORIZE = "/authorize"
TOKEN = "/token"
DEVICE = "/device_authorization"
TOKEN_SECONDS = 300
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_LOOPBACK = ("127.0.0.1", "[::1]")

Claims = dict[str, Any]


@dataclass
class Registered:
    """A registered client; without a secret it is public and uses PKCE only."""

    client_id: str
    secret: str = ""
    redirect_uris: tuple[str, ...] = ("http://127.0.0.1/callback",)


@dataclass
class Person:
    """A user of the issuer.

    Each ID token contains the current `claims`. A user with `left` set gets no new tokens.
    """

    sub: str
    claims: Claims = field(default_factory=dict)
    left: bool = False


@dataclass
class _Code:
    client_id: str
    redirect_uri: str
    challenge: str
    nonce: str
    person: Person
    refresh_token: str = ""
    used: bool = False


@dataclass
class _Device:
    client_id: str
    user_code: str
    expires: float
    person: Person | None = None
    denied: bool = False
    polls: int = 0
    used: bool = False


class _Refused(Exception):
    """An error response of RFC 6749, section 5.2."""


@dataclass
class Seen:
    """A received request: its path, and the parameters of its query and form."""

    path: str
    parameters: dict[str, str]


class Issuer:
    """One issuer. Changes to it take effect with the next request."""

    def __init__(self, keys: list[SigningKey] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.url = ""
        self.keys = [SigningKey.of("key-1")] if keys is None else keys
        self.clients: dict[str, Registered] = {}
        # The user at the browser; None stands for a user who refuses.
        self.person: Person | None = None
        self.faults: dict[str, Fault] = {}
        # Makes the ID token of the response from the claims of an honest one.
        self.forged: Callable[[Claims], str] | None = None
        self.seen: list[Seen] = []
        # The polling interval that the issuer sends to devices, and the lifetime of their codes, in seconds.
        self.device_interval: int | None = 5
        self.device_seconds = 600.0
        # The number of polls of each device that return `slow_down`.
        self.slow_downs = 0
        # Changed entries of the discovery document; None removes an entry.
        self.announced: dict[str, Any] = {}
        self.released = asyncio.Event()
        self._codes: dict[str, _Code] = {}
        self._devices: dict[str, _Device] = {}
        self._refresh_tokens: dict[str, tuple[str, Person]] = {}
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self._port = 0

    # Methods that tests call.

    def register(self, client_id: str, secret: str = "", *redirect_uris: str) -> Registered:
        """Registers a client. Loopback addresses match with any port (RFC 8252)."""
        client = Registered(client_id, secret, redirect_uris or ("http://127.0.0.1/callback",))
        self.clients[client_id] = client
        return client

    def arrive(self, sub: str, **claims: object) -> Person:
        """Sets the user at the browser."""
        self.person = Person(sub, dict(claims))
        return self.person

    @property
    def key(self) -> SigningKey:
        """Returns the key that signs: the newest signature key."""
        return [key for key in self.keys if key.use == "sig"][-1]

    def rotate(self, *, keep: bool = False, alg: str = "") -> SigningKey:
        """Signs with a new key from now on, and returns it.

        The former keys stay published only with `keep`.
        """
        number = 1 + max((int(key.kid.rpartition("-")[2]) for key in self.keys), default=0)
        made = SigningKey.of(f"key-{number}", alg or self.key.alg, number)
        self.keys = [*(self.keys if keep else ()), made]
        return made

    def claims(self, sub: str, audience: str, **more: object) -> Claims:
        """Returns the claims of an honest token; None removes a claim."""
        now = int(time.time())
        claims = {"iss": self.url, "sub": sub, "aud": audience, "iat": now, "exp": now + TOKEN_SECONDS} | more
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: Claims) -> str:
        """Returns an honest token of these claims."""
        return self.key.sign(claims)

    def approve(self, user_code: str, sub: str, **claims: object) -> Person:
        """Enters the code that a device shows, as a user who agrees."""
        person = Person(sub, dict(claims))
        self._device_of(user_code).person = person
        return person

    def deny(self, user_code: str) -> None:
        """Enters the code that a device shows, as a user who refuses."""
        self._device_of(user_code).denied = True

    def asked(self, path: str) -> int:
        """Returns how often a path was requested."""
        return sum(1 for seen in self.seen if seen.path == path)

    async def go_away(self) -> None:
        """Stops listening; `come_back` listens on the same port."""
        if self._runner is not None:
            self.released.set()
            await self._runner.cleanup()
            self._runner = None

    async def come_back(self) -> None:
        """Listens, the first time on any free port."""
        app = web.Application(middlewares=[self._noting])
        app.router.add_get(DISCOVERY, self._discovery)
        app.router.add_get(KEYS, self._keys)
        app.router.add_get(AUTHORIZE, self._authorize)
        app.router.add_post(TOKEN, self._token)
        app.router.add_post(DEVICE, self._device_authorization)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        self.released.clear()
        await web.TCPSite(
            self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True
        ).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    # Endpoints that the relying party calls.

    @web.middleware
    async def _noting(
        self, request: web.Request, handler: Callable[[web.Request], Any]
    ) -> web.StreamResponse:
        posted = await request.post() if request.method == "POST" else {}
        parameters = {name: str(value) for name, value in (*request.query.items(), *posted.items())}
        self.seen.append(Seen(request.path, parameters))
        fault = self.faults.get(request.path)
        if fault is not None:
            answer = await fault.answer(request, self.released)
            if answer is not None:
                return answer
        try:
            answered: web.StreamResponse = await handler(request)
        except _Refused as refusal:
            return web.json_response({"error": str(refusal)}, status=400)
        return answered

    async def _discovery(self, _request: web.Request) -> web.Response:
        document = {
            "issuer": self.url,
            "authorization_endpoint": self.url + AUTHORIZE,
            "token_endpoint": self.url + TOKEN,
            "device_authorization_endpoint": self.url + DEVICE,
            "jwks_uri": self.url + KEYS,
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token", DEVICE_GRANT],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({key.alg for key in self.keys}),
            "scopes_supported": ["openid", "profile", "email", "groups", "offline_access"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        } | self.announced
        return web.json_response({name: value for name, value in document.items() if value is not None})

    async def _keys(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": [key.jwk() for key in self.keys]})

    async def _authorize(self, request: web.Request) -> web.Response:
        query = request.query
        client = self.clients.get(query.get("client_id", ""))
        redirect_uri = query.get("redirect_uri", "")
        if client is None or not _may_lead_to(client, redirect_uri):
            # An invalid request is not redirected (RFC 6749, section 4.1.2.1).
            return web.Response(status=400, text="no such client, or not with this redirect_uri")
        answer = {"state": query.get("state", ""), "iss": self.url}
        wrong = _wrong_with(query)
        if wrong or self.person is None or self.person.left:
            return _redirect(redirect_uri, {"error": wrong or "access_denied", **answer})
        code = secrets.token_urlsafe(32)
        self._codes[code] = _Code(
            client.client_id,
            redirect_uri,
            query["code_challenge"],
            query.get("nonce", ""),
            self.person,
            "due" if "offline_access" in query["scope"].split() else "",
        )
        return _redirect(redirect_uri, {"code": code, **answer})

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        client = self._authenticated(request, form)
        grants: Mapping[str, Callable[[Registered, dict[str, str]], Claims]] = {
            "authorization_code": self._by_code,
            "refresh_token": self._by_refresh_token,
            DEVICE_GRANT: self._by_device_code,
        }
        grant = grants.get(form.get("grant_type", ""))
        if grant is None:
            raise _Refused("unsupported_grant_type")
        return web.json_response(grant(client, form), headers={"cache-control": "no-store"})

    async def _device_authorization(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        client = self._authenticated(request, form)
        if "openid" not in form.get("scope", "").split():
            raise _Refused("invalid_scope")
        device_code = secrets.token_urlsafe(32)
        user_code = "-".join("".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(4)) for _ in "12")
        self._devices[device_code] = _Device(client.client_id, user_code, time.time() + self.device_seconds)
        answer: Claims = {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": f"{self.url}/device",
            "verification_uri_complete": f"{self.url}/device?user_code={user_code}",
            "expires_in": int(self.device_seconds),
        }
        if self.device_interval is not None:
            answer["interval"] = self.device_interval
        return web.json_response(answer)

    # Grants: each method returns the response of the token endpoint.

    def _by_code(self, client: Registered, form: dict[str, str]) -> Claims:
        code = self._codes.get(form.get("code", ""))
        if code is None or code.client_id != client.client_id:
            raise _Refused("invalid_grant")
        if code.used:
            # A second use ends the session that the first use began (RFC 6749, section 4.1.2).
            self._refresh_tokens.pop(code.refresh_token, None)
            raise _Refused("invalid_grant")
        code.used = True
        if code.redirect_uri != form.get("redirect_uri") or code.challenge != _s256(
            form.get("code_verifier", "")
        ):
            raise _Refused("invalid_grant")
        answer = self._answer(client, code.person, code.nonce, offline=bool(code.refresh_token))
        code.refresh_token = answer.get("refresh_token", "")
        return answer

    def _by_refresh_token(self, client: Registered, form: dict[str, str]) -> Claims:
        client_id, person = self._refresh_tokens.pop(form.get("refresh_token", ""), ("", None))
        if person is None or person.left or client_id != client.client_id:
            raise _Refused("invalid_grant")
        return self._answer(client, person, "", offline=True)

    def _by_device_code(self, client: Registered, form: dict[str, str]) -> Claims:
        device = self._devices.get(form.get("device_code", ""))
        if device is None or device.client_id != client.client_id or device.used:
            raise _Refused("invalid_grant")
        device.polls += 1
        if time.time() >= device.expires:
            raise _Refused("expired_token")
        if device.denied:
            raise _Refused("access_denied")
        if device.polls <= self.slow_downs:
            raise _Refused("slow_down")
        if device.person is None:
            raise _Refused("authorization_pending")
        device.used = True
        return self._answer(client, device.person, "", offline=False)

    def _answer(self, client: Registered, person: Person, nonce: str, *, offline: bool) -> Claims:
        access_token = self.key.sign(
            self.claims(person.sub, f"{self.url}/userinfo", client_id=client.client_id, scope="openid"),
            self.key.header(typ="at+jwt"),
        )
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        claims = self.claims(person.sub, client.client_id, nonce=nonce or None, at_hash=b64(half))
        claims |= person.claims
        answer: Claims = {
            "token_type": "Bearer",
            "access_token": access_token,
            "expires_in": TOKEN_SECONDS,
            "id_token": self.sign(claims) if self.forged is None else self.forged(claims),
        }
        if offline:
            answer["refresh_token"] = secrets.token_urlsafe(32)
            self._refresh_tokens[answer["refresh_token"]] = (client.client_id, person)
        return answer

    def _authenticated(self, request: web.Request, form: dict[str, str]) -> Registered:
        basic = request.headers.get("authorization", "")
        if basic.startswith("Basic "):
            shown = base64.b64decode(basic.removeprefix("Basic ")).decode()
            client_id, _, secret = (unquote(part) for part in shown.partition(":"))
        else:
            client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        client = self.clients.get(client_id)
        if client is None or not secrets.compare_digest(client.secret.encode(), secret.encode()):
            raise _Refused("invalid_client")
        return client

    def _device_of(self, user_code: str) -> _Device:
        return next(device for device in self._devices.values() if device.user_code == user_code)


@asynccontextmanager
async def issuer(
    keys: list[SigningKey] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Issuer]:
    """Runs an issuer. Without `keys` it signs with one RSA key."""
    made = Issuer(keys, tls)
    await made.come_back()
    try:
        yield made
    finally:
        await made.go_away()


def _may_lead_to(client: Registered, redirect_uri: str) -> bool:
    if redirect_uri in client.redirect_uris:
        return True
    asked = urlsplit(redirect_uri)
    if asked.scheme != "http" or asked.netloc.rpartition(":")[0] not in _LOOPBACK:
        return False
    return any(
        (known.scheme, f"{known.hostname}", known.path) == (asked.scheme, f"{asked.hostname}", asked.path)
        for known in map(urlsplit, client.redirect_uris)
    )


def _wrong_with(query: Mapping[str, str]) -> str:
    """Returns the error of an authorization request, or '' if there is none.

    PKCE is required of every client.
    """
    if query.get("response_type") != "code":
        return "unsupported_response_type"
    if "openid" not in query.get("scope", "").split():
        return "invalid_scope"
    if query.get("code_challenge_method") != "S256" or len(query.get("code_challenge", "")) != 43:
        return "invalid_request"
    return ""


def _redirect(redirect_uri: str, parameters: Mapping[str, str]) -> web.Response:
    joined = "&" if "?" in redirect_uri else "?"
    return web.Response(
        status=302, headers={"location": f"{redirect_uri}{joined}{urlencode(dict(parameters))}"}
    )


def _s256(verifier: str) -> str:
    return b64(hashlib.sha256(verifier.encode()).digest())
