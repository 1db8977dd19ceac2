"""A second implementation of an authenticator, and logins that need its codes."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from pilothouse.identity.v1 import identity_pb2 as pb
from pilothouse.identity.v1 import second_factor_pb2 as factor_pb
from tests.identity.server import PASSWORD, Caller, IdentityServer, Refused


def authenticator_code(seed: bytes, moment: float, digits: int = 6) -> str:
    """Returns a code, computed as RFC 6238 describes."""
    mac = hmac.new(seed, int(moment // 30).to_bytes(8, "big"), hashlib.sha1).digest()
    offset = mac[-1] & 15
    number = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)


@dataclass
class Authenticator:
    """An authenticator with a seed as it was shown. It uses the database's clock."""

    server: IdentityServer
    secret: str
    recovery_codes: list[str]

    async def code(self, steps: int = 0, *, fresh: bool = True) -> str:
        """Returns the current code, or that of some steps later.

        With `fresh`, all codes count as unused.
        """
        async with self.server.database.system() as connection:
            if fresh:
                await connection.execute("UPDATE users SET totp_last_step = 0")
            now = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        return self.code_at(now + 30 * steps)

    def code_at(self, moment: float) -> str:
        """Returns the code of a moment."""
        return authenticator_code(base64.b32decode(self.secret), moment)

    async def wrong_code(self) -> str:
        """Returns a code that differs from those of the nearby steps."""
        near = {await self.code(steps, fresh=False) for steps in range(-3, 4)}
        return next(code for code in (f"{number:06}" for number in range(10)) if code not in near)


async def enrolled(server: IdentityServer, caller: Caller) -> Authenticator:
    """Enrols and confirms a new authenticator for a caller."""
    made = await caller.EnrolTotp(factor_pb.EnrolTotpRequest())
    authenticator = Authenticator(server, made.secret, [])
    answer = await caller.ConfirmTotp(factor_pb.ConfirmTotpRequest(code=await authenticator.code()))
    authenticator.recovery_codes = list(answer.recovery_codes)
    return authenticator


async def challenged(
    caller: Caller, username: str, password: str = PASSWORD, **more: str
) -> pb.LoginResponse:
    """Returns the response to a correct password that requires a second step."""
    answer: pb.LoginResponse = await caller.Login(
        pb.LoginRequest(username=username, password=password, **more)
    )
    assert answer.challenge.startswith("phl_")
    assert not any((answer.access_token, answer.refresh_token, answer.device_token, answer.HasField("user")))
    return answer


async def complete(caller: Caller, challenge: str, **shown: str) -> Any:
    """Returns the response to a completed challenge, or the refusal."""
    try:
        return await caller.CompleteLogin(factor_pb.CompleteLoginRequest(challenge=challenge, **shown))
    except Refused as refusal:
        return refusal


async def reason(caller: Caller, challenge: str, **shown: str) -> str:
    """Returns why a challenge is refused, or '' if it is not."""
    answer = await complete(caller, challenge, **shown)
    return answer.reason if isinstance(answer, Refused) else ""
