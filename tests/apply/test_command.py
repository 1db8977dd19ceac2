"""The command line of `pilothouse apply`: arguments, streams and exit codes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.apply.conftest import KEY, Settle
from tests.client.fake_server import FakeServer
from tests.translator.manifests import NAMESPACE, SERVICE, WEB, web

from pilothouse.container.v1 import container_pb2 as pb
from pilothouse.resource.v1 import resource_pb2
from pilothouse_client.cli import app


@pytest.fixture(autouse=True)
def no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("PILOTHOUSE_SERVER", "PILOTHOUSE_TOKEN", "PILOTHOUSE_CONTEXT", "PILOTHOUSE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)


async def pilothouse(fake: FakeServer, *arguments: str, standard_input: str = "") -> Result:
    options = ["--server", fake.address, "--token", KEY, "--insecure", "apply", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, options, input=standard_input)


async def test_files_by_option_and_by_argument(fake: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(WEB)
    (tmp_path / "service.yaml").write_text(SERVICE)
    files = [str(tmp_path / "web.yaml"), str(tmp_path / "service.yaml")]
    result = await pilothouse(fake, "-f", *files, "--namespace", NAMESPACE)
    # Log lines of other tests in this process may stand before it.
    assert result.exit_code == 0
    assert result.stdout.endswith("service/web created\ncontainer/web created\n2 created\n")
    result = await pilothouse(fake, "-f", str(tmp_path), "-n", NAMESPACE, "--dry-run")
    assert result.stdout == (
        "service/web unchanged (dry run)\ncontainer/web unchanged (dry run)\n"
        "2 unchanged (dry run: nothing was changed)\n"
    )


async def test_standard_input_and_refusal(fake: FakeServer) -> None:
    result = await pilothouse(fake, "-f", "-", "-n", NAMESPACE, standard_input="a: b: c\n")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("stdin:1:5: expected the end of the value, found ':'")


async def test_waiting_in_vain_has_an_exit_code_of_its_own(fake: FakeServer) -> None:
    arguments = ("-f", "-", "-n", NAMESPACE, "--wait", "--wait-timeout", "0.3")
    result = await pilothouse(fake, *arguments, standard_input=WEB)
    assert result.exit_code == 10
    assert result.stderr.splitlines()[0] == "not all containers were running after 0.3 seconds:"


async def test_words_of_a_cluster_do_not_steer_the_terminal(fake: FakeServer, settle: Settle) -> None:
    assert (await pilothouse(fake, "-f", "-", "-n", NAMESPACE, standard_input=WEB)).exit_code == 0
    given_up = resource_pb2.Condition(
        type="RolledOut", status=resource_pb2.CONDITION_STATUS_FALSE, reason="ProgressDeadlineExceeded"
    )
    await settle(
        status=pb.CONTAINER_STATUS_FAILED, message="\x1b]0;title\x07 \x9b2J\n\u202eend", conditions=[given_up]
    )
    result = await pilothouse(fake, "-f", "-", "-n", NAMESPACE, "--wait", standard_input=WEB)
    assert result.exit_code == 10
    for told in (result.stdout, result.stderr):
        assert " ]0;title   2J\n end\n" in told
        assert [each for each in told if not each.isprintable() and each != "\n"] == []


async def test_errors_of_the_server_and_of_the_command_line(fake: FakeServer) -> None:
    assert (await pilothouse(fake, "-n", NAMESPACE)).exit_code == 2
    assert (await pilothouse(fake, "-f", "-", standard_input=WEB)).exit_code == 2
    assert (await pilothouse(fake, "-f", "-", "-n", "nowhere", standard_input=WEB)).exit_code == 6


async def test_skipping(fake: FakeServer) -> None:
    text = web("paused: true")
    refused = await pilothouse(fake, "-f", "-", "-n", NAMESPACE, standard_input=text)
    assert refused.exit_code == 3
    assert "stdin:7: deployment/web: spec.paused: cannot be represented" in refused.stderr
    skipped = await pilothouse(
        fake, "-f", "-", "-n", NAMESPACE, "--skip-unsupported=security", standard_input=text
    )
    assert skipped.exit_code == 11
    assert skipped.stderr.startswith("left out: stdin:7: deployment/web: ")
