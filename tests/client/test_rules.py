"""Rules that need no server: backoff, addresses, times, verdicts of waits, and the coverage of all RPCs."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pilothouse_client
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import api_keys_pb2, identity_pb2
from pilothouse.metrics.v1 import metrics_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client import RetryPolicy
from pilothouse_client.all_nouns import Nouns
from pilothouse_client.client import Client
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.times import parse_span, parse_time
from pilothouse_client.commands.top import By, by_program, ordered
from pilothouse_client.commands.values import enum_words, short_span, size
from pilothouse_client.errors import FieldViolation, error_of, from_failed_call
from pilothouse_client.methods import method_of
from pilothouse_client.rpc import Pages, Stream, Unary, Upload, Watch
from pilothouse_client.target import Target, Tls, is_loopback, target_of
from pilothouse_client.transport import run
from pilothouse_client.waiting import FALSE, Goal, WaitOutcome, judge
from tests.services import METHODS


@given(
    failures=st.integers(1, 10_000),
    initial=st.floats(0, 10),
    extra=st.floats(0, 100),
    multiplier=st.floats(1, 10),
    part=st.floats(0, 1),
)
def test_backoff_stays_within_its_bounds(
    failures: int, initial: float, extra: float, multiplier: float, part: float
) -> None:
    policy = RetryPolicy(initial_delay=initial, greatest_delay=initial + extra, multiplier=multiplier)
    delay = policy.backoff(failures, lambda: part)
    assert 0.1 * initial <= delay * (1 + 1e-9)
    assert delay <= policy.greatest_delay * (1 + 1e-9)
    assert policy.backoff(failures + 1, lambda: part) >= delay


@given(code=st.sampled_from(list(grpc.StatusCode)), repeatable=st.booleans(), failures=st.integers(1, 20))
def test_only_safe_and_useful_retries_are_made(
    code: grpc.StatusCode, repeatable: bool, failures: int
) -> None:
    policy = RetryPolicy(attempts=5)
    delay = policy.delay_before_retry(error_of(code, "no"), repeatable=repeatable, failures=failures)
    assert (delay is not None) == (code is grpc.StatusCode.UNAVAILABLE and repeatable and failures < 5)
    told = policy.delay_before_retry(
        error_of(code, "no", reason="RATE", retry_delay=7.0), repeatable=False, failures=failures
    )
    assert (told is not None) == (code is grpc.StatusCode.RESOURCE_EXHAUSTED and failures < 5)
    assert told is None or told >= 7.0


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"initial_delay": -1.0}, {"greatest_delay": 0.0}, {"multiplier": 0.5}]
)
def test_an_invalid_retry_policy_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "complete", "local"),
    [
        ("localhost", "localhost:50051", True),
        ("LOCALHOST.:1", "LOCALHOST.:1", True),
        ("127.0.0.1:8080", "127.0.0.1:8080", True),
        ("127.255.0.9", "127.255.0.9:50051", True),
        ("[::1]:8080", "[::1]:8080", True),
        ("::1", "[::1]:50051", True),
        ("unix:/run/pilothouse.sock", "unix:/run/pilothouse.sock", True),
        ("pilothouse.example", "pilothouse.example:50051", False),
        ("10.0.0.1:443", "10.0.0.1:443", False),
        ("localhost.example:443", "localhost.example:443", False),
        ("127.0.0.1.example:443", "127.0.0.1.example:443", False),
    ],
)
def test_plain_text_is_used_only_for_loopback_addresses(address: str, complete: str, local: bool) -> None:
    target = target_of(address)
    assert (target.address, target.tls is None) == (complete, local)
    assert is_loopback(complete) is local
    assert target_of(address, insecure=True).tls is None
    assert target_of(address, insecure=False).tls is not None
    assert target_of(address, tls=Tls(b"pem")).tls == Tls(b"pem")


@pytest.mark.parametrize(
    ("addresses", "complete", "local"),
    [
        ("127.0.0.1:1, 127.0.0.2", "127.0.0.1:1,127.0.0.2:50051", True),
        ("[::1]:1,::1", "[::1]:1,[::1]:50051", True),
        ("127.0.0.1,10.0.0.1", "127.0.0.1:50051,10.0.0.1:50051", False),
    ],
)
def test_plain_text_needs_a_list_of_only_loopback_addresses(
    addresses: str, complete: str, local: bool
) -> None:
    assert is_loopback(complete) is local
    named = Tls(server_name="pilothouse.example")
    assert target_of(addresses, insecure=None if local else True).tls is None
    assert target_of(addresses, tls=named) == Target(complete, named)


@pytest.mark.parametrize(
    "address", ["", " ", "http://a", "a b", ":80", "a:b", "a:0", "a:65536", "a:１", "127.0.0.1,"]
)
def test_an_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError):
        target_of(address)
    with pytest.raises(ValueError):
        target_of("a", insecure=True, tls=Tls())


@pytest.mark.parametrize("addresses", ["a:1,b:1", "127.0.0.1,a", "127.0.0.1,::1", "unix:/a,unix:/b"])
def test_a_list_of_addresses_must_have_one_family(addresses: str) -> None:
    with pytest.raises(ValueError, match="one family"):
        target_of(addresses)


def test_a_list_over_tls_needs_a_server_name() -> None:
    for tls in (None, Tls()):
        with pytest.raises(ValueError, match="server_name"):
            target_of("10.0.0.1,10.0.0.2", tls=tls)


@pytest.mark.parametrize(
    ("address", "in_turn"),
    [
        ("pilothouse.example", True),
        ("10.0.0.1:1,10.0.0.2:1", True),
        ("10.0.0.1:1", False),
        ("localhost", False),
        ("unix:/run/pilothouse.sock", False),
    ],
)
def test_several_servers_are_called_in_turn(address: str, in_turn: bool) -> None:
    options = dict(target_of(address, insecure=True).options())
    assert ("grpc.service_config" in options) is in_turn
    assert "retryPolicy" not in str(options.get("grpc.service_config"))


@pytest.mark.parametrize(
    "words",
    [
        "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
        "connections to all backends failing; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused",
        "errors resolving nowhere.invalid:1: [field:hostname lookup error: Domain name not found]",
        "DNS resolution failed for nowhere.invalid:1: C-ares status is not ARES_SUCCESS",
    ],
)
def test_messages_of_grpc_for_unsent_calls_are_recognised(words: str) -> None:
    nobody = grpc.aio.Metadata()
    failed = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nobody, nobody, details=words)
    error = from_failed_call(failed, "there:1")
    assert error.never_sent
    assert error.message.startswith("no server responds at there:1")


def test_the_client_offers_every_unary_and_streaming_rpc() -> None:
    """Bidirectional streams are not declared in one line each, and are not counted."""
    kinds = (Unary, Pages, Watch, Stream, Upload)
    with Client("127.0.0.1:1") as client:
        nouns = [
            getattr(client, name) for name, each in vars(Nouns).items() if isinstance(each, cached_property)
        ]
    declared = {
        each.method.path for noun in nouns for each in vars(type(noun)).values() if isinstance(each, kinds)
    }
    expected = {
        f"/{method.containing_service.full_name}/{method.name}"
        for method in METHODS
        if not (method.client_streaming and method.server_streaming)
    }
    assert declared == expected, "add a line for each missing RPC to its noun in pilothouse_client/nouns"


def test_a_method_has_the_options_of_its_declaration() -> None:
    create = method_of(pb.CreateContainerRequest, pb.CreateContainerResponse)
    assert (create.repeatable, create.read_only, create.public, create.has_request_id) == (
        True,
        False,
        False,
        True,
    )
    refresh = method_of(identity_pb2.RefreshSessionRequest, identity_pb2.RefreshSessionResponse)
    assert (refresh.repeatable, refresh.public) == (False, True)
    assert method_of(identity_pb2.LoginRequest, identity_pb2.LoginResponse).repeatable
    assert not method_of(identity_pb2.LogoutRequest, identity_pb2.LogoutResponse).repeatable
    # The messages of this method are in another file than its service.
    key = method_of(api_keys_pb2.CreateApiKeyRequest, api_keys_pb2.CreateApiKeyResponse)
    assert (key.name, key.has_request_id) == ("CreateApiKey", True)
    with pytest.raises(TypeError):
        method_of(pb.CreateContainerRequest, pb.GetContainerResponse)
    with pytest.raises(TypeError):
        method_of(pb.Container, pb.GetContainerResponse)
    request = pb.CreateContainerRequest(namespace="shop")
    prepared = create.prepared(request)
    assert prepared.request_id
    assert not request.request_id  # the caller's message is not changed


def test_awaiting_anything_but_the_blocking_transport_is_a_fault() -> None:
    import asyncio

    with pytest.raises(RuntimeError, match="other than its blocking transport"):
        run(asyncio.sleep(0))


class _Failed:
    def __init__(self, status: bytes) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.NOT_FOUND

    def details(self) -> str:
        return "gone"

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        return [("grpc-status-details-bin", self._status)]


@given(status=st.binary(max_size=200))
def test_unreadable_error_details_do_not_hide_the_error(status: bytes) -> None:
    error = from_failed_call(_Failed(status), "127.0.0.1:50051")
    assert isinstance(error, pilothouse_client.NotFoundError)
    assert error.message == "gone"
    assert all(isinstance(violation, FieldViolation) for violation in error.violations)


@given(
    days=st.integers(0, 400), hours=st.integers(0, 23), minutes=st.integers(0, 59), seconds=st.integers(1, 59)
)
def test_time_spans_round_trip(days: int, hours: int, minutes: int, seconds: int) -> None:
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert parse_span(f"{days}d{hours}h{minutes}m{seconds}s", "--step") == total
    # Two units are printed, so the rounding error is less than the smaller unit.
    assert 0 <= total - parse_span(short_span(total), "--step") < max(1, total / 23)


@given(text=st.text(max_size=12))
def test_any_text_is_a_time_span_or_is_refused(text: str) -> None:
    # Any exception other than CommandError is a fault.
    with suppress(CommandError):
        assert parse_span(text, "--step") > 0
    with suppress(CommandError):
        assert parse_time(text, "--since").tzinfo is not None


def test_times_spans_and_sizes_are_formatted() -> None:
    assert parse_time("2026-01-31T12:00:00Z", "--since") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert [short_span(seconds) for seconds in (0.85, 42, 185, 7800, 356400)] == [
        "850ms",
        "42s",
        "3m5s",
        "2h10m",
        "4d3h",
    ]
    assert [size(number) for number in (0, 1023, 1024, 67108864, 1610612736)] == [
        "0",
        "1023",
        "1Ki",
        "64Mi",
        "1.5Gi",
    ]


def test_enum_words_map_to_values() -> None:
    assert (
        enum_words(pb.ContainerStatus.DESCRIPTOR)["crash_loop_back_off"]
        == pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF
    )
    assert "unspecified" not in enum_words(pb.DriftPolicy.DESCRIPTOR)


def _refused(message: str) -> resource_pb2.Condition:
    return resource_pb2.Condition(type="Applied", status=resource_pb2.CONDITION_STATUS_FALSE, message=message)


def test_a_wait_ends_when_the_container_reaches_its_goal() -> None:
    asked = pb.Container(name="web", generation=3)
    running, stopped = pb.CONTAINER_STATUS_RUNNING, pb.CONTAINER_STATUS_STOPPED

    def outcome(goal: Goal, **state: object) -> WaitOutcome:
        return judge(asked, pb.Container(**{"observed_generation": 3, **state}), goal).outcome  # type: ignore[arg-type]

    assert outcome(Goal.RUNNING, status=running) is WaitOutcome.ARRIVED
    assert outcome(Goal.RUNNING, status=running, observed_generation=2) is WaitOutcome.WAITING
    assert outcome(Goal.RUNNING, status=running, reconciling=True) is WaitOutcome.WAITING
    assert outcome(Goal.RUNNING, status=pb.CONTAINER_STATUS_PENDING) is WaitOutcome.WAITING
    restarts = resource_pb2.Condition(type="Stable", status=FALSE, reason="Restarted")
    looping = {"status": pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF, "conditions": [restarts]}
    assert outcome(Goal.RUNNING, **looping) is WaitOutcome.FAILED
    assert outcome(Goal.STOPPED, status=stopped) is WaitOutcome.ARRIVED
    assert outcome(Goal.STOPPED, status=running) is WaitOutcome.WAITING
    # The pods of the container are still terminating.
    for reason in ("ScalingDown", "Terminating"):
        assert outcome(Goal.STOPPED, status=stopped, reason=reason) is WaitOutcome.WAITING
        paused = pb.CONTAINER_STATUS_PAUSED
        assert outcome(Goal.PAUSED, status=paused, reason=reason) is WaitOutcome.WAITING
    assert outcome(Goal.APPLIED, status=stopped) is WaitOutcome.ARRIVED
    assert outcome(Goal.DELETED, status=stopped) is WaitOutcome.WAITING
    assert outcome(Goal.RUNNING, reconciling=True, conditions=[_refused("quota")]) is WaitOutcome.FAILED


def test_a_wait_ends_when_the_rollout_completes_or_fails() -> None:
    asked = pb.Container(name="web", generation=3)

    def outcome(rolled_out: str, status: int = pb.CONTAINER_STATUS_RUNNING, **state: object) -> WaitOutcome:
        held = resource_pb2.CONDITION_STATUS_TRUE if rolled_out == "RolledOut" else FALSE
        condition = resource_pb2.Condition(type="RolledOut", status=held, reason=rolled_out)
        fields = {"observed_generation": 3, "status": status, "conditions": [condition], **state}
        return judge(asked, pb.Container(**fields), Goal.RUNNING).outcome  # type: ignore[arg-type]

    assert outcome("RolledOut") is WaitOutcome.ARRIVED
    assert outcome("RollingOut") is WaitOutcome.WAITING
    assert outcome("FailedMount") is WaitOutcome.WAITING
    assert outcome("ImagePullBackOff") is WaitOutcome.FAILED
    assert outcome("ErrImagePull", pb.CONTAINER_STATUS_PENDING) is WaitOutcome.FAILED
    assert outcome("ProgressDeadlineExceeded") is WaitOutcome.FAILED
    # The condition describes the earlier generation: the cluster has yet to observe the new one.
    assert outcome("ProgressDeadlineExceeded", observed_generation=2) is WaitOutcome.WAITING
    assert outcome("RolloutHeld") is WaitOutcome.ARRIVED
    # The old pods crash, but their replacements are starting.
    looping = pb.CONTAINER_STATUS_CRASH_LOOP_BACK_OFF
    assert outcome("RollingOut", looping) is WaitOutcome.WAITING
    # Without replicas nothing should run.
    assert outcome("RolledOut", pb.CONTAINER_STATUS_STOPPED, replicas=0) is WaitOutcome.ARRIVED
    assert outcome("RolledOut", pb.CONTAINER_STATUS_STOPPED, replicas=2) is WaitOutcome.WAITING


def test_a_refusal_of_an_earlier_generation_does_not_count() -> None:
    asked = pb.Container(name="web", generation=3, conditions=[_refused("quota")])
    assert judge(asked, asked, Goal.RUNNING).outcome is WaitOutcome.WAITING
    dealt_with = pb.Container(generation=3, observed_generation=3, conditions=[_refused("quota")])
    assert judge(asked, dealt_with, Goal.RUNNING).outcome is WaitOutcome.FAILED
    again = pb.Container(generation=3, conditions=[_refused("image")])
    verdict = judge(asked, again, Goal.RUNNING)
    assert (verdict.outcome, verdict.why) == (WaitOutcome.FAILED, "the cluster refuses it: image")


def test_top_lists_each_program_below_its_container() -> None:
    several = metrics_pb2.UsageSample(
        namespace="shop",
        container="web",
        cpu_cores_used=3.0,
        programs=[
            metrics_pb2.ProgramUsage(name="main", cpu_cores_used=1.0, memory_bytes_used=7),
            metrics_pb2.ProgramUsage(name="log", cpu_cores_used=2.0, memory_bytes_used=9),
        ],
    )
    alone = metrics_pb2.UsageSample(namespace="shop", container="db", cpu_cores_used=1.0)
    assert [
        (each.container, each.cpu_cores_used, each.memory_bytes_used) for each in by_program([several, alone])
    ] == [("web", 3.0, 0), ("web/log", 2.0, 9), ("web/main", 1.0, 7), ("db", 1.0, 0)]


def test_top_orders_samples_and_drops_old_ones() -> None:
    def sample(uid: str, cpu: float, memory: int, seconds: int) -> metrics_pb2.UsageSample:
        made = metrics_pb2.UsageSample(
            container_uid=uid, container=uid, cpu_cores_used=cpu, memory_bytes_used=memory
        )
        made.timestamp.seconds = seconds
        return made

    newest = {
        each.container_uid: each
        for each in (sample("a", 1, 9, 1000), sample("b", 2, 5, 1000), sample("c", 9, 9, 1))
    }
    assert [each.container for each in ordered(newest, By.CPU, 10)] == ["b", "a"]
    assert [each.container for each in ordered(newest, By.MEMORY, 1)] == ["a"]
    assert "c" not in newest


def test_every_public_name_can_be_imported() -> None:
    for name in pilothouse_client.__all__:
        assert getattr(pilothouse_client, name) is not None
    with pytest.raises(AttributeError):
        _ = pilothouse_client.Nothing
