"""The product as its users start it: the command `pilothouse serve` with settings in its environment, and a client.

The measuring process imports nothing of the product but its client.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc.aio

from benchmarks.machine import pin
from benchmarks.population import ACTIVE_NAMESPACES, WATCHED
from pilothouse.identity.v1 import identity_pb2
from pilothouse_client import AlreadyExistsError, AsyncClient

PASSWORD = "correct horse battery staple"
TENANT = "developer"
COMMAND = (str(Path(sys.executable).with_name("pilothouse")), "serve")
_LOGIN = "/pilothouse.identity.v1.IdentityService/Login"
_START_SECONDS = 120.0
_SAYS = "Pilothouse serves gRPC on "


class Product:
    """A running server; `stop` ends it as an operator would, with SIGTERM."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, spawned: float, log: Path) -> None:
        self.address = address
        # The monotonic time when the process was started, for measurements of the start.
        self.spawned = spawned
        self._process = process
        self._log = log
        self._reading = asyncio.create_task(self._drain())

    @classmethod
    async def start(
        cls,
        data_directory: Path,
        environment: Mapping[str, str],
        cores: frozenset[int],
        *,
        program: Sequence[str] = (),
        arguments: Sequence[str] = (),
        data_kept: bool = False,
    ) -> Product:
        """Starts the server, and returns when it prints that it serves.

        Raises:
                RuntimeError: the server ends instead; the text is the last line of its log.
        """
        data_directory.mkdir(parents=True, exist_ok=data_kept)
        log = data_directory / "log.txt"
        spawned = time.monotonic()
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(program or COMMAND),
                *arguments,
                env={
                    "PILOTHOUSE_LISTEN": "127.0.0.1:0",
                    "PILOTHOUSE_DATA_DIR": str(data_directory),
                    "PILOTHOUSE_BOOTSTRAP_PASSWORD": PASSWORD,
                    "PILOTHOUSE_LOG_LEVEL": "ERROR",
                    "PILOTHOUSE_SESSION_ACCESS_SECONDS": "86400",
                    "PILOTHOUSE_GRACE_SECONDS": "1",
                    # All watchers are one user.
                    "PILOTHOUSE_MAX_STREAMS_PER_USER": "2000",
                    **environment,
                },
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        pin(process.pid, cores)
        assert process.stdout is not None
        async with asyncio.timeout(_START_SECONDS):
            while line := (await process.stdout.readline()).decode():
                if line.startswith(_SAYS):
                    return cls(process, line.removeprefix(_SAYS).strip(), spawned, log)
        code = await process.wait()
        words = log.read_text().strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"the server ended with {code}: {words[-1]}")

    @property
    def process_id(self) -> int:
        """The server's process id."""
        return self._process.pid

    async def stop(self) -> None:
        """Ends the server, by force if it takes too long."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(20):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._reading.cancel()

    async def administrator(self) -> AsyncClient:
        """Returns a client of the first administrator; the caller closes it."""
        return AsyncClient(self.address, username="admin", password=PASSWORD)

    async def token(self, username: str = "admin") -> str:
        """Returns an access token that outlasts the run."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            login: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_LOGIN)
            request = identity_pb2.LoginRequest(username=username, password=PASSWORD)
            answer = await login(request.SerializeToString())
            return identity_pb2.LoginResponse.FromString(answer).access_token

    async def tenant_token(self, namespaces: int = ACTIVE_NAMESPACES) -> str:
        """Returns the token of a user with roles in these namespaces and the watched one; creates the user."""
        admin = await self.administrator()
        try:
            with contextlib.suppress(AlreadyExistsError):
                await admin.identity.create_user(
                    user=identity_pb2.User(username="tenant", email="tenant@example.org"), password=PASSWORD
                )
            for namespace in (*(f"tenant-{i}" for i in range(namespaces)), WATCHED):
                await admin.identity.grant_role(username="tenant", role=TENANT, namespace=namespace)
        finally:
            await admin.close()
        return await self.token("tenant")

    async def tenant_key(self) -> str:
        """Creates an API key for containers of the tenant's namespaces; call `tenant_token` first."""
        async with AsyncClient(self.address, username="tenant", password=PASSWORD) as client:
            made = await client.identity.create_api_key(name="benchmark", permissions=["container.*"])
            return str(made.key)

    async def _drain(self) -> None:
        assert self._process.stdout is not None
        while await self._process.stdout.read(65536):
            continue
