"""What is put together by hand is what protobuf writes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.rpc.encoding import AnswerField, ListAnswer, duration, embedded, text_field, varint

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3_650_000)))
def test_a_duration(length: timedelta) -> None:
    expected = Duration()
    expected.FromTimedelta(length)
    assert duration(length) == expected.SerializeToString()


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_number(value: int) -> None:
    assert pb.Container.FromString(b"\xb0\x04" + varint(value)).generation == value


@given(_TEXT, _TEXT)
def test_a_message_in_two_parts(name: str, maker: str) -> None:
    parts = (pb.Container(name=name).SerializeToString(), pb.Container(created_by=maker).SerializeToString())
    expected = pb.GetContainerResponse(container=pb.Container(name=name, created_by=maker))
    answer = AnswerField(pb.GetContainerResponse, "container").answer(*parts)
    assert pb.GetContainerResponse.FromString(answer) == expected
    assert embedded(pb.GetContainerResponse.CONTAINER_FIELD_NUMBER, *parts) == answer


@given(st.lists(_TEXT), _TEXT)
def test_a_list(names: list[str], token: str) -> None:
    items = [(pb.Container(name=name).SerializeToString(), b"") for name in names]
    expected = pb.ListContainersResponse(
        containers=[pb.Container(name=name) for name in names], next_page_token=token
    )
    assert (
        ListAnswer(pb.ListContainersResponse, "containers").answer(items, token)
        == expected.SerializeToString()
    )


@pytest.mark.parametrize("description", ["", "short", "é" * 2000, "x" * 20_000])
def test_a_text_is_found_without_parsing_the_rest(description: str) -> None:
    namespace = namespace_pb2.Namespace(
        name="kept", description=description, status=namespace_pb2.NAMESPACE_STATUS_ACTIVE, uid="the-uid"
    )
    number = namespace_pb2.Namespace.DESCRIPTOR.fields_by_name["uid"].number
    found = text_field(namespace.SerializeToString(), number)
    # What stands behind a field too long to be passed over is not looked for.
    assert found == ("the-uid" if len(description) < 16_384 else "")
    assert text_field(b"", number) == text_field(namespace.SerializeToString(), 1000) == ""
