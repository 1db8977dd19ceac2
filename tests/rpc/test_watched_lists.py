"""Lists: a watch from a page's token shows the changes after it, and a mask names the returned fields."""

from __future__ import annotations

from typing import Any

import grpc.aio
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse_server.rpc import method_rules, read_mask
from tests.harness import Server
from tests.identity.server import Refused
from tests.promises.calling import Caller
from tests.services import SERVICES
from tests.waiting import within

RULES = {rule.name: rule for rule in method_rules.load(SERVICES).values()}
NOUNS = ("Namespaces", "Containers", "Volumes", "Services", "Objects")


async def caller_of(server: Server, username: str = "admin") -> Caller:
    """Returns a caller with a token of a user."""
    return Caller(server.channel(), await server.token(username))


async def listed(caller: Caller, noun: str, **fields: Any) -> Any:
    """Returns the first page of a list."""
    rule = RULES[f"List{noun}"]
    outcome = await caller.invoke(rule, rule.request_class(**fields))
    assert outcome.code == "OK", outcome.message
    return outcome.answer


async def first_of_watch(caller: Caller, noun: str, **fields: Any) -> Any:
    """Returns the first response of a watch.

    Raises:
        Refused: the server refused the watch.
    """
    rule = RULES[f"Watch{noun}"]
    try:
        async with within(15.0), caller.watching(rule, rule.request_class(**fields)) as answers:
            return await anext(answers)
    except grpc.aio.AioRpcError as error:
        raise Refused(error) from None


@pytest.mark.parametrize("everywhere", [True, False])
async def test_a_watch_continues_each_list(shared_server: Server, everywhere: bool) -> None:
    """First on a server that has seen no event, then in one namespace that other tests change."""
    caller = await caller_of(shared_server)
    name = "everywhere" if everywhere else "listed"
    if not everywhere:
        await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=name))
    where = {} if everywhere else {"namespace": name}
    for noun in NOUNS:
        fields = {} if noun == "Namespaces" else where
        page = await listed(caller, noun, **fields)
        answer = await first_of_watch(
            caller, noun, **fields, resume_token=page.resume_token, bookmark_period_seconds=1
        )
        # No first state is sent: the response is a bookmark, or a concurrent change.
        assert answer.change_type != resource_pb2.CHANGE_TYPE_SYNCED
        assert answer.resume_token, noun


async def test_changes_after_the_page_follow(shared_server: Server) -> None:
    caller = await caller_of(shared_server)
    await shared_server.admin.namespaces.create(
        namespace=namespace_pb2.Namespace(name="before", labels={"of": "pages"})
    )
    page = await listed(caller, "Namespaces", label_selector="of=pages", page_size=1)
    assert [each.name for each in page.namespaces] == ["before"]
    for name, labels in (("other", {}), ("after", {"of": "pages"})):
        await shared_server.admin.namespaces.create(
            namespace=namespace_pb2.Namespace(name=name, labels=labels)
        )
    rule, seen = RULES["WatchNamespaces"], []
    request = rule.request_class(label_selector="of=pages", resume_token=page.resume_token)
    async with within(15.0), caller.watching(rule, request) as answers:
        async for answer in answers:
            seen.append(answer.namespace.name)
            if answer.namespace.name == "after":
                break
    assert "other" not in seen


async def test_a_token_belongs_to_its_caller_and_selection(shared_server: Server) -> None:
    await shared_server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name="kept"))
    await shared_server.user("kept-to", {"kept": "viewer"})
    admin, tenant = await caller_of(shared_server), await caller_of(shared_server, "kept-to")
    own = (await listed(tenant, "Containers")).resume_token
    assert (
        await first_of_watch(tenant, "Containers", resume_token=own, bookmark_period_seconds=1)
    ).resume_token
    for caller, fields in ((admin, {}), (tenant, {"namespace": "kept"}), (tenant, {"label_selector": "a"})):
        with pytest.raises(Refused) as refused:
            await first_of_watch(caller, "Containers", resume_token=own, **fields)
        assert (refused.value.code, refused.value.reason) == ("INVALID_ARGUMENT", "RESUME_TOKEN")


async def test_a_mask_returns_only_the_named_fields(shared_server: Server) -> None:
    caller = await caller_of(shared_server)
    await shared_server.admin.namespaces.create(
        namespace=namespace_pb2.Namespace(name="masked", labels={"of": "masks"}, display_name="Masked")
    )
    whole = (await listed(caller, "Namespaces", label_selector="of=masks")).namespaces[0]
    mask = FieldMask(paths=["display_name", "create_time"])
    page = await listed(caller, "Namespaces", label_selector="of=masks", read_mask=mask)
    wanted = namespace_pb2.Namespace(
        uid=whole.uid, name="masked", display_name="Masked", create_time=whole.create_time
    )
    assert list(page.namespaces) == [wanted]
    first = await first_of_watch(caller, "Namespaces", label_selector="of=masks", read_mask=mask)
    assert first.namespace == wanted
    # The mask also applies to an event after the first state.
    rule = RULES["WatchNamespaces"]
    request = rule.request_class(
        label_selector="of=masks", read_mask=FieldMask(paths=["labels"]), resume_token=page.resume_token
    )
    async with within(15.0), caller.watching(rule, request) as answers:
        await shared_server.admin.namespaces.update(
            name="masked",
            namespace=namespace_pb2.Namespace(display_name="Other"),
            update_mask=FieldMask(paths=["display_name"]),
        )
        async for answer in answers:
            if answer.HasField("namespace"):
                assert answer.namespace == namespace_pb2.Namespace(
                    uid=whole.uid, name="masked", labels={"of": "masks"}
                )
                break


@pytest.mark.parametrize("noun", NOUNS)
async def test_a_mask_with_an_unknown_field_is_refused(shared_server: Server, noun: str) -> None:
    caller = await caller_of(shared_server)
    for path in ("nothing", "metadata.name", ""):
        mask = FieldMask(paths=[path])
        for verb in ("List", "Watch"):
            rule = RULES[f"{verb}{noun}"]
            outcome = await caller.invoke(rule, rule.request_class(read_mask=mask))
            assert (outcome.code, outcome.message.partition(":")[0]) == ("INVALID_ARGUMENT", "read_mask")
        rule = RULES[f"List{noun}"]
        named = rule.request_class(read_mask=FieldMask(paths=["name"]))
        assert (await caller.invoke(rule, named)).code == "OK"


def test_every_field_of_a_message_can_be_left_out() -> None:
    message = container_pb2.Container(
        uid="u", name="n", namespace="s", labels={"a": "b"}, replicas=300, image="i" * 5000
    )
    message.create_time.FromSeconds(2**31)
    raw = message.SerializeToString()
    for field, _ in message.ListFields():
        mask = read_mask.of_request(
            container_pb2.ListContainersRequest(read_mask=FieldMask(paths=[field.name])),
            container_pb2.Container,
        )
        assert mask is not None
        kept = container_pb2.Container.FromString(mask.masked(raw))
        assert {each.name for each, _ in kept.ListFields()} == {field.name, "uid", "name", "namespace"}
        assert getattr(kept, field.name) == getattr(message, field.name)
