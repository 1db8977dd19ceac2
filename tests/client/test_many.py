"""One verb for several resources: how to select them, the output, and the exit code."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import grpc
import pytest

from pilothouse.application.v1 import application_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.network.v1 import network_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse.storage.v1 import storage_pb2
from tests.client.command import Command
from tests.client.fake_server import FakeServer


async def _made(fake: FakeServer, *names: str) -> None:
    for name in names:
        await fake.commit(
            "container",
            ("shop", name),
            pb.Container(namespace="shop", name=name, image="nginx", labels={"a": name}),
        )


async def test_containers_are_selected_by_names_labels_or_all(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake, "a", "b", "c")
    await logged_in("containers", "delete", "a", "b", "-y")
    assert [call.request.name for call in fake.calls_of("DeleteContainer")] == ["a", "b"]
    await logged_in("containers", "delete", "--all", "-y")
    assert [call.request.name for call in fake.calls_of("DeleteContainer")][2:] == ["c"]
    await _made(fake, "a")
    await logged_in("containers", "stop", "-l", "a=a")
    assert fake.calls_of("ListContainers")[-1].request.label_selector == "a=a"
    for line in ([], ["a", "--all"], ["-l", "a=b", "--all"]):
        ended = await logged_in("containers", "stop", *line)
        assert (ended.code, "one of the three" in ended.err) == (2, True)


async def test_a_failure_does_not_stop_the_others(fake: FakeServer, logged_in: Command) -> None:
    """Each failure has a line with its name, the highest exit code is returned, and the other resources are deleted."""
    await _made(fake, "a", "c")
    ended = await logged_in("containers", "delete", "a", "nobody", "c", "-y")
    assert ended.code == 6
    assert ended.err.splitlines()[0].startswith("error: nobody: ")
    assert ended.err.splitlines()[-1] == "2 deleted, 1 failed"
    assert [line.split()[0] for line in ended.lines[1:]] == ["a", "c"]
    again = await logged_in("containers", "delete", "x", "y", "-y", "--json-errors")
    assert [json.loads(line)["name"] for line in again.err.splitlines()[:-1]] == ["x", "y"]


async def test_one_name_is_printed_without_a_list(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake, "a", "b")
    one = await logged_in("containers", "delete", "a", "-y", "-o", "json")
    assert (json.loads(one.out)["name"], one.err) == ("a", "")
    assert isinstance(
        json.loads((await logged_in("containers", "delete", "--all", "-y", "-o", "json")).out), list
    )


async def test_scale_takes_the_count_from_its_last_argument(fake: FakeServer, logged_in: Command) -> None:
    await logged_in("containers", "scale", "a", "b", "3")
    assert [(call.request.name, call.request.replicas) for call in fake.calls_of("ScaleContainer")] == [
        ("a", 3),
        ("b", 3),
    ]
    ended = await logged_in("containers", "scale", "a", "many")
    assert (ended.code, "number of pods, not 'many'" in ended.err) == (2, True)


@pytest.mark.parametrize("verb", ["delete", "start", "stop", "pause", "resume", "restart", "scale"])
async def test_a_dry_run_needs_no_confirmation_and_sends_validate_only(
    fake: FakeServer, logged_in: Command, verb: str
) -> None:
    await _made(fake, "a", "b")
    ended = await logged_in("containers", verb, "a", "b", *(["1"] if verb == "scale" else []), "--dry-run")
    calls = [call for call in fake.calls if call.method.lower() == f"{verb}container"]
    assert [call.request.validate_only for call in calls] == [True, True]
    assert "(dry run)" in ended.err


async def test_the_confirmation_names_the_resources(fake: FakeServer, logged_in: Command) -> None:
    await _made(fake, *(f"c{number}" for number in range(12)))
    ended = await logged_in("containers", "delete", "--all")
    assert ended.code == 2
    assert "Delete 12 containers of shop (c0, c1, " in ended.err
    assert " and 2 more)?" in ended.err
    assert fake.calls_of("DeleteContainer") == []


async def test_the_highest_exit_code_is_returned(fake: FakeServer, logged_in: Command) -> None:
    for code in ("NOT_FOUND", "RESOURCE_EXHAUSTED", "PERMISSION_DENIED"):
        fake.fail("StopContainer", grpc.StatusCode[code])
    assert (await logged_in("containers", "stop", "a", "b", "c")).code == 8


# The words before the names, the table of the fake server, and a resource without a name.
_DELETED = [
    ("containers", "container", pb.Container(namespace="shop")),
    ("configs", "config_map", config_pb2.ConfigMap(namespace="shop")),
    ("secrets", "secret", config_pb2.Secret(namespace="shop")),
    ("volumes", "volume", storage_pb2.Volume(namespace="shop")),
    ("services", "service", network_pb2.Service(namespace="shop")),
    ("objects", "object", object_pb2.Object(namespace="shop", kind="Ingress")),
    ("applications", "application", application_pb2.Application(namespace="shop")),
    ("namespaces", "namespace", namespace_pb2.Namespace()),
]


@pytest.mark.parametrize(("noun", "table", "resource"), _DELETED, ids=[each[0] for each in _DELETED])
async def test_each_noun_is_deleted_by_names_labels_or_all(
    fake: FakeServer, logged_in: Command, noun: str, table: str, resource: Any
) -> None:
    words = [noun, "delete", *(["ingress"] if noun == "objects" else [])]
    for name in "abcd":
        made = type(resource)(name=name)
        made.MergeFrom(resource)
        await fake.commit(table, ("shop", name) if noun != "namespaces" else name, made)
    dry = await logged_in(*words, "a", "b", "--dry-run")
    assert (dry.code, dry.err.splitlines()[-1]) == (0, "2 deleted (dry run)")
    deletions = [call.request for call in fake.calls if call.method.startswith("Delete")]
    assert [each.validate_only for each in deletions] == [True, True]
    # The fake server deletes even on a dry run.
    ended = await logged_in(*words, "c", "nobody", "-y")
    assert (ended.code, ended.err.splitlines()[-1]) == (6, "1 deleted, 1 failed")
    assert ended.err.startswith("error: nobody: ")
    asked = await logged_in(*words, "-l", "a=b")
    assert (asked.code, "Confirm with --yes" in asked.err) == (2, True)
    lists = [call.request for call in fake.calls if call.method.startswith("List")]
    assert lists[-1].label_selector == "a=b"
    assert (await logged_in(*words, "--all", "-y", "-o", "name")).lines == ["d"]
    assert (await logged_in(*words, "a", "b", "--etag", "x", "-y")).code == 2


@pytest.mark.parametrize(
    ("words", "method", "sum_of"),
    [
        (["users", "delete"], "DeleteUser", "deleted"),
        (["roles", "delete"], "DeleteRole", "deleted"),
        (["service-accounts", "delete"], "DeleteServiceAccount", "deleted"),
        (["clusters", "deregister"], "DeregisterCluster", "deregistered"),
        (["api-keys", "revoke"], "RevokeApiKey", "ended"),
        (["secrets", "purge"], "PurgeSecret", "purged"),
        (["images", "delete"], "DeleteImage", "forgotten"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
async def test_several_users_keys_or_clusters_are_deleted(
    fake: FakeServer, logged_in: Command, words: list[str], method: str, sum_of: str
) -> None:
    """As for other nouns: one line each, a failure stops no other, a summary as the last line, and `--dry-run`."""
    names = [str(UUID(int=number)) for number in range(1, 6)]
    yes = [] if words[0] == "images" else ["--yes"]
    for name in names:
        await fake.commit("cluster", name, namespace_pb2.Cluster(name=name))
        await fake.commit("user", name, identity_pb2.User(username=name))
        await fake.commit("role", name, identity_pb2.Role(name=name))
    fake.fail(method, grpc.StatusCode.PERMISSION_DENIED)
    ended = await logged_in(*words, *names[:3], *yes)
    assert (ended.code, ended.err.splitlines()[-1]) == (5, f"2 {sum_of}, 1 failed"), ended
    assert f"error: {names[0]}: " in ended.err
    dry = await logged_in(*words, *names[3:], "--dry-run")
    assert dry.err.splitlines()[-1] == f"2 {sum_of} (dry run)", dry
    assert [call.request.validate_only for call in fake.calls_of(method)] == [False] * 3 + [True] * 2
    if yes:
        asked = await logged_in(*words, *names[:3])
        assert (asked.code, f"3 {'secrets of shop' if words[0] == 'secrets' else ''}" in asked.err) == (
            2,
            True,
        )
