"""The command line of `pilothouse apply`: arguments, streams and exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytest_asyncio
from tests.applications.conftest import Place, place, shared_server
from tests.client.command import Command, command_of_administrator
from tests.translator.manifests import SERVICE, WEB, web

from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.kustomized import kustomized

__all__ = ["place", "shared_server"]


@pytest_asyncio.fixture(loop_scope="session")
async def apply(place: Place, tmp_path: Path) -> Command:
    return command_of_administrator(place.server, place.name, tmp_path)


async def test_files_by_option_and_by_argument(apply: Command, tmp_path: Path) -> None:
    (tmp_path / "yaml").mkdir()
    files = [tmp_path / "yaml" / name for name in ("web.yaml", "service.yaml")]
    for file, text in zip(files, (WEB, SERVICE), strict=True):
        file.write_text(text)
    done = await apply("apply", "-f", *map(str, files))
    assert (done.code, done.out) == (0, "service/web created\ncontainer/web created\n2 created\n")
    tried = await apply("apply", "-f", str(tmp_path / "yaml"), "--dry-run")
    assert tried.out == (
        "service/web unchanged (dry run)\ncontainer/web unchanged (dry run)\n"
        "2 unchanged (dry run: nothing was changed)\n"
    )


async def test_each_way_to_end_has_its_exit_code(apply: Command) -> None:
    async def code(*options: str, text: str = WEB) -> int:
        return (await apply("apply", *options, stdin=text.encode())).code

    assert await code() == 2
    assert await code("-f", "-", "--prune") == 2
    assert await code("-f", "-", "-k", "folder") == 2
    assert await code("-f", "-", "-n", "nowhere") == 6
    assert await code("-f", "-", text="a: b: c\n") == 3
    assert await code("-f", "-", text=web("paused: true")) == 3
    assert await code("-f", "-", "--skip-unsupported=security", text=web("paused: true")) == 11
    assert await code("-f", "-", "--wait", "--stable-for", "600", "--wait-timeout", "0.3") == 10


async def test_the_output_of_kustomize_is_applied(apply: Command, tmp_path: Path) -> None:
    folder = tmp_path / "overlay"
    folder.mkdir()
    (folder / "web.yaml").write_text(WEB)
    (folder / "kustomization.yaml").write_text("resources: [web.yaml]\nnamePrefix: blue-\n")
    done = await apply("apply", "-k", str(folder))
    assert (done.code, done.out) == (0, "container/blue-web created\n1 created\n"), done


def test_without_kustomize_a_sentence_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommandError, match="there is no such folder"):
        kustomized(str(tmp_path / "nowhere"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandError, match="needs kustomize or kubectl in the PATH"):
        kustomized(str(tmp_path))
    program = tmp_path / "kustomize"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.exit('no kustomization.yaml in ' + sys.argv[2])\n"
    )
    program.chmod(0o755)
    with pytest.raises(CommandError, match="no kustomization"):
        kustomized(str(tmp_path))
