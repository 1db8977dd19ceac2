"""A program's credential in place of a password: a token of its platform, exchanged for a short session (RFC 8693).

    workload = Workload.from_file("/var/run/secrets/tokens/pilothouse")
    with Client("pilothouse.example:443", workload=workload) as client:
        client.containers.restart(namespace="shop", name="web")

The platform renews such a token by itself, so it is read again each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pilothouse.identity.v1 import token_exchange_pb2


@dataclass(frozen=True, slots=True)
class Workload:
    """A program's token, and the session to exchange it for.

    `subject_token` returns the current token; its exceptions end the call. `username` is the user or service account
    to act as, empty if the server's rules decide. `lifetime` is in seconds; None: as long as the server allows.

    >>> workload = Workload.from_file(path, username="sa:shop:deployer")
    >>> with Client(address, workload=workload) as client:
    ...     client.containers.get(namespace="shop", name="web")
    Traceback (most recent call last):
    pilothouse_client.errors.UnauthenticatedError: ...
    """

    subject_token: Callable[[], str]
    username: str = ""
    lifetime: float | None = None

    @classmethod
    def from_file(cls, path: str | Path, username: str = "", lifetime: float | None = None) -> Self:
        """Returns a workload whose token is in a file.

        The file is read again for each session."""
        return cls(lambda: Path(path).read_text(encoding="utf-8").strip(), username, lifetime)

    def request(self) -> token_exchange_pb2.ExchangeTokenRequest:
        """Returns the request with the current token; may wait for a file."""
        from pilothouse.identity.v1 import token_exchange_pb2

        request = token_exchange_pb2.ExchangeTokenRequest(
            subject_token=self.subject_token(), username=self.username
        )
        if self.lifetime is not None:
            request.lifetime.FromNanoseconds(int(self.lifetime * 1e9))
        return request
