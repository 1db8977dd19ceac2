"""A watch of records that continues a list: by its token, with its filter, and with the requested fields."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.namespace.v1 import namespace_pb2
from tests.dashboard.watching import RULES, caller_of, fields_of
from tests.harness import Server
from tests.promises.calling import Caller
from tests.waiting import within

_LIST, _WATCH = RULES["ListOperations"], RULES["WatchOperations"]


async def _create(server: Server, name: str) -> None:
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))


async def _page(caller: Caller, **fields: Any) -> Any:
    return (await caller.invoke(_LIST, _LIST.request_class(**fields))).answer


async def _records(caller: Caller, count: int, **fields: Any) -> list[Any]:
    found: list[Any] = []
    async with caller.watching(_WATCH, _WATCH.request_class(**fields)) as stream, within(20.0):
        while len(found) < count:
            answer = await anext(stream)
            if answer.HasField("operation"):
                found.append(answer.operation)
    return found


async def test_a_watch_returns_each_matching_record_after_the_page(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    caller, own = await caller_of(server), server.namespace
    chosen = f"resource_name = {own}-* AND action = create"
    await _create(server, f"{own}-before")
    page = await _page(caller, filter=chosen)
    assert [each.resource_name for each in page.operations] == [f"{own}-before"]
    await _create(server, f"{own}-after")
    await server.admin.namespaces.get(name=f"{own}-after")
    await _create(server, own)
    await _create(server, f"{own}-later")
    mask = FieldMask(paths=["resource_name"])
    found = await _records(caller, 2, filter=chosen, read_mask=mask, resume_token=page.resume_token)
    assert [each.resource_name for each in found] == [f"{own}-after", f"{own}-later"]
    assert {field.name for each in found for field, _ in each.ListFields()} <= {
        "operation_id",
        "username",
        "resource_name",
        "namespace",
    }


async def test_a_token_belongs_to_its_filter_and_a_wrong_filter_is_refused(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    caller = await caller_of(server)
    page = await _page(caller, filter="action = create")
    for fields in (
        {"filter": "action = delete", "resume_token": page.resume_token},
        {"resume_token": page.resume_token},
    ):
        refusal = await caller.invoke(_WATCH, _WATCH.request_class(**fields))
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "RESUME_TOKEN")
    wrong = await caller.invoke(_WATCH, _WATCH.request_class(filter="colour = red"))
    assert (wrong.code, fields_of(wrong)) == ("INVALID_ARGUMENT", ["filter"])


async def test_records_are_found_by_client_address_and_error_message(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    caller, own = await caller_of(server), server.namespace
    await _create(server, own)
    await caller.invoke(RULES["GetNamespace"], RULES["GetNamespace"].request_class(name=f"{own}-missing"))
    here = await _page(caller, filter=f'client_ip = "127.0.0.1" AND resource_name = {own}')
    assert {each.client_ip for each in here.operations} == {"127.0.0.1"}
    elsewhere = await _page(caller, filter=f'client_ip = "192.0.2.1" AND resource_name = {own}')
    assert not elsewhere.operations
    told = await _page(caller, filter=f'error_message : "{own}-missing"')
    assert [each.error_code for each in told.operations] == ["NOT_FOUND"]
