"""The nouns over one connection, for the blocking and the asynchronous client alike."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Generic

from pilothouse_client.connection import ServerConnection
from pilothouse_client.environment import NAMESPACE
from pilothouse_client.retry import RetryPolicy
from pilothouse_client.target import Target
from pilothouse_client.transport import TransportT

if TYPE_CHECKING:
    from pilothouse_client.nouns.applications import Applications
    from pilothouse_client.nouns.audit import Audit
    from pilothouse_client.nouns.config import Config
    from pilothouse_client.nouns.containers import Containers
    from pilothouse_client.nouns.identity import Identity
    from pilothouse_client.nouns.metrics import Metrics
    from pilothouse_client.nouns.namespaces import Namespaces
    from pilothouse_client.nouns.network import Network
    from pilothouse_client.nouns.objects import CarriedObjects
    from pilothouse_client.nouns.storage import Storage
    from pilothouse_client.nouns.watches import Watches


class Nouns(Generic[TransportT]):
    """The nouns over one connection; each is imported when it is first used."""

    def __init__(self, connection: ServerConnection[TransportT], target: Target) -> None:
        self._connection = connection
        self._target = target
        self._namespace = ""

    @property
    def address(self) -> str:
        """HOST:PORT of the server, or of several servers, separated by commas."""
        return self._target.address

    @property
    def by_tls(self) -> bool:
        """Whether the client calls the server over TLS."""
        return self._target.tls is not None

    @property
    def namespace(self) -> str:
        """The namespace of the client's context, else PILOTHOUSE_NAMESPACE, for callers that pass it to calls; empty
        if there is none."""
        return self._namespace or os.environ.get(NAMESPACE, "")

    @property
    def device_token(self) -> str:
        """The `device_token` for the next client of this user on this device.

        Empty before a log-in.

        It is a credential: store it like a token.
        """
        return self._connection.credentials.device.token

    @cached_property
    def identity(self) -> Identity[TransportT]:
        from pilothouse_client.nouns.identity import Identity

        return Identity(self._connection)

    @cached_property
    def namespaces(self) -> Namespaces[TransportT]:
        from pilothouse_client.nouns.namespaces import Namespaces

        return Namespaces(self._connection)

    @cached_property
    def containers(self) -> Containers[TransportT]:
        from pilothouse_client.nouns.containers import Containers

        return Containers(self._connection)

    @cached_property
    def network(self) -> Network[TransportT]:
        from pilothouse_client.nouns.network import Network

        return Network(self._connection)

    @cached_property
    def objects(self) -> CarriedObjects[TransportT]:
        from pilothouse_client.nouns.objects import CarriedObjects

        return CarriedObjects(self._connection)

    @cached_property
    def applications(self) -> Applications[TransportT]:
        from pilothouse_client.nouns.applications import Applications

        return Applications(self._connection)

    @cached_property
    def storage(self) -> Storage[TransportT]:
        from pilothouse_client.nouns.storage import Storage

        return Storage(self._connection)

    @cached_property
    def config(self) -> Config[TransportT]:
        from pilothouse_client.nouns.config import Config

        return Config(self._connection)

    @cached_property
    def audit(self) -> Audit[TransportT]:
        from pilothouse_client.nouns.audit import Audit

        return Audit(self._connection)

    @cached_property
    def metrics(self) -> Metrics[TransportT]:
        from pilothouse_client.nouns.metrics import Metrics

        return Metrics(self._connection)

    @cached_property
    def watches(self) -> Watches[TransportT]:
        from pilothouse_client.nouns.watches import Watches

        return Watches(self._connection)

    def with_options(
        self, *, timeout: float | None = None, retry: RetryPolicy | None = None
    ) -> Nouns[TransportT]:
        """Returns the same nouns over the same connection and tokens, with another `timeout` or retry policy.

        `timeout` is in seconds, for a whole call with its retries, or for the whole life of a stream; None: the
        defaults. `retry` None: the same policy."""
        return Nouns(self._connection.with_options(timeout, retry), self._target)
