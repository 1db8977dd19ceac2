"""How a command line is parsed: suggestions, errors for programs, and global options after the verb."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from pilothouse.container.v1 import container_pb2
from pilothouse.object.v1 import object_pb2
from pilothouse_client.commands import completion
from tests.client.command import Command
from tests.client.fake_server import FakeServer


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        (["po"], "containers"),
        (["deploy"], "containers"),
        (["svc"], "services"),
        (["cm"], "configs"),
        (["contaners"], "containers"),
        (["get", "pods"], "containers list"),
        (["get", "deploy", "web"], "containers get"),
        (["get", "svc"], "services list"),
        (["logs", "web"], "containers logs"),
        (["containers", "rm", "web"], "delete"),
        (["containers", "ls"], "list"),
        (["containers", "scalle", "web", "2"], "scale"),
    ],
)
async def test_a_word_of_another_tool_suggests_a_pilothouse_command(
    pilothouse: Command, line: list[str], meant: str
) -> None:
    ended = await pilothouse(*line)
    assert ended.code == 2
    assert "Did you mean" in ended.err
    assert meant in ended.err


async def test_an_unknown_word_is_refused_with_the_known_ones(pilothouse: Command) -> None:
    assert "Known: head, " in (await pilothouse("audit", "xyzzy")).err


async def test_errors_for_programs(
    fake: FakeServer, logged_in: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One JSON object per line, with the option in any position or with the variable; also for parse errors."""
    for line in (
        ["--json-errors", "containers", "get", "nobody"],
        ["containers", "get", "nobody", "--json-errors"],
    ):
        ended = await logged_in(*line)
        error = json.loads(ended.err)
        assert (ended.code, error["exit_code"], error["code"]) == (6, 6, "NOT_FOUND")
        assert {"reason", "message", "violations", "fix", "operation_id"} <= set(error)
    monkeypatch.setenv("PILOTHOUSE_JSON_ERRORS", "1")
    wrong = json.loads((await logged_in("containers", "list", "--limit", "many")).err)
    assert wrong["reason"] == "WRONG_COMMAND_LINE"
    assert "'many' is not a valid whole number" in wrong["message"]
    assert [(each["field"], each["rule"]) for each in wrong["violations"]] == [("--limit", "WRONG_VALUE")]
    assert wrong["fix"] == [
        "usage: pilothouse containers list [OPTIONS]",
        "pilothouse containers list --help shows all options",
    ]


async def test_a_field_violation_is_reported_to_programs(fake: FakeServer, logged_in: Command) -> None:
    """The text names the fault once; programs also find its field in `violations`."""
    said = []
    for more in ([], ["--json-errors"]):
        fake.fail(
            "CreateContainer",
            grpc.StatusCode.INVALID_ARGUMENT,
            reason="INVALID_FIELD",
            message="container.name: must be a label",
            violations=[("container.name", "must be a label")],
        )
        said.append((await logged_in("containers", "create", "web", "--image", "nginx", *more)).err)
    assert said[0] == "error: container.name: must be a label [INVALID_FIELD]\n"
    error = json.loads(said[1])
    assert [(each["field"], each["message"]) for each in error["violations"]] == [
        ("container.name", "must be a label")
    ]
    assert error["fix"] == ["container.name: must be a label"]


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (("containers", "create", "web", "--image", "nginx", "--label", "x"), "--label"),
        (("containers", "create", "web", "--image", "nginx", "--no-such"), "--no-such"),
        (("secrets", "get"), "name"),
        (("users", "create", "eve"), "--email"),
        (("containers", "list", "-n", "shop", "-A"), "-A"),
    ],
)
async def test_a_parse_error_names_its_option_for_programs(
    logged_in: Command, line: tuple[str, ...], field: str
) -> None:
    error = json.loads((await logged_in(*line, "--json-errors")).err)
    assert error["reason"] == "WRONG_COMMAND_LINE"
    assert field in [each["field"] for each in error["violations"]]
    assert all(each["rule"] and each["message"] for each in error["violations"])
    assert error["fix"]


async def test_a_missing_required_argument_is_refused(logged_in: Command) -> None:
    ended = await logged_in("containers", "get")
    assert (ended.code, ended.err.splitlines()) == (
        2,
        [
            "error: missing argument 'NAME'.",
            "  usage: pilothouse containers get [OPTIONS] NAME",
            "  pilothouse containers get --help shows all options",
        ],
    )


async def test_a_global_option_after_the_verb_is_reported(logged_in: Command) -> None:
    for option in ("--server", "--token", "--timeout"):
        ended = await logged_in("containers", "list", option, "1")
        assert f"  put {option} before the verb: pilothouse {option} …" in ended.err.splitlines()
    assert "before the verb" not in (await logged_in("containers", "list", "--frob")).err


async def test_wrong_command_lines_are_refused_with_fault_and_rule(logged_in: Command) -> None:
    """The message states the fault and the rule, in lower case; programs get a constant reason."""
    for line, code, reason, begins in (
        (
            "containers list --namspace shop",
            2,
            "WRONG_COMMAND_LINE",
            "no such option '--namspace'. (Did you mean",
        ),
        ("version", 2, "WRONG_COMMAND_LINE", "no such command 'version'. Did you mean pilothouse --version?"),
        ("status", 2, "WRONG_COMMAND_LINE", "no such command 'status'. Did you mean containers list?"),
        ("get all", 2, "WRONG_COMMAND_LINE", "no such command 'get'. Did you mean containers list?"),
        ("containers lst", 2, "WRONG_COMMAND_LINE", "no such command 'lst'. Did you mean list or set?"),
        (
            "rollout restart web",
            2,
            "WRONG_COMMAND_LINE",
            "no such command 'restart'. Did you mean containers restart?",
        ),
        (
            "containers list -o jsonpath=",
            2,
            "WRONG_COMMAND_LINE",
            "invalid value for '-o' / '--output': jsonpath takes",
        ),
        (
            "containers scale web many",
            2,
            "WRONG_COMMAND_LINE",
            "REPLICAS, the last argument, is a number of pods, not",
        ),
        ("objects describe frob x", 2, "WRONG_COMMAND_LINE", "KIND frob: give gateway, "),
        ("describe frob x", 2, "WRONG_COMMAND_LINE", "there is no noun 'frob': give one of containers, "),
        (
            "port-forward web 99999:80",
            2,
            "WRONG_COMMAND_LINE",
            "a port is PORT, LOCAL:PORT or :PORT, with numbers",
        ),
        ("audit sinks describe nope", 6, "NOT_FOUND", "there is no audit sink 'nope'"),
        ("--server nowhere:1 containers list", 4, "NOT_LOGGED_IN", "not logged in to nowhere:1; use: "),
    ):
        ended = await logged_in(*line.split())
        assert (ended.code, ended.err.startswith(f"error: {begins}")) == (code, True), (line, ended.err)
        error = json.loads((await logged_in("--json-errors", *line.split())).err)
        assert (error["reason"], error["message"].startswith(begins)) == (reason, True), (line, error)
        assert all(field["message"].count(field["field"]) < 2 for field in error["violations"])


@pytest.mark.parametrize("verb", ["diff", "delete"])
async def test_refused_files_are_reported_as_json_errors(
    logged_in: Command, tmp_path: Path, verb: str
) -> None:
    (tmp_path / "web.yaml").write_text("a: b: c\n")
    ended = await logged_in(verb, "-f", str(tmp_path / "web.yaml"), "--json-errors")
    error = json.loads(ended.err)
    assert (ended.code, error["reason"], error["exit_code"]) == (3, "MANIFESTS_REFUSED", 3)
    [violation] = error["violations"]
    assert "web.yaml:1" in violation["field"]
    assert (violation["rule"], bool(violation["message"]), len(error["fix"])) == ("INVALID_DOCUMENT", True, 1)


async def test_a_context_after_the_verb(logged_in: Command) -> None:
    ended = await logged_in("containers", "list", "--context", "nobody")
    assert ended.code == 2
    assert "there is no context 'nobody'" in ended.err


@pytest.mark.parametrize("shell", completion.SHELLS)
async def test_completion_scripts(pilothouse: Command, shell: str) -> None:
    ended = await pilothouse("completion", shell)
    assert ended.code == 0
    assert "_PILOTHOUSE_COMPLETE" in ended.out


def test_a_common_command_imports_little_and_collects_no_garbage(tmp_path: Path) -> None:
    """The call uses a key and a port without a listener. The baseline of benchmark row 17 imports the same."""
    words = ["pilothouse", "--server", "127.0.0.1:1", "--token", "phk_a", "--timeout", "0.001"]
    script = (
        f"import gc, sys; sys.argv = {words!r} + ['containers', 'get', 'web', '-n', 'shop']\n"
        "from pilothouse_client.__main__ import main\n"
        "before = gc.get_stats()[2]['collections']\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 9, end.code\n"
        "unwanted = {'pydantic', 'rich', 'yaml', 'importlib.metadata', 'tempfile'}\n"
        "unwanted.add('pilothouse.identity.v1.identity_pb2')\n"
        "unwanted |= {'pilothouse_client.commands.' + each for each in ('container_spec', 'json_paths')}\n"
        "print(sorted(unwanted & set(sys.modules)), gc.get_stats()[2]['collections'] - before)\n"
        "print(gc.get_freeze_count() > 10_000)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={"PILOTHOUSE_CONFIG": str(tmp_path / "config.json")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.splitlines() == ["[] 0", "True"]


async def test_completion_of_names_values_and_enums(
    fake: FakeServer, logged_in: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names come from the server of the context, and from the namespace on the line."""
    for namespace, name in (("shop", "web"), ("shop", "worker"), ("test", "probe")):
        await fake.commit(
            "container", (namespace, name), container_pb2.Container(namespace=namespace, name=name)
        )

    async def completed(line: str) -> list[str]:
        words = line.split(" ")
        variables = {
            "_PILOTHOUSE_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(name, value)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pilothouse_client", stdout=subprocess.PIPE
            )
            out, _ = await process.communicate()
        return [each.partition(",")[2] for each in out.decode().splitlines() if each]

    assert await completed("pilothouse containers get w") == ["web", "worker"]
    assert await completed("pilothouse containers get -n test ") == ["probe"]
    assert await completed("pilothouse --context nobody containers get ") == []
    assert await completed("pilothouse containers delete web ") == ["worker"]
    assert await completed("pilothouse describe po wo") == ["worker"]
    assert await completed("pilothouse wait -n test container ") == ["probe"]
    await fake.commit("object", ("shop", "front"), object_pb2.Object(namespace="shop", name="front"))
    assert await completed("pilothouse objects delete ingress ") == ["front"]
    assert fake.calls_of("ListObjects")[-1].request.filter.startswith('kind = "Ingress" AND')
    assert await completed("pilothouse describe ing") == ["ingress"]
    assert await completed("pilothouse containers list --status c") == ["crash_loop_back_off"]
    assert "custom-columns=" in await completed("pilothouse containers list -o c")
    assert await completed("pilothouse contain") == ["containers"]
    assert (await completed("pilothouse containers list --context ad"))[0].startswith("admin@")


async def test_the_namespace_variable_is_only_a_default(
    fake: FakeServer, logged_in: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/ci.md tells every user to set the variable, so it must not conflict with -A."""
    monkeypatch.setenv("PILOTHOUSE_NAMESPACE", "shop")
    assert (await logged_in("containers", "list", "-A")).code == 0
    assert fake.calls_of("ListContainers")[-1].request.namespace == ""
    assert (await logged_in("containers", "list", "-A", "-n", "shop")).code == 2
    for words, call in (
        (("grants", "list"), "ListRoleGrants"),
        (("audit", "list"), "ListOperations"),
        (("audit", "verify"), "VerifyAuditLog"),
    ):
        for more, namespace in (((), "shop"), (("-A",), "")):
            await logged_in(*words, *more)
            assert fake.calls_of(call)[-1].request.namespace == namespace, (words, more)
    create = ("service-accounts", "create", "nightly", "--platform")
    assert (await logged_in(*create)).code == 0
    assert fake.calls_of("CreateServiceAccount")[-1].request.namespace == ""
    assert (await logged_in(*create, "-n", "shop")).code == 2


async def test_objects_are_listed_by_kind(fake: FakeServer, logged_in: Command) -> None:
    await logged_in("objects", "list", "ing", "--filter", "name = a OR name = b", "--status", "active")
    assert fake.calls_of("ListObjects")[-1].request.filter == (
        '((name = a OR name = b) AND status = ACTIVE) AND kind = "Ingress" AND api_version = "networking.k8s.io/v1"'
    )
    await logged_in("objects", "list")
    assert fake.calls_of("ListObjects")[-1].request.filter == ""
    assert (await logged_in("objects", "list", "frob")).code == 2
