"""A watch of several nouns: one stream and one token.

For each scope it has the contract of the noun's own watch.
"""

from __future__ import annotations

from collections import Counter

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.resource.v1 import resource_pb2
from tests.dashboard.watching import RULES, caller_of, fields_of, following, refused, scope
from tests.harness import Server
from tests.waiting import within

NAMESPACED = ("application", "container", "service", "object", "volume", "config", "run")


async def namespace(server: Server, name: str = "") -> str:
    """Creates a namespace for the test."""
    own = name or server.namespace
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=own))
    return own


async def container(server: Server, name: str, **labels: str) -> None:
    """Creates a container in the test's namespace."""
    wanted = container_pb2.Container(name=name, image="nginx:1.27", labels=labels, replicas=0)
    await server.admin.containers.create(namespace=server.namespace, container=wanted)


async def config(server: Server, name: str) -> None:
    """Creates a config map in the test's namespace."""
    await server.admin.config.create_config_map(
        namespace=server.namespace, config_map=config_pb2.ConfigMap(name=name, data={"a": "b"})
    )


async def test_one_stream_sends_the_states_and_changes_of_all_nouns(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own, caller = await namespace(server), await caller_of(server)
    await container(server, "web")
    scopes = [scope(noun, own) for noun in NAMESPACED]
    async with following(caller, *scopes, scope("namespace", name=own)) as follower:
        state = await follower.synced()
        assert ("ADDED", NAMESPACED.index("container"), "web") in state
        assert ("ADDED", len(NAMESPACED), own) in state
        assert set(follower.tokens[:-1]) == {""}
        assert follower.token
        await config(server, "settings")
        await follower.until("ADDED", NAMESPACED.index("config"), "settings")
        await server.admin.network.create_service(
            namespace=own,
            service=network_pb2.Service(
                name="front", selector={"app": "web"}, ports=[network_pb2.ServicePort(port=80)]
            ),
        )
        await follower.until("ADDED", NAMESPACED.index("service"), "front")


async def test_a_change_in_two_scopes_has_its_token_on_the_last_response(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own, caller = await namespace(server), await caller_of(server)
    scopes = (scope("config", own), scope("container", own), scope("config", own, name="both"))
    async with following(caller, *scopes) as follower:
        await follower.synced()
        await config(server, "both")
        await follower.until("ADDED", 0, "both")
        # A watch that resumes from the token before this response repeats the change for both scopes.
        assert follower.tokens[-1] == ""
        assert (await follower.until("ADDED", 2, "both")) == [("ADDED", 2, "both")]
        assert follower.tokens[-1] != ""


async def test_a_resumed_watch_continues_and_new_scopes_begin_with_their_state(shared_server: Server) -> None:
    """No change is lost and none arrives twice, in the old and the new scopes."""
    server = shared_server.for_one_test()
    own, caller = await namespace(server), await caller_of(server)
    await config(server, "first")
    async with following(caller, scope("config", own)) as follower:
        await follower.synced()
        token = follower.token
    await config(server, "second")
    await container(server, "old")
    scopes = (
        scope("container", own, initial_state=True),
        scope("config", own),
        scope("volume", own, initial_state=True),
    )
    async with following(caller, *scopes, token=token) as follower:
        state = await follower.synced()
        # Changes after the token arrive once, and so does the state of a new scope.
        assert Counter(state)["ADDED", 1, "second"] == 1
        assert Counter(state)["ADDED", 0, "old"] == 1
        assert ("ADDED", 1, "first") not in state
        assert set(follower.tokens[:-1]) == {""}
        await container(server, "new")
        await follower.until("ADDED", 0, "new")
        token = follower.token
    # All three scopes can continue from the new token, and so can a part of them.
    await container(server, "newer")
    async with following(caller, scope("container", own), token=token) as follower:
        await follower.until("ADDED", 0, "newer")
        assert not [name for kind, _, name in follower.answers if kind == "ADDED" and name == "new"]


async def test_a_lost_scope_ends_the_stream_with_an_error_that_names_it(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own = await namespace(server)
    other = await namespace(server, f"{own}-other")
    await server.user("reader", {own: "viewer", other: "viewer"})
    caller = await caller_of(server, server.own("reader"))
    scopes = [scope("config", own), scope("container", own), scope("container", other)]
    async with following(caller, *scopes) as follower:
        await follower.synced()
        await server.admin.identity.revoke_role(username=server.own("reader"), role="viewer", namespace=other)
        ended = await follower.end()
    assert (ended.code, ended.reason, fields_of(ended)) == (
        "PERMISSION_DENIED",
        "PERMISSION_REVOKED",
        ["scopes[2]"],
    )
    admin = await caller_of(server)
    async with following(admin, scope("namespace"), *scopes) as follower:
        await follower.synced()
        await server.admin.namespaces.delete(name=other)
        ended = await follower.end()
        assert ("DELETED", 0, other) in follower.answers
    assert (ended.code, fields_of(ended)) == ("NOT_FOUND", ["scopes[3]"])


async def test_each_noun_needs_its_permission_and_foreign_namespaces_are_missing(
    shared_server: Server,
) -> None:
    server = shared_server.for_one_test()
    own = await namespace(server)
    await namespace(server, f"{own}-foreign")
    role = f"only-{own}"
    await server.admin.identity.create_role(
        role=identity_pb2.Role(name=role, display_name="Only", permissions=["audit.get"])
    )
    await server.user("nobody", {})
    await server.user("someone", {own: role})
    nobody = await caller_of(server, server.own("nobody"))
    someone = await caller_of(server, server.own("someone"))
    for noun in NAMESPACED:
        foreign = await refused(nobody, scope(noun, f"{own}-foreign"))
        missing = await refused(nobody, scope(noun, f"{own}-missing"))
        assert (foreign.code, fields_of(foreign)) == ("NOT_FOUND", ["scopes[0]"])
        assert foreign.message.replace("-foreign", "-missing") == missing.message
        for where in (own, ""):
            denied = await refused(someone, scope(noun, where))
            assert (denied.code, fields_of(denied)) == ("PERMISSION_DENIED", ["scopes[0]"]), noun
    assert (await refused(nobody, scope("namespace"))).code == "PERMISSION_DENIED"


async def test_a_tenant_sees_no_other_namespace(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own = await namespace(server)
    other = await namespace(server, f"{own}-other")
    await server.user("tenant", {own: "viewer"})
    caller = await caller_of(server, server.own("tenant"))
    async with following(caller, scope("config"), scope("namespace")) as follower:
        await follower.synced()
        await server.admin.config.create_config_map(
            namespace=other, config_map=config_pb2.ConfigMap(name="theirs", data={"a": "b"})
        )
        await config(server, "ours")
        await follower.until("ADDED", 0, "ours")
        assert follower.names == {0: {"ours"}, 1: {own}}


async def test_a_resume_token_is_valid_only_for_its_caller_and_scopes(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own, admin = await namespace(server), await caller_of(server)
    await server.user("granted", {own: "viewer"})
    caller = await caller_of(server, server.own("granted"))
    async with following(caller, scope("config"), scope("container", own)) as follower:
        await follower.synced()
        token = follower.token
    foreign = await refused(admin, scope("config"), token=token)
    assert (foreign.code, foreign.reason) == ("INVALID_ARGUMENT", "RESUME_TOKEN")
    for wrong in (scope("volume", own), scope("container"), scope("container", own, name="web")):
        other = await refused(caller, scope("config"), wrong, token=token)
        assert (other.code, other.reason) == ("INVALID_ARGUMENT", "RESUME_TOKEN")
        assert fields_of(other) == ["scopes[1].resume_token"]
    # The caller now sees another namespace: this changes the first scope but not the second.
    more = await namespace(server, f"{own}-more")
    await server.admin.identity.grant_role(username=server.own("granted"), role="viewer", namespace=more)
    changed = await refused(caller, scope("container", own), scope("config"), token=token)
    assert (changed.code, changed.reason, fields_of(changed)) == (
        "OUT_OF_RANGE",
        "WATCH_CHANGED",
        ["scopes[1]"],
    )
    async with following(caller, scope("container", own), token=token) as follower:
        await follower.until("BOOKMARK", 0, "")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (scope("unspecified"), "scopes[1].noun"),
        (scope("namespace", "demo"), "scopes[1].namespace"),
        (scope("container", kind="Ingress"), "scopes[1].kind"),
        (scope("container", filter="colour = red"), "scopes[1].filter"),
        (scope("container", namespace="No Name"), "scopes[1].namespace"),
    ],
)
async def test_an_error_names_the_wrong_scope(shared_server: Server, wrong: object, field: str) -> None:
    refusal = await refused(await caller_of(shared_server), scope("namespace"), wrong)  # type: ignore[arg-type]
    assert (refusal.code, fields_of(refusal)) == ("INVALID_ARGUMENT", [field])


async def test_the_number_of_scopes_is_limited(shared_server: Server) -> None:
    caller = await caller_of(shared_server)
    async with following(caller, *[scope("config")] * 32) as follower:
        await follower.synced()
    refusal = await refused(caller, *[scope("config")] * 33)
    assert (refusal.code, fields_of(refusal)) == ("INVALID_ARGUMENT", ["scopes"])
    assert (await refused(caller)).code == "INVALID_ARGUMENT"
    assert RULES["Watch"].answers_stream


async def test_a_filtered_watch_equals_the_list_and_reports_resources_that_leave(
    shared_server: Server,
) -> None:
    """Checks a scope, and the noun's own watch, which continues the list."""
    server = shared_server.for_one_test()
    own, caller = await namespace(server), await caller_of(server)
    for name in ("web", "api"):
        await container(server, name, tier="front" if name == "web" else "back")
    listed = RULES["ListContainers"]
    for expression, names in (
        ("labels.tier = front", {"web"}),
        ("image.tag = 1.27 name = a*", {"api"}),
        ("image.tag = 1.28", set()),
        ('created_by = admin NOT labels.tier = "front"', {"api"}),
    ):
        request = listed.request_class(namespace=own, filter=expression)
        page = (await caller.invoke(listed, request)).answer
        assert {each.name for each in page.containers} == names
        async with following(caller, scope("container", own, filter=expression)) as follower:
            await follower.synced()
            assert follower.names.get(0, set()) == names
    expression = "labels.tier = front"
    page = (await caller.invoke(listed, listed.request_class(namespace=own, filter=expression))).answer
    rule = RULES["WatchContainers"]
    request = rule.request_class(namespace=own, filter=expression, resume_token=page.resume_token)
    async with (
        following(caller, scope("container", own, filter=expression)) as follower,
        caller.watching(rule, request) as stream,
    ):
        await follower.synced()
        await server.admin.containers.update(
            namespace=own,
            name="web",
            container=container_pb2.Container(labels={"tier": "none"}),
            update_mask=FieldMask(paths=["labels"]),
        )
        await follower.until("DELETED", 0, "web")
        async with within(20.0):
            async for answer in stream:
                if answer.change_type == resource_pb2.CHANGE_TYPE_DELETED:
                    break
        assert answer.container.name == "web"
        assert {name for _, _, name in follower.answers} == {"web", ""}
