"""How a noun declares its RPCs: one line each, for the blocking and the asynchronous client alike.

    class Containers(Noun[TransportT]):
        get = Unary(pb.GetContainerRequest, pb.GetContainerResponse, lambda answer: answer.container)

Reading `client.containers.get` returns a function. Its keyword arguments are the fields of the request, typed by the
signature of the generated stub's constructor. The blocking client's function blocks; the asynchronous client's must be
awaited. Each function also has `send(request)`, which takes a message and returns the whole response.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from pilothouse_client.connection import ServerConnection
from pilothouse_client.iterators import (
    AsyncPager,
    AsyncStream,
    AsyncWatch,
    BlockingPager,
    BlockingStream,
    BlockingWatch,
    Item,
    PageReader,
)
from pilothouse_client.methods import Method, Request, Response, method_of
from pilothouse_client.streams import (
    Change,
    Conversation,
    EndlessStream,
    PlainStream,
    Resource,
    ResumingStream,
    WatchStream,
)
from pilothouse_client.transport import AsyncTransport, BlockingTransport, TransportT, run

if TYPE_CHECKING:
    from google.protobuf.message import Message

Fields = ParamSpec("Fields")
Out = TypeVar("Out")


class NounClient(Generic[TransportT]):
    """The RPCs of one service, bound to a connection."""

    def __init__(self, connection: ServerConnection[TransportT]) -> None:
        self._connection = connection

    @property
    def connection(self) -> ServerConnection[TransportT]:
        """The connection of the calls: transport, credentials and options."""
        return self._connection


class _Declaration(Generic[Fields, Request, Response]):
    def __init__(self, make: Callable[Fields, Request], response: type[Response]) -> None:
        self._make = make
        self._method: Method[Request, Response] = method_of(cast("type[Request]", make), response)

    @property
    def method(self) -> Method[Request, Response]:
        """The declared RPC, from its descriptor."""
        return self._method


class Unary(_Declaration[Fields, Request, Response], Generic[Fields, Request, Response, Out]):
    """One request, one response; `result` extracts the part of the response that the call returns."""

    def __init__(
        self, make: Callable[Fields, Request], response: type[Response], result: Callable[[Response], Out]
    ) -> None:
        super().__init__(make, response)
        self._result = result

    @overload
    def __get__(
        self, noun: NounClient[BlockingTransport], owner: type[Any]
    ) -> BlockingCall[Fields, Request, Response, Out]: ...
    @overload
    def __get__(
        self, noun: NounClient[AsyncTransport], owner: type[Any]
    ) -> AsyncCall[Fields, Request, Response, Out]: ...
    @overload
    def __get__(self, noun: None, owner: type[Any]) -> Unary[Fields, Request, Response, Out]: ...

    def __get__(self, noun: NounClient[Any] | None, owner: type[Any]) -> Any:
        if noun is None:
            return self
        call: Callable[..., Any] = BlockingCall if _blocks(noun) else AsyncCall
        return call(noun.connection, self._method, self._make, self._result)


class _BoundCall(Generic[TransportT, Fields, Request, Response, Out]):
    def __init__(
        self,
        connection: ServerConnection[TransportT],
        method: Method[Request, Response],
        make: Callable[Fields, Request],
        result: Callable[[Response], Out],
    ) -> None:
        self._connection = connection
        self._method = method
        self._make = make
        self._result = result


class BlockingCall(
    _BoundCall[BlockingTransport, Fields, Request, Response, Out], Generic[Fields, Request, Response, Out]
):
    """A call that blocks; raises PilothouseError."""

    def __call__(self, *args: Fields.args, **kwargs: Fields.kwargs) -> Out:
        return self._result(self.send(_named(self._make(*args, **kwargs))))

    def send(self, request: Request) -> Response:
        """Sends a request as it is; returns the whole response. Raises PilothouseError."""
        return run(self._connection.unary(self._method, request))


class AsyncCall(
    _BoundCall[AsyncTransport, Fields, Request, Response, Out], Generic[Fields, Request, Response, Out]
):
    """A call to await; raises PilothouseError."""

    async def __call__(self, *args: Fields.args, **kwargs: Fields.kwargs) -> Out:
        return self._result(await self.send(_named(self._make(*args, **kwargs))))

    async def send(self, request: Request) -> Response:
        """Sends a request as it is; returns the whole response. Raises PilothouseError."""
        return await self._connection.unary(self._method, request)


class Pages(_Declaration[Fields, Request, Response], Generic[Fields, Request, Response, Item]):
    """A list in pages: iterates over the items of all pages.

    It begins at `page_token`; `page_size` is the number of items fetched at a time.
    """

    def __init__(
        self,
        make: Callable[Fields, Request],
        response: type[Response],
        items: Callable[[Response], Iterable[Item]],
    ) -> None:
        super().__init__(make, response)
        self._items = items

    @overload
    def __get__(
        self, noun: NounClient[BlockingTransport], owner: type[Any]
    ) -> Callable[Fields, BlockingPager[Response, Item]]: ...
    @overload
    def __get__(
        self, noun: NounClient[AsyncTransport], owner: type[Any]
    ) -> Callable[Fields, AsyncPager[Response, Item]]: ...
    @overload
    def __get__(self, noun: None, owner: type[Any]) -> Pages[Fields, Request, Response, Item]: ...

    def __get__(self, noun: NounClient[Any] | None, owner: type[Any]) -> Any:
        if noun is None:
            return self
        connection = noun.connection
        pager: Callable[..., Any] = BlockingPager if _blocks(noun) else AsyncPager

        def pages(*args: Fields.args, **kwargs: Fields.kwargs) -> Any:
            return pager(PageReader(connection, self._method, self._make(*args, **kwargs), self._items))

        return pages


class Watch(_Declaration[Fields, Request, Response], Generic[Fields, Request, Response, Resource]):
    """A watch: iterates over `Change`s, and continues by itself after cuts."""

    def __init__(
        self,
        make: Callable[Fields, Request],
        response: type[Response],
        resource: Callable[[Response], Resource],
    ) -> None:
        super().__init__(make, response)
        self._resource = resource

    @overload
    def __get__(
        self, noun: NounClient[BlockingTransport], owner: type[Any]
    ) -> Callable[Fields, BlockingWatch[Change[Resource]]]: ...
    @overload
    def __get__(
        self, noun: NounClient[AsyncTransport], owner: type[Any]
    ) -> Callable[Fields, AsyncWatch[Change[Resource]]]: ...
    @overload
    def __get__(self, noun: None, owner: type[Any]) -> Watch[Fields, Request, Response, Resource]: ...

    def __get__(self, noun: NounClient[Any] | None, owner: type[Any]) -> Any:
        if noun is None:
            return self
        connection = noun.connection
        iterator: Callable[..., Any] = BlockingWatch if _blocks(noun) else AsyncWatch

        def watch(*args: Fields.args, **kwargs: Fields.kwargs) -> Any:
            return iterator(
                WatchStream(connection, self._method, self._make(*args, **kwargs), self._resource)
            )

        return watch


class Stream(_Declaration[Fields, Request, Response]):
    """A stream of responses.

    After a cut, an `endless` stream is opened again, and a `resuming` stream continues from its last token. For any
    other stream a cut is an error.
    """

    def __init__(
        self,
        make: Callable[Fields, Request],
        response: type[Response],
        *,
        endless: bool = False,
        resuming: bool = False,
    ) -> None:
        super().__init__(make, response)
        self._source: Callable[..., Any] = (
            EndlessStream if endless else ResumingStream if resuming else PlainStream
        )

    @overload
    def __get__(
        self, noun: NounClient[BlockingTransport], owner: type[Any]
    ) -> Callable[Fields, BlockingStream[Response]]: ...
    @overload
    def __get__(
        self, noun: NounClient[AsyncTransport], owner: type[Any]
    ) -> Callable[Fields, AsyncStream[Response]]: ...
    @overload
    def __get__(self, noun: None, owner: type[Any]) -> Stream[Fields, Request, Response]: ...

    def __get__(self, noun: NounClient[Any] | None, owner: type[Any]) -> Any:
        if noun is None:
            return self
        connection = noun.connection
        iterator: Callable[..., Any] = BlockingStream if _blocks(noun) else AsyncStream
        source = self._source

        def stream(*args: Fields.args, **kwargs: Fields.kwargs) -> Any:
            return iterator(source(connection, self._method, self._make(*args, **kwargs)))

        return stream


class Upload(_Declaration[Fields, Request, Response], Generic[Fields, Request, Response, Out]):
    """A stream of requests, one response: takes an iterable of messages, and is not repeated after a failure."""

    def __init__(
        self, make: Callable[Fields, Request], response: type[Response], result: Callable[[Response], Out]
    ) -> None:
        super().__init__(make, response)
        self._result = result

    @overload
    def __get__(
        self, noun: NounClient[BlockingTransport], owner: type[Any]
    ) -> Callable[[Iterable[Request]], Out]: ...
    @overload
    def __get__(
        self, noun: NounClient[AsyncTransport], owner: type[Any]
    ) -> Callable[[AsyncIterable[Request] | Iterable[Request]], Coroutine[Any, Any, Out]]: ...
    @overload
    def __get__(self, noun: None, owner: type[Any]) -> Upload[Fields, Request, Response, Out]: ...

    def __get__(self, noun: NounClient[Any] | None, owner: type[Any]) -> Any:
        if noun is None:
            return self
        connection = noun.connection

        async def upload(requests: AsyncIterable[Request] | Iterable[Request]) -> Out:
            return self._result(await connection.collect(self._method, requests))

        return (lambda requests: run(upload(requests))) if _blocks(noun) else upload


class Exchange(_Declaration[Fields, Request, Response]):
    """A bidirectional stream: takes requests as they come and iterates over the responses."""

    @overload
    def __get__(
        self, noun: NounClient[BlockingTransport], owner: type[Any]
    ) -> Callable[[Iterable[Request]], BlockingStream[Response]]: ...
    @overload
    def __get__(
        self, noun: NounClient[AsyncTransport], owner: type[Any]
    ) -> Callable[[AsyncIterable[Request] | Iterable[Request]], AsyncStream[Response]]: ...
    @overload
    def __get__(self, noun: None, owner: type[Any]) -> Exchange[Fields, Request, Response]: ...

    def __get__(self, noun: NounClient[Any] | None, owner: type[Any]) -> Any:
        if noun is None:
            return self
        connection = noun.connection
        iterator: Callable[..., Any] = BlockingStream if _blocks(noun) else AsyncStream

        def exchange(requests: Any) -> Any:
            return iterator(Conversation(connection, self._method, requests))

        return exchange


def _named(request: Request) -> Request:
    """Returns the request, completed by the namespace and the name of its resource.

    Callers then need not write `namespace=…, name=…` twice."""
    fields = request.DESCRIPTOR.fields_by_name
    resource = next((each for each, _ in request.ListFields() if _has_a_name(each)), None)
    if resource is not None:
        value = getattr(request, resource.name)
        for name in ("namespace", "name"):
            if name in fields and fields[name].message_type is None and not getattr(request, name):
                setattr(request, name, getattr(value, name, ""))
    return request


def _has_a_name(field: Any) -> bool:
    of_type = field.message_type
    return (
        bool(of_type)
        and not field.is_repeated
        and "name" in of_type.fields_by_name
        and "uid" in of_type.fields_by_name
    )


def _blocks(noun: NounClient[Any]) -> bool:
    return isinstance(noun.connection.transport, BlockingTransport)


def whole(response: Response) -> Response:
    """Returns the whole response; for declarations that extract no part of it."""
    return response


def nothing(_response: Message) -> None:
    """Returns nothing; for declarations whose response is empty."""
