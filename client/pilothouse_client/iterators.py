"""The results of lists and streams: an iterator for the blocking client, an asynchronous one for the other.

Both are thin wrappers around the same source, which has `next` and `close` and ends with StopAsyncIteration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from pilothouse_client.connection import ServerConnection
from pilothouse_client.methods import Method, Request, Response
from pilothouse_client.transport import TransportT, run

Item = TypeVar("Item")
NextItem = TypeVar("NextItem", covariant=True)


class ItemSource(Protocol[NextItem]):
    """The source of the items; ends with StopAsyncIteration."""

    async def next(self) -> NextItem: ...

    def close(self) -> None: ...


class ResumableSource(ItemSource[NextItem], Protocol[NextItem]):
    """A source that another watch can resume from its token."""

    @property
    def resume_token(self) -> str: ...


class BlockingStream(Iterator[Item]):
    """Iterates over the responses of a stream; close it, or use it in a `with`, to end the call.

    Another thread may call `close`: the iteration then ends."""

    def __init__(self, source: ItemSource[Item]) -> None:
        self._source = source

    def __next__(self) -> Item:
        try:
            return run(self._source.next())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(AsyncIterator[Item]):
    """Iterates over the responses of a stream; close it, or use it in an `async with`, to end the call."""

    def __init__(self, source: ItemSource[Item]) -> None:
        self._source = source

    async def __anext__(self) -> Item:
        return await self._source.next()

    def close(self) -> None:
        self._source.close()

    async def aclose(self) -> None:
        self._source.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockingWatch(BlockingStream[Item]):
    """A watch that continues after cuts; see `pilothouse_client.streams`."""

    def __init__(self, source: ResumableSource[Item]) -> None:
        super().__init__(source)
        self._resumable = source

    @property
    def resume_token(self) -> str:
        """The token from which another watch continues after the last change.

        Empty before SYNCED."""
        return self._resumable.resume_token


class AsyncWatch(AsyncStream[Item]):
    """A watch that continues after cuts; see `pilothouse_client.streams`."""

    def __init__(self, source: ResumableSource[Item]) -> None:
        super().__init__(source)
        self._resumable = source

    @property
    def resume_token(self) -> str:
        """The token from which another watch continues after the last change.

        Empty before SYNCED."""
        return self._resumable.resume_token


class PageReader(Generic[TransportT, Request, Response, Item]):
    """Fetches page after page, each when its items are needed."""

    def __init__(
        self,
        connection: ServerConnection[TransportT],
        method: Method[Request, Response],
        request: Request,
        items_of: Callable[[Response], Iterable[Item]],
    ) -> None:
        self._connection = connection
        self._method = method
        self._request: Any = method.prepared(request)
        self._items_of = items_of
        self._items: deque[Item] = deque()
        self._ended = False

    async def next_page(self) -> Response:
        """Returns the next page. Raises StopAsyncIteration after the last, PilothouseError after a failure."""
        if self._ended:
            raise StopAsyncIteration
        response = await self._connection.unary(self._method, self._request)
        token: str = getattr(response, "next_page_token", "")
        self._request.page_token = token
        self._ended = not token
        return response

    async def next(self) -> Item:
        """Returns the next item; a page may be empty and yet not the last.

        Raises as `next_page`."""
        while not self._items:
            self._items.extend(self._items_of(await self.next_page()))
        return self._items.popleft()

    def close(self) -> None:
        """Ends the iteration; items that have been fetched are dropped."""
        self._ended = True
        self._items.clear()


class _Whole(Generic[Response]):
    def __init__(self, reader: PageReader[Any, Any, Response, Any]) -> None:
        self._reader = reader

    async def next(self) -> Response:
        return await self._reader.next_page()

    def close(self) -> None:
        self._reader.close()


class BlockingPager(BlockingStream[Item], Generic[Response, Item]):
    """Iterates over the items of all pages; `pages()` iterates over the responses instead."""

    def __init__(self, reader: PageReader[Any, Any, Response, Item]) -> None:
        super().__init__(reader)
        self._reader = reader

    def pages(self) -> BlockingStream[Response]:
        """Returns an iterator over the responses, one for each page."""
        return BlockingStream(_Whole(self._reader))


class AsyncPager(AsyncStream[Item], Generic[Response, Item]):
    """Iterates over the items of all pages; `pages()` iterates over the responses instead."""

    def __init__(self, reader: PageReader[Any, Any, Response, Item]) -> None:
        super().__init__(reader)
        self._reader = reader

    def pages(self) -> AsyncStream[Response]:
        """Returns an iterator over the responses, one for each page."""
        return AsyncStream(_Whole(self._reader))
