"""The configuration file: private, never half-written, and locked during a change."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilothouse_client import Tokens
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.invocation import Invocation, selected
from pilothouse_client.config_file import (
    ConfigError,
    ConfigFile,
    Configuration,
    Context,
    FileTokenStore,
    default_path,
)


def test_the_path_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path({"PILOTHOUSE_CONFIG": "/x/y.json", "XDG_CONFIG_HOME": "/z"}) == Path("/x/y.json")
    assert default_path({"XDG_CONFIG_HOME": "/z"}) == Path("/z/pilothouse/config.json")
    assert default_path({"XDG_CONFIG_HOME": "relative"}) == tmp_path / ".config/pilothouse/config.json"
    assert default_path({}) == tmp_path / ".config/pilothouse/config.json"


def test_the_file_is_private_and_leaves_no_temporary_files(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "folder" / "config.json")
    assert file.read() == Configuration()
    file.change(
        lambda configuration: configuration.with_context("a", Context("h:1", tokens={"access_token": "s"}))
    )
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    assert sorted(each.name for each in file.path.parent.iterdir()) == ["config.json", "config.json.lock"]
    # A file whose mode was widened is private again after the next change.
    file.path.chmod(0o644)
    file.change(lambda configuration: configuration)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert "access_token" not in repr(file.read())


def test_a_failed_change_leaves_the_file_unchanged(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.change(lambda configuration: configuration.with_context("a", Context("h:1")))
    before = file.path.read_bytes()

    def fail(configuration: Configuration) -> Configuration:
        raise CommandError("no")

    with pytest.raises(CommandError):
        file.change(fail)
    with pytest.raises(TypeError):  # a value that JSON cannot represent
        file.change(
            lambda configuration: configuration.with_context("b", Context("h:1", tokens={"a": object()}))
        )
    assert file.path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["config.json", "config.json.lock"]


def test_no_concurrent_change_is_lost(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    ready = threading.Barrier(8)

    def add(number: int) -> None:
        ready.wait(10)
        file.change(
            lambda configuration: configuration.with_context(f"c{number}", Context(f"h:{number + 1}"))
        )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert set(file.read().contexts) == {f"c{number}" for number in range(8)}


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"contexts": {"a": {}}}', '{"contexts": {"a": {"other": 1}}}', "\xff"]
)
def test_an_unreadable_file_is_reported_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        ConfigFile(path).read()


def test_a_token_store_saves_the_tokens_of_its_context(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    store = FileTokenStore(file, "a")
    tokens = Tokens("access", 2.0, "refresh", 3.0, 1.0)
    store.save(tokens)  # there is no such context, so nothing is created
    assert store.load() is None
    file.change(lambda configuration: configuration.with_context("a", Context("h:1", username="ann")))
    with store.exclusive():
        store.save(tokens)
    assert store.load() == tokens
    assert file.read().contexts["a"].username == "ann"
    store.save(None)
    assert store.load() is None
    data = json.loads(file.path.read_text())
    data["contexts"]["a"]["tokens"] = {"unknown": 1}
    file.path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="log in again"):
        store.load()


def test_a_context_is_selected_by_name_server_or_default() -> None:
    first, second = Context("a:1"), Context("b:1")
    both = Configuration().with_context("one", first).with_context("two", second)
    assert selected(both, Invocation()) == ("one", first)
    assert selected(both, Invocation(context="two")) == ("two", second)
    assert selected(both, Invocation(server="b:1")) == ("two", second)
    assert selected(both, Invocation(server="c:1")) == ("", None)
    assert selected(both.without_context("one"), Invocation()) == ("", None)
    with pytest.raises(CommandError, match="known: one, two"):
        selected(both, Invocation(context="three"))
    with pytest.raises(CommandError, match="another server"):
        selected(both, Invocation(context="one", server="b:1"))


@pytest.mark.parametrize(
    "known_by", [{"tokens": {"access_token": "t"}}, {"client_certificate_file": "/me.pem"}]
)
def test_a_logged_in_context_of_the_server_is_preferred(known_by: dict[str, Any]) -> None:
    out, logged_in = Context("b:1", "ann"), Context("b:1", "joe", **known_by)
    several = Configuration().with_context("one", Context("a:1", tokens={"access_token": "t"}))
    several = several.with_context("two", out)
    assert selected(several, Invocation(server="b:1")) == ("two", out)
    several = several.with_context("three", logged_in)
    assert selected(several, Invocation(server="b:1")) == ("three", logged_in)
    # A context that the user has chosen is kept.
    assert selected(replace(several, current="two"), Invocation(server="b:1")) == ("two", out)
