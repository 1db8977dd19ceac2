"""How long the client retries a call, and how its error reports earlier attempts. Only waits advance the clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse_client import DeadlineExceededError, PilothouseError, RetryPolicy, UnavailableError
from pilothouse_client.calls import CallOptions, UnaryCall
from pilothouse_client.errors import error_of
from pilothouse_client.methods import Method, Pace, method_of
from pilothouse_client.retry import Deadline
from pilothouse_client.tokens import Tokens
from pilothouse_client.transport import Envelope, run
from tests.waiting import runs_out

GET = method_of(container_pb2.GetContainerRequest, container_pb2.GetContainerResponse)
CREATE = method_of(container_pb2.CreateContainerRequest, container_pb2.CreateContainerResponse)
REFUSED = UnavailableError(grpc.StatusCode.UNAVAILABLE, "no server responds at here", never_sent=True)
CUT = UnavailableError(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@dataclass
class SlowServer:
    """A transport to a server that is unavailable until `back`, in seconds of its own clock.

    The first attempts fail immediately with `outcomes` instead.
    """

    back: float = 0.0
    outcomes: list[PilothouseError] = field(default_factory=list)
    now: float = 0.0
    attempts: int = 0

    def monotonic(self) -> float:
        return self.now

    async def unary(self, method: Method[Any, Any], _request: Any, sent_with: Envelope) -> Any:
        self.attempts += 1
        if self.outcomes:
            raise self.outcomes.pop(0)
        assert sent_with.timeout is not None
        assert sent_with.timeout > 0
        if self.now < self.back:
            raise REFUSED
        return method.response()

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> SlowServer:
    made = SlowServer()
    monkeypatch.setattr("pilothouse_client.retry.time", SimpleNamespace(monotonic=made.monotonic))
    return made


def _call(server: SlowServer, method: Method[Any, Any], tokens: Any = None, **options: Any) -> Any:
    chosen = CallOptions(**options)
    pace = Pace.READ if method.read_only else Pace.MUTATION
    request = method.prepared(method.request())
    deadline = Deadline(chosen.timeout_of(pace))
    return run(UnaryCall(server, method, request, chosen, deadline, tokens).response())  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "seconds"), [(GET, 15.0), (CREATE, 30.0)], ids=["read", "mutation"])
def test_by_default_a_call_outlasts_a_restart_that_ends_before_its_deadline(
    server: SlowServer, method: Method[Any, Any], seconds: float
) -> None:
    server.back = seconds - 1.5
    assert _call(server, method) == method.response()
    assert server.now >= server.back


@pytest.mark.parametrize(("method", "seconds"), [(GET, 15.0), (CREATE, 30.0)], ids=["read", "mutation"])
def test_a_call_ends_with_its_deadline(server: SlowServer, method: Method[Any, Any], seconds: float) -> None:
    server.back = 3600.0
    with pytest.raises(UnavailableError) as caught:
        _call(server, method)
    assert caught.value.never_sent
    assert seconds - 1.5 < server.now < seconds
    # The waits grow, so that an unavailable server is not called constantly.
    assert server.attempts < 60


def test_a_retry_delay_from_the_server_is_not_shortened(server: SlowServer) -> None:
    server.outcomes = [error_of(grpc.StatusCode.UNAVAILABLE, "away", reason="AWAY", retry_delay=20.0)]
    with pytest.raises(UnavailableError) as caught:
        _call(server, GET)
    assert caught.value.retry_delay == 20.0
    assert server.attempts == 1


def test_never_sent_is_false_if_one_attempt_may_have_been_sent(server: SlowServer) -> None:
    server.outcomes, server.back = [REFUSED, CUT], 3600.0
    with pytest.raises(UnavailableError, match="no server responds") as caught:
        _call(server, CREATE)
    assert not caught.value.never_sent
    assert caught.value.request_id


def test_an_unsent_token_renewal_does_not_make_the_call_unsent(server: SlowServer) -> None:
    class Renewals:
        """Has a token for the first attempt and cannot renew it for the second."""

        async def current(self, _deadline: Deadline) -> Tokens | None:
            if server.attempts:
                raise REFUSED
            return Tokens("token")

    server.outcomes = [CUT]
    with pytest.raises(UnavailableError) as caught:
        _call(server, CREATE, Renewals())
    assert caught.value.message == REFUSED.message
    assert not caught.value.never_sent


def test_a_passed_deadline_reports_the_previous_error(server: SlowServer) -> None:
    over = error_of(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")
    server.outcomes = [REFUSED, over]
    with pytest.raises(DeadlineExceededError, match=r"has passed; .*: no server responds at here"):
        _call(server, GET)


def test_a_last_attempt_cut_short_keeps_the_previous_reason(server: SlowServer) -> None:
    away = error_of(grpc.StatusCode.UNAVAILABLE, "cluster away", reason="CLUSTER_UNAVAILABLE")
    over = error_of(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline of the call has passed")
    server.outcomes = [away, over]
    with pytest.raises(UnavailableError) as caught:
        _call(server, CREATE, timeout=runs_out(1.0))
    assert caught.value.reason == "CLUSTER_UNAVAILABLE"
    # The last attempt may have been sent.
    assert not caught.value.never_sent


def test_retries_are_reported(server: SlowServer) -> None:
    heard: list[tuple[str, int]] = []
    server.outcomes = [CUT, REFUSED]
    _call(server, GET, on_retry=lambda error, failures: heard.append((error.message, failures)))
    assert heard == [(CUT.message, 1), (REFUSED.message, 2)]


def test_attempts_can_be_limited(server: SlowServer) -> None:
    server.back = 3600.0
    with pytest.raises(UnavailableError):
        _call(server, GET, retry=RetryPolicy(attempts=3))
    assert server.attempts == 3
