"""Manual encoding produces the same bytes as protobuf."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import cast

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse_server.rpc.encoding import AnswerField, ListAnswer, duration, embedded, text_field, varint
from pilothouse_server.runtime import event_loop
from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_server.store.paging import LARGEST_PAGE_BYTES, NextPage, PageRequest

_LIST = ListAnswer(pb.ListContainersResponse, "containers")
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3_650_000)))
def test_a_duration_is_encoded_as_by_protobuf(length: timedelta) -> None:
    expected = Duration()
    expected.FromTimedelta(length)
    assert duration(length) == expected.SerializeToString()


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_number_is_encoded_as_by_protobuf(value: int) -> None:
    assert pb.Container.FromString(b"\xb0\x04" + varint(value)).generation == value


@given(_TEXT, _TEXT)
def test_a_message_in_two_parts_is_encoded_as_by_protobuf(name: str, maker: str) -> None:
    parts = (pb.Container(name=name).SerializeToString(), pb.Container(created_by=maker).SerializeToString())
    expected = pb.GetContainerResponse(container=pb.Container(name=name, created_by=maker))
    answer = AnswerField(pb.GetContainerResponse, "container").answer(*parts)
    assert pb.GetContainerResponse.FromString(answer) == expected
    assert embedded(pb.GetContainerResponse.CONTAINER_FIELD_NUMBER, *parts) == answer


@given(st.lists(_TEXT), _TEXT)
async def test_a_list_is_encoded_as_by_protobuf(names: list[str], token: str) -> None:
    items = [(pb.Container(name=name).SerializeToString(), b"") for name in names]
    expected = pb.ListContainersResponse(
        containers=[pb.Container(name=name) for name in names], next_page_token=token if names else ""
    )
    assert await _LIST.answer(items, going_on_with(token)) == expected.SerializeToString()


async def test_a_list_ends_before_it_is_too_large() -> None:
    large = pb.Container(name="x" * (LARGEST_PAGE_BYTES // 4)).SerializeToString()
    for items, shown in (([large] * 9, 3), ([large * 5, large], 1)):
        answer = await _LIST.answer([(each,) for each in items], cast("NextPage", Counted()))
        assert len(answer) <= LARGEST_PAGE_BYTES or shown == 1
        read = pb.ListContainersResponse.FromString(answer)
        assert (len(read.containers), read.next_page_token) == (shown, f"after {shown}")


class Counted:
    page = PageRequest(key=b"")

    def after(self, count: int) -> str:
        return f"after {count}"


def going_on_with(token: str) -> NextPage:
    page = PageRequest(key=b"")
    return cast("NextPage", SimpleNamespace(after=lambda _count: token, page=page))


async def turns_beside_a_list(items: int) -> int:
    """Returns how often another task ran while a list was rendered, with some milliseconds of work for each item."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    def render(number: int) -> pb.Container:
        # Work of some milliseconds, also on a fast machine.
        sum(range(400_000))
        return pb.Container(name=str(number))

    beside = asyncio.create_task(other())
    try:
        await _LIST.rendered(range(items), render, going_on_with(""))
        return turns
    finally:
        await cancel_and_wait(beside)


async def test_a_list_is_rendered_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await turns_beside_a_list(60) >= 10
    # The control: rendering never yields.
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 3600.0)
    assert await turns_beside_a_list(60) <= 1


@pytest.mark.parametrize("description", ["", "short", "é" * 2000, "x" * 20_000])
def test_a_text_is_found_without_parsing_the_rest(description: str) -> None:
    namespace = namespace_pb2.Namespace(
        name="kept", description=description, status=namespace_pb2.NAMESPACE_STATUS_ACTIVE, uid="the-uid"
    )
    number = namespace_pb2.Namespace.DESCRIPTOR.fields_by_name["uid"].number
    found = text_field(namespace.SerializeToString(), number)
    # Fields after one that is too long to be skipped are not searched.
    assert found == ("the-uid" if len(description) < 16_384 else "")
    assert text_field(b"", number) == text_field(namespace.SerializeToString(), 1000) == ""
