"""The parsed headers of a call are remembered, with bounds on time and size."""

from __future__ import annotations

from pilothouse_server.rpc import headers
from pilothouse_server.rpc.headers import HeaderReader, Pairs
from tests.waiting import poll_until

_AGENT = ("user-agent", "grpc-python/1.85")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def sent(token: str, *more: tuple[str, str | bytes]) -> Pairs:
    """Returns headers as each call has them: never the same objects."""
    return (_AGENT, ("authorization", f"Bearer {token}"), *more)


async def test_the_headers_of_a_client_are_read_once() -> None:
    reader = HeaderReader()
    first = reader.read(sent("one"))
    assert (first.token, first.user_agent, first.trace_id) == ("one", "grpc-python/1.85", None)
    assert reader.read(sent("one")) is first
    assert reader.read(sent("two")).token == "two"
    assert reader.read(sent("one", ("x-bin", b"\0"))) is not first
    assert reader.read(sent("one")) is first


async def test_headers_contain_a_token_and_are_forgotten() -> None:
    reader = HeaderReader()
    first = reader.read(sent("one"))

    async def read_anew() -> bool:
        return reader.read(sent("one")) is not first

    await poll_until(read_anew)


async def test_a_trace_belongs_to_one_call() -> None:
    reader = HeaderReader()
    traced = sent("one", ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01"))
    first = reader.read(traced)
    assert first.trace_id == TRACE
    assert reader.read(traced) is not first
    assert reader.read(sent("one", ("traceparent", f"00-{'0' * 32}-00f067aa0ba902b7-01"))).trace_id is None


async def test_remembered_headers_are_bounded() -> None:
    reader = HeaderReader()
    first = [reader.read(sent(f"token-{number}")) for number in range(1000)]
    late = reader.read(sent("late"))
    assert reader.read(sent("late")) is not late
    assert reader.read(sent("token-999")) is first[-1]
    large = sent("one", ("x", "y" * 2048))
    assert HeaderReader().read(large).texts["x"] == "y" * 2048
    other = HeaderReader()
    assert other.read(large) is not other.read(large)


async def test_headers_that_are_too_large_are_not_read() -> None:
    found = HeaderReader().read(sent("one", ("x", "y" * headers.MOST_BYTES)))
    assert not found.fit
    assert (found.token, dict(found.texts)) == ("", {})
