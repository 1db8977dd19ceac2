"""Watches of nouns whose events contain no message.

The nouns are users, grants, clusters and images. The server reads these resources with the permissions of the
caller that watches.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from tests.dashboard.watching import RULES, Follower, caller_of, fields_of, following, refused, scope
from tests.harness import PASSWORD, Server
from tests.processes import started
from tests.waiting import within

_NOUNS = ("user", "grant", "cluster", "image")


async def _namespace(server: Server, name: str = "") -> str:
    own = name or server.namespace
    await server.admin.namespaces.create(namespace=namespace_pb2.Namespace(name=own))
    return own


async def _container(server: Server, namespace: str, name: str, image: str, *sidecars: str) -> None:
    programs = [container_pb2.Program(name=f"s{number}", image=each) for number, each in enumerate(sidecars)]
    wanted = container_pb2.Container(name=name, image=image, replicas=0, sidecars=programs)
    await server.admin.containers.create(namespace=namespace, container=wanted)


async def _rename_image(server: Server, namespace: str, name: str, image: str) -> None:
    await server.admin.containers.update(
        namespace=namespace,
        name=name,
        container=container_pb2.Container(image=image),
        update_mask=FieldMask(paths=["image"]),
    )


async def _last(follower: Follower, *wanted: Any) -> Any:
    """Reads up to the expected response, and returns its resource."""
    await follower.until(*wanted)
    return follower.resource


async def test_watches_show_changes_of_users_and_grants_by_any_actor(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own, caller, identity = await _namespace(server), await caller_of(server), server.admin.identity
    name = server.own("watched")
    grant = f"{name} viewer {own}"
    scopes = (scope("user"), scope("grant", own), scope("grant", name=name))
    async with following(caller, *scopes) as follower:
        state = await follower.synced()
        assert ("ADDED", 0, "admin") in state
        await server.user("watched", {own: "viewer"})
        added = await _last(follower, "ADDED", 0, name)
        assert added.user.email == f"{name}@example.org"
        assert added.user.status == identity_pb2.USER_STATUS_ACTIVE
        granted = await _last(follower, "ADDED", 1, grant)
        assert granted.grant.assigned_by == "admin"
        await follower.until("ADDED", 2, grant)
        # Changes without an authenticated caller (a login) and changes by the user.
        client = server.client(name)
        await client.identity.who_am_i()
        logged_in = await _last(follower, "MODIFIED", 0, name)
        assert logged_in.user.HasField("last_login_time")
        await client.identity.change_password(current_password=PASSWORD, new_password=f"{PASSWORD} too")
        await follower.until("MODIFIED", 0, name)
        token = follower.token
    await identity.delete_user(username=name)
    async with following(caller, *scopes, token=token) as follower:
        gone = await _last(follower, "DELETED", 0, name)
        assert gone.user == identity_pb2.User(username=name, uid=added.user.uid)
        assert {("DELETED", 1, grant), ("DELETED", 2, grant)} <= set(follower.answers)


async def test_watches_show_a_user_that_revokes_its_own_grants(shared_server: Server) -> None:
    """Both changes succeed although their caller can no longer read the result."""
    server = shared_server.for_one_test()
    own, admin = await _namespace(server), await caller_of(server)
    client = await server.user("leaver", {own: "admin", "": "admin"})
    name = server.own("leaver")
    async with following(admin, scope("grant"), scope("user", name=name)) as follower:
        await follower.synced()
        await client.identity.revoke_role(username=name, role="admin", namespace=own)
        await follower.until("DELETED", 0, f"{name} admin {own}")
        await client.identity.revoke_role(username=name, role="admin")
        await follower.until("DELETED", 0, f"{name} admin ")
    assert {each[2] for each in follower.answers if each[1] == 1} == {name}


async def test_watches_show_changes_of_clusters(shared_server: Server) -> None:
    server, caller = shared_server.for_one_test(), await caller_of(shared_server)
    (cluster,) = [each async for each in server.admin.namespaces.list_clusters()]
    before = dict(cluster.labels)
    async with following(caller, scope("cluster"), scope("cluster", label_selector="seen=yes")) as follower:
        state = await follower.synced()
        assert ("ADDED", 0, cluster.name) in state
        assert 1 not in follower.names

        async def label(labels: dict[str, str]) -> None:
            await server.admin.namespaces.update_cluster(
                name=cluster.name,
                cluster=namespace_pb2.Cluster(labels=labels),
                update_mask=FieldMask(paths=["labels"]),
            )

        await label({"seen": "yes"})
        changed = await _last(follower, "MODIFIED", 0, cluster.name)
        assert changed.cluster.labels == {"seen": "yes"}
        await follower.until("MODIFIED", 1, cluster.name)
        await label(before)
        await follower.until("DELETED", 1, cluster.name)


async def test_image_watches_follow_the_containers_that_use_them(shared_server: Server) -> None:
    """Each tenant sees only its own containers' use of an image.

    The watch shows their number, and when they no longer use the image.
    """
    server = shared_server.for_one_test()
    own, caller = await _namespace(server), await caller_of(server)
    other = await _namespace(server, f"{own}-other")
    image, second, helper = (f"registry.example/{own}/{name}:1" for name in ("a", "b", "helper"))
    await server.user("tenant", {own: "viewer"})
    tenant = await caller_of(server, server.own("tenant"))
    chosen = scope("image", filter=f'image = "{image}"')
    async with (
        following(tenant, scope("image"), chosen) as seen,
        following(caller, scope("image", own)) as follower,
    ):
        await follower.synced()
        await seen.synced()
        await _container(server, own, "web", image, helper)
        for one in (seen, follower):
            used = await _last(one, "MODIFIED", 0, image)
            assert (used.image.container_count, used.image.tag) == (1, "1")
        await follower.until("MODIFIED", 0, helper)
        await _container(server, other, "web", image)
        await _container(server, own, "api", image)
        both = await _last(seen, "MODIFIED", 0, image)
        while both.image.container_count != 2:
            both = await _last(seen, "MODIFIED", 0, image)
        # The container in the other namespace is never counted.
        assert both.image.container_count == 2
        for name in ("web", "api"):
            await _rename_image(server, own, name, second)
        for one in (seen, follower):
            gone = await _last(one, "DELETED", 0, image)
            assert gone.image == container_pb2.Image(
                image=image, repository=f"registry.example/{own}", name="a", tag="1"
            )
        await seen.until("DELETED", 1, image)
        await server.admin.containers.delete(namespace=own, name="web")
        await server.admin.containers.delete(namespace=own, name="api")
        await follower.until("DELETED", 0, second)
    assert all(answer[2] in ("", image) for answer in seen.answers if answer[1] == 1)


async def test_each_noun_needs_the_permission_of_its_list(shared_server: Server) -> None:
    server = shared_server.for_one_test()
    own = await _namespace(server)
    other = await _namespace(server, f"{own}-other")
    await server.user("nobody", {})
    await server.user("tenant", {own: "admin"})
    nobody = await caller_of(server, server.own("nobody"))
    tenant = await caller_of(server, server.own("tenant"))
    for noun in _NOUNS:
        denied = await refused(nobody, scope("namespace", name=own), scope(noun))
        assert denied.code == "PERMISSION_DENIED"
    for noun in ("user", "cluster"):
        denied = await refused(tenant, scope(noun))
        assert (denied.code, fields_of(denied)) == ("PERMISSION_DENIED", ["scopes[0]"])
    foreign = await refused(tenant, scope("grant", other))
    assert (foreign.code, fields_of(foreign)) == ("NOT_FOUND", ["scopes[0]"])
    # A tenant sees neither grants in other namespaces nor grants in all namespaces.
    async with following(tenant, scope("grant")) as follower:
        await follower.synced()
        await server.user("theirs", {other: "viewer", "": "viewer"})
        await server.user("ours", {own: "viewer"})
        await follower.until("ADDED", 0, f"{server.own('ours')} viewer {own}")
        assert all(answer[2].endswith(own) for answer in follower.answers if answer[2])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (scope("user", "demo"), "namespace"),
        (scope("cluster", "demo"), "namespace"),
        (scope("user", label_selector="a=b"), "label_selector"),
        (scope("image", name="nginx"), "name"),
        (scope("user", filter="colour = red"), "filter"),
        (scope("user", initial_state=True, resume_token="x"), "resume_token"),
        (scope("user", resume_token="x"), "resume_token"),
    ],
)
async def test_an_error_names_a_selection_that_the_noun_lacks(
    shared_server: Server, wrong: Any, field: str
) -> None:
    refusal = await refused(await caller_of(shared_server), scope("namespace"), wrong)
    assert (refusal.code, fields_of(refusal)) == ("INVALID_ARGUMENT", [f"scopes[1].{field}"])


async def test_a_watch_continues_lists_that_were_read_at_different_times(shared_server: Server) -> None:
    """Each scope has the changes after its own list and none before.

    Scopes without a list begin with their state.
    """
    server = shared_server.for_one_test()
    own, caller = await _namespace(server), await caller_of(server)

    async def listed(method: str, **fields: Any) -> str:
        rule = RULES[method]
        return str((await caller.invoke(rule, rule.request_class(**fields))).answer.resume_token)

    scopes = [
        scope("container", own, resume_token=await listed("ListContainers", namespace=own)),
        scope("grant", own, resume_token=await listed("ListRoleGrants", namespace=own)),
    ]
    await _container(server, own, "first", "nginx:1.27")
    await server.user("one", {own: "viewer"})
    # Waits for the feed: a watch repeats changes that a list contains but the feed has not numbered.
    await server.application.feed.settled()
    scopes += [
        scope("user", resume_token=await listed("ListUsers")),
        scope("image", own, resume_token=await listed("ListImages", namespace=own)),
        scope("container", own, resume_token=await listed("ListContainers", namespace=own)),
        scope("cluster", resume_token=await listed("ListClusters")),
        scope("container", own),
    ]
    await server.user("two", {own: "viewer"})
    await _container(server, own, "second", "nginx:1.27")
    async with following(caller, *scopes) as follower:
        state = await follower.synced()
        assert ("ADDED", 0, "first") in state
        assert ("ADDED", 1, f"{server.own('one')} viewer {own}") in state
        assert ("ADDED", 6, "first") in state
        assert set(follower.tokens[:-1]) == {""}
        await _container(server, own, "third", "nginx:1.27")
        await follower.until("ADDED", 6, "third")
        token = follower.token
    names: dict[int, list[str]] = {}
    for kind, number, name in follower.answers:
        if kind == "ADDED":
            names.setdefault(number, []).append(name)
    assert names[0] == ["first", "second", "third"]
    assert names[1] == [f"{server.own(each)} viewer {own}" for each in ("one", "two")]
    assert names[2] == [server.own("two")]
    assert names[4] == ["second", "third"]
    assert sorted(names[6]) == ["first", "second", "third"]
    foreign = await refused(caller, scope("volume", own, resume_token=scopes[0].resume_token))
    assert (foreign.code, foreign.reason) == ("INVALID_ARGUMENT", "RESUME_TOKEN")
    both = await refused(caller, scopes[0], token=token)
    assert (both.code, fields_of(both)) == ("INVALID_ARGUMENT", ["scopes[0].resume_token"])


@pytest.mark.parametrize(("verb", "name"), [("users", "admin"), ("clusters", "local")])
async def test_a_list_command_with_watch_sends_the_list_first(
    shared_server: Server, verb: str, name: str
) -> None:
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PILOTHOUSE_")},
        "PILOTHOUSE_SERVER": shared_server.address,
        "PILOTHOUSE_TOKEN": await shared_server.token(),
    }
    command = (sys.executable, "-m", "pilothouse_client", verb, "list", "--watch", "-o", "json")
    names = []
    async with started(*command, stdout=subprocess.PIPE, env=environment) as process, within(20.0):
        assert process.stdout is not None
        while (change := json.loads(await process.stdout.readline()))["change"] != "SYNCED":
            names.append(change["resource"].get("username") or change["resource"]["name"])
    assert name in names
