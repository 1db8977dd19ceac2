"""WatchEvents: existing and new events, and the permission of each kind."""

from __future__ import annotations

from typing import Any

from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.watch.v1 import watch_pb2 as pb
from tests.dashboard.watching import RULES, caller_of
from tests.harness import Server
from tests.promises.calling import Caller, Outcome
from tests.waiting import within

WATCH_EVENTS = RULES["WatchEvents"]


async def populate(server: Server, *names: str) -> str:
    """Creates the test's namespace with containers whose image cannot be pulled."""
    own = server.namespace
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=own))
    for name in names:
        await make(server, name)
    return own


async def make(server: Server, name: str) -> None:
    """Creates a container in the test's namespace."""
    wanted = container_pb2.Container(name=name, image="registry.invalid/nothing:1")
    await server.admin.containers.create(namespace=server.namespace, container=wanted)


async def once(caller: Caller, namespace: str) -> Outcome:
    """Returns the events that exist now."""
    request = pb.WatchEventsRequest(namespace=namespace, once=True)
    return await caller.invoke(WATCH_EVENTS, request, most=2)


async def test_existing_and_new_events_are_sent(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own, caller = await populate(server, "web"), await caller_of(server)
    seen: list[tuple[str, str]] = []

    async def until(stream: Any, kind: str, prefix: str) -> None:
        async with within(30.0):
            while not any(each == kind and name.startswith(prefix) for each, name in seen):
                answer = await anext(stream)
                seen.extend((event.object_kind, event.object_name) for event in answer.events)

    async with caller.watching(WATCH_EVENTS, pb.WatchEventsRequest(namespace=own)) as stream:
        await until(stream, "Pod", "web-")
        await make(server, "later")
        await until(stream, "Pod", "later-")
    of_web = pb.WatchEventsRequest(namespace=own, name="web", once=True)
    answers = (await caller.invoke(WATCH_EVENTS, of_web, most=2)).answers
    names = {event.object_name for answer in answers for event in answer.events}
    assert names
    assert {name.partition("-")[0] for name in names} == {"web"}
    times = [event.last_time.ToDatetime() for answer in answers for event in answer.events]
    assert times == sorted(times)


async def test_each_kind_needs_the_permission_of_its_noun(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own = await populate(server)
    for name, permission in (("sees-services", "service.watch"), ("sees-nothing", "audit.get")):
        role = f"{name}-{own}"
        await server.admin.identity.create_role(
            role=identity_pb2.Role(name=role, display_name=name, permissions=[permission])
        )
        await server.user(name, {own: role})
    await server.user("outside", {})
    await make(server, "web")
    some = await once(await caller_of(server, server.own("sees-services")), own)
    assert some.code == "OK"
    assert not [event for answer in some.answers for event in answer.events if event.object_kind == "Pod"]
    assert (await once(await caller_of(server, server.own("sees-nothing")), own)).code == "PERMISSION_DENIED"
    outside = await caller_of(server, server.own("outside"))
    foreign, missing = await once(outside, own), await once(outside, f"{own}-missing")
    assert foreign.code == missing.code == "NOT_FOUND"
    assert foreign.message.replace(own, f"{own}-missing") == missing.message
