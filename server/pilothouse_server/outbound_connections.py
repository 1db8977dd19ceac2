"""The connections of `outbound`: each ends where the other side sends too much that is no answer.

aiohttp passes over 100 and 103 without end and without a pause, and counts nothing of what is around a body: extensions
of chunks, or chunks of a byte. Each kept the event loop from all others for as long as it was sent.

Apart, because it imports aiohttp, which takes long.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

# Answers before the answer (100, 103) to one request.
_MOST_INTERIM: Final = 16
# What a connection may send that is of no body: as much, and so many times what is of one. (Each line of a log has 30
# bytes or more, and six around it where the other side sends it by itself.)
_MOST_AROUND_BYTES: Final = 1024 * 1024
_MOST_AROUND_TIMES: Final = 4


class Connector(aiohttp.TCPConnector):
    """A connector of aiohttp, with its options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory: Any = partial(_Bounded, loop=self._loop)
        self._factory = factory


class _Bounded(ResponseHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = self._received = 0

    def set_response_params(self, **given: Any) -> None:
        """A request begins."""
        self._interim = self._received = 0
        super().set_response_params(**given)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """The head of an answer has come."""
        if 100 <= data[0].code < 200 and data[0].code != 101:
            self._interim += 1
        if self._interim <= _MOST_INTERIM:
            super().feed_data(data, size)
        else:
            self._refuse()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._upgraded:
            return
        self._received += len(data)
        body: int = getattr(self._payload, "total_bytes", 0)
        if self._received > _MOST_AROUND_BYTES + _MOST_AROUND_TIMES * body:
            self._refuse()

    def _refuse(self) -> None:
        transport, self.transport = self.transport, None
        if transport is None:
            return
        if self._payload is not None:
            self._payload.set_exception(aiohttp.ClientPayloadError())
        self.set_exception(HttpProcessingError())
        transport.abort()
