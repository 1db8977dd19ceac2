"""No response of a server lets it control the terminal or ends a verb in a traceback."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from pilothouse_client import cli
from pilothouse_client.commands import verbs
from tests.client.command import Command
from tests.client.hostile_server import OBEYED, WORDS, hostile_server
from tests.waiting import patient

# The verbs of the server's own command that call a server.
_OF_THE_SERVER = ("database stats", "keys rotate")
# These wait for a browser, a person or a connection, or need responses that match each other. `contexts` makes no call.
_NOT_TRIED = (
    "apply",
    "containers port-forward",
    "port-forward",
    "audit export",
    "keys rotate",
    "login",
    "logout",
    "passwd",
    "token exchange",
    "contexts",
)
# These verbs write a container's output unchanged.
_AS_IT_IS = ("containers logs", "containers exec")
_FILES = ("file", "folder")
_GIVEN = {
    "file": "written",
    "folder": "tiles",
    "verb": "container.get",
    "source": "shop:/a",
    "target": "written",
    "--kind": "http",
    "--address": "https://example.org",
    "--email": "ada@example.org",
    "image": "nginx:1.27",
    "kind": "ingress",
    "replicas": "2",
    "shell": "bash",
    "noun": "container",
    "variables": "A=1",
}


# Arguments that a verb needs in addition to those that its parser requires.
_MORE = {
    "applications create": ["--from-containers"],
    "clusters register": ["--in-cluster"],
    "clusters update": ["--display-name", "shop"],
    "configs update": ["--from-literal", "a=b"],
    "containers create": ["--image", "nginx:1.27"],
    "namespaces update": ["--display-name", "shop"],
    "objects update": ["--protected"],
    "roles update": ["--display-name", "shop"],
    "secrets update": ["--remove", "a"],
    "containers scale": ["2"],
    "containers set resources": ["--limits", "cpu=1"],
    "services create": ["--container", "web"],
    "services update": ["--label", "a=b"],
    "totp confirm": ["--code", "123456"],
    "totp disable": ["--code", "123456", "--password-stdin"],
    "rollout status": ["--wait-timeout", "0.3"],
    "users create": ["--password-stdin"],
    "users reset-password": ["--password-stdin"],
    "users update": ["--full-name", "Ada"],
    "volumes update": ["--label", "a=b"],
    "wait": ["--for", "running", "--wait-timeout", "0.3"],
}


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yields every verb below a command, with its words."""
    if isinstance(command, verbs.UnloadedVerb):
        command = command.load()
    if isinstance(command, verbs.VerbGroup):
        context = verbs.Context(command)
        for name in command.list_commands(context):
            yield from leaves(command.get_command(context, name), (*words, name))
    else:
        yield " ".join(words), command


def _verbs() -> dict[str, Any]:
    found = dict(leaves(cli.app))
    return {
        words: verb
        for words, verb in found.items()
        if (words.split()[0] in cli.VERBS or words in _OF_THE_SERVER) and not words.startswith(_NOT_TRIED)
    }


VERBS = _verbs()


def command_line(words: str, verb: Any, folder: Path) -> list[str]:
    """Returns a command line that the verb accepts, with every required argument and option."""
    line = words.split()
    for each in verb.get_params(verbs.Context(verb)):
        name = each.opts[0]
        if chosen := {"--yes", "--once"} & set(each.opts):
            line += chosen
        elif each.required or (not name.startswith("-") and each.nargs == -1):
            value = str(folder / _GIVEN.get(name, "")) if each.name in _FILES else _GIVEN.get(name, "shop")
            line += [name, value] if name.startswith("-") else [value]
    return line + _MORE.get(words, [])


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def address() -> AsyncIterator[str]:
    async with hostile_server() as made:
        yield made


@pytest.mark.parametrize("words", sorted(VERBS))
@pytest.mark.asyncio(loop_scope="module")
async def test_no_verb_writes_terminal_control_characters(
    address: str, words: str, pilothouse: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILOTHOUSE_SERVER", address)
    monkeypatch.setenv("PILOTHOUSE_TOKEN", "token")
    monkeypatch.setenv("PILOTHOUSE_NAMESPACE", "shop")
    monkeypatch.setenv("PILOTHOUSE_INSECURE", "true")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given.yaml").write_text(
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {a: b}\n"
    )
    line = command_line(words, VERBS[words], tmp_path)
    has_forms = any(each.name == "output" for each in VERBS[words].params)
    for form in ((), ("-o", "json"), ("-o", "yaml")) if has_forms else ((),):
        ended = await asyncio.wait_for(
            pilothouse("--timeout", "5", *line, *form, stdin="shop\n"), patient(30)
        )
        assert ended.code != 2, f"{line}: {ended.err}"
        written = ended.err if words in _AS_IT_IS else ended.out + ended.err
        assert not [each for each in OBEYED if each in written], f"{line}: {written!r}"


@pytest.mark.parametrize("form", [(), ("-o", "json"), ("-o", "yaml")])
async def test_a_stored_name_is_listed_without_terminal_control_characters(
    form: tuple[str, ...], pilothouse: Command, tmp_path: Path
) -> None:
    contexts = {WORDS: {"server": "localhost:1", "username": WORDS, "namespace": WORDS}}
    (tmp_path / "config.json").write_text(json.dumps({"current": WORDS, "contexts": contexts}))
    (tmp_path / "config.json").chmod(0o600)
    listed = await pilothouse("contexts", "list", *form)
    assert "localhost:1" in listed.out
    assert not [each for each in OBEYED if each in listed.out + listed.err], repr(listed.out)


def test_the_checker_detects_unescaped_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    """Checks the checker of the tests above."""
    sys.stdout.write(WORDS)
    written = capsys.readouterr().out
    assert [each for each in OBEYED if each in written] == list(OBEYED)
