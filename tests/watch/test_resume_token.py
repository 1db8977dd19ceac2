"""The token of a watch: it contains its position, and nothing else is accepted as a token."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.audit.v1 import audit_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.options.v1 import options_pb2 as options
from pilothouse.storage.v1 import storage_pb2
from pilothouse_server.errors import InvalidArgument, OutOfRange
from pilothouse_server.watch import resume_token
from pilothouse_server.watch.resume_token import Position

KEY = b"k" * 32
WATCH = {
    "user_id": 7,
    "method": "/pilothouse/Watch",
    "filter_text": "a\x00b",
    "history": "h1",
    "sight": "1,2",
}
OLDEST = 3
REQUESTS = (
    container_pb2.WatchContainersRequest,
    config_pb2.WatchConfigsRequest,
    namespace_pb2.WatchNamespacesRequest,
    storage_pb2.WatchVolumesRequest,
    audit_pb2.WatchOperationsRequest,
)

positions = st.builds(
    Position,
    st.integers(0, 2**63 - 1),
    st.binary(min_size=8, max_size=8),
    # Few ids that are far apart, or as many adjacent ones as a first state may have.
    st.one_of(
        st.sets(st.integers(1, 2**62), max_size=37),
        st.integers(1, 2**55).map(lambda first: set(range(first, first + 256))),
    ).map(lambda ids: tuple(sorted(ids))),
)


def issuer(**changes: object) -> resume_token.TokenIssuer:
    """Returns the issuer of the watch above, with these changes."""
    return resume_token.issuer(KEY, **{**WATCH, **changes})  # type: ignore[arg-type]


@given(positions)
def test_a_position_is_restored_from_its_token(position: Position) -> None:
    assert issuer().read(issuer().token(position), oldest_revision=OLDEST) == position


def test_a_token_is_not_issued_if_it_exceeds_the_length_of_requests() -> None:
    near = Position(5, skipped=tuple(range(10**9, 10**9 + 256)))
    far = Position(5, skipped=tuple(range(10**9, 10**9 + 256 * 200, 200)))
    assert issuer().fits(near)
    assert not issuer().fits(far)
    for request in REQUESTS:
        (rule,) = [
            field.GetOptions().Extensions[options.field]
            for field in request.DESCRIPTOR.fields
            if field.name == "resume_token"
        ]
        assert rule.max_length == resume_token.LONGEST_CHARACTERS, request.DESCRIPTOR.full_name


@given(positions, st.data())
def test_a_token_with_one_flipped_bit_is_refused(position: Position, data: st.DataObject) -> None:
    raw = bytearray(base64.urlsafe_b64decode(_padded(issuer().token(position))))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(InvalidArgument):
        issuer().read(base64.urlsafe_b64encode(raw).decode().rstrip("="), oldest_revision=OLDEST)


@given(st.text(max_size=5000))
def test_arbitrary_text_is_refused_as_a_token(text: str) -> None:
    with pytest.raises(InvalidArgument):
        issuer().read(text, oldest_revision=OLDEST)


@pytest.mark.parametrize("change", [{"user_id": 8}, {"method": "/other"}, {"filter_text": "a"}])
def test_a_token_of_another_watch_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match="only valid for its caller and filter"):
        issuer().read(issuer(**change).token(Position(5)), oldest_revision=OLDEST)


@pytest.mark.parametrize("change", [{"history": "h2"}, {"sight": "1"}])
def test_a_token_of_another_history_or_sight_is_out_of_range(change: dict[str, object]) -> None:
    with pytest.raises(OutOfRange):
        issuer().read(issuer(**change).token(Position(5)), oldest_revision=OLDEST)


def _padded(token: str) -> str:
    return token + "=" * (-len(token) % 4)
