"""`can-i`, `why`, `who-can` and `grants simulate`: the method for a verb and noun, the namespace, and the output."""

from __future__ import annotations

import json

import pytest

from pilothouse_client.commands import called_methods
from pilothouse_client.commands.failures import CommandError
from tests.client.command import Command
from tests.client.fake_server import FakeServer


async def test_can_i_uses_the_namespace_of_the_context(fake: FakeServer, logged_in: Command) -> None:
    """Without a namespace in the request, a user with the permission in only one namespace would read "no"."""
    for arguments, namespace in (
        (("container.get",), "shop"),
        (("container.get", "-n", "other"), "other"),
        (("container.get", "-A"), ""),
    ):
        assert (await logged_in("can-i", *arguments)).out == "yes\n"
        assert fake.calls_of("CheckPermission")[-1].request.namespace == namespace
    assert (await logged_in("can-i", "container.delete")).code == 1
    assert (await logged_in("can-i", "get", "container/web")).out == "yes\n"
    asked = fake.calls_of("ExplainPermission")[-1].request
    assert (asked.method, asked.namespace) == (
        "pilothouse.container.v1.ContainerService.GetContainer",
        "shop",
    )
    wrong = await logged_in("can-i", "container.get", "-A", "-n", "shop")
    assert (wrong.code, "exclude each other" in wrong.err) == (2, True)


@pytest.mark.parametrize(
    ("verb", "noun", "method"),
    [
        ("delete", "container", "DeleteContainer"),
        ("list", "containers", "ListContainers"),
        ("get", "container", "GetContainer"),
        ("logs", "container", "StreamLogs"),
        ("log", "containers", "StreamLogs"),
        ("exec", "container", "Exec"),
        ("run", "container", "RunContainer"),
        ("rm", "volume", "DeleteVolume"),
        ("update", "config", "UpdateConfigMap"),
        ("reveal", "secret", "RevealSecret"),
        ("create", "grant", "GrantRole"),
        ("delete", "grants", "RevokeRole"),
        ("create", "cluster", "RegisterCluster"),
        ("list", "audit", "ListOperations"),
        ("show", "namespace", "GetNamespace"),
        ("update", "user", "UpdateUser"),
        ("create", "audit-sink", "CreateAuditSink"),
        ("list", "history", "ListStatusHistory"),
        ("list", "usage", "ListTopContainers"),
    ],
)
def test_a_verb_and_a_noun_select_a_method(verb: str, noun: str, method: str) -> None:
    assert called_methods.find(verb, noun).name == method


def test_every_method_is_found_by_its_action_and_resource_type() -> None:
    methods = called_methods._methods()
    assert len(methods) > 80
    for method in methods:
        found = called_methods.find(method.action, method.resource_type)
        assert (found.action, found.resource_type) == (method.action, method.resource_type)


@pytest.mark.parametrize(
    ("verb", "noun", "words"),
    [
        ("delete", "contaner", "did you mean container"),
        ("delete", "zzz", "known: "),
        ("fly", "container", "known: copy, create, delete"),
    ],
)
def test_an_unknown_verb_or_noun_is_refused_with_suggestions(verb: str, noun: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        called_methods.find(verb, noun)


async def test_why_prints_considered_grants_and_who_can_grant(fake: FakeServer, logged_in: Command) -> None:
    denied = await logged_in("why", "delete", "container/web")
    assert denied.code == 1
    assert denied.lines == [
        "no: DeleteContainer is not allowed in shop",
        "ask chief, role developer or admin",
        "ROLE\tNAMESPACE\tWHY NOT",
        "developer\tone\telsewhere",
        "developer\ttwo\telsewhere",
    ]
    allowed = await logged_in("why", "get", "container/web", "-n", "other", "--user", "ann")
    assert (allowed.code, allowed.out) == (0, "yes: GetContainer is allowed in other\n")
    assert fake.calls_of("ExplainPermission")[-1].request.username == "ann"
    data = await logged_in("why", "container.delete", "-o", "json")
    assert (data.code, json.loads(data.out)["denial"]) == (1, "DENIAL_ELSEWHERE")


async def test_a_namespace_resource_is_its_own_namespace(fake: FakeServer, logged_in: Command) -> None:
    for arguments, namespace in (
        (("get", "namespace/other"), "other"),
        (("get", "namespace"), "shop"),
        (("create", "namespace/new"), ""),
        (("get", "user/ann"), ""),
    ):
        await logged_in("why", *arguments)
        assert fake.calls_of("ExplainPermission")[-1].request.namespace == namespace, arguments
    wrong = await logged_in("why", "get", "namespace/other", "-n", "shop")
    assert wrong.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("why", "delete"),
        ("why", "container.delete", "container/web"),
        ("why", "delete", "spaceship/one"),
        ("who-can", "get", "permission"),
        ("why", "delete", "container/web", "-A"),
        ("can-i", "delete"),
    ],
)
async def test_an_incomplete_question_is_a_wrong_command_line(
    logged_in: Command, arguments: tuple[str, ...]
) -> None:
    ended = await logged_in(*arguments)
    assert (ended.code, ended.out) == (2, "")


async def test_the_who_can_verb_reads_all_pages_and_reports_omissions(
    fake: FakeServer, logged_in: Command
) -> None:
    shown = await logged_in("who-can", "delete", "containers")
    assert len(shown.lines) == 61
    assert (
        shown.err == "others may have the permission by grants over all namespaces, which you may not read\n"
    )
    asked = fake.calls_of("ListPrincipals")[-1].request
    assert (asked.permission, asked.namespace) == ("container.delete", "shop")
    everywhere = await logged_in("who-can", "container.delete", "-A", "--limit", "2", "-o", "json")
    assert [each["username"] for each in json.loads(everywhere.out)] == ["user0", "user1"]
    assert everywhere.err == ""


async def test_a_grant_is_simulated(fake: FakeServer, logged_in: Command) -> None:
    shown = await logged_in("grants", "simulate", "ann", "developer", "-n", "shop", "--expires-in", "8h")
    assert shown.lines == [
        "granting ann gives 1 permission",
        "in shop:",
        "  gains container.stop",
        "  loses sooner container.get",
    ]
    assert "not counted" in shown.err
    assert fake.calls_of("SimulateGrant")[-1].request.HasField("expire_time")
    assert fake.calls_of("GrantRole") == []
