"""The lines about a change: `menu: image 2.53 -> 2.99`."""

from __future__ import annotations

import json
from typing import Any

from pilothouse_client.commands.options import dry_run
from pilothouse_client.commands.terminal import say, say_prose


def change_value(text: str) -> str:
    """Returns a value as people write it, without JSON's quotes and braces; `none` for an empty value."""
    if not text:
        return "none"
    try:
        value = json.loads(text)
    except ValueError:
        # The server has cut a long value, so it is no longer JSON.
        return text
    return _in_words(value) or text


def _in_words(value: Any) -> str:
    """Returns a value of JSON in words: `LOG=debug, TIER=web` for variables and for labels."""
    if isinstance(value, list):
        is_of_several = any(isinstance(each, dict) and "value" not in each for each in value)
        return ("; " if is_of_several else ", ").join(map(_in_words, value))
    if isinstance(value, dict):
        if "value" in value and "name" in value:
            return f"{value['name']}={value['value']}"
        return ", ".join(
            f"{key}=({_in_words(each)})" if isinstance(each, dict) else f"{key}={_in_words(each)}"
            for key, each in value.items()
        )
    return value if isinstance(value, str) else json.dumps(value)


def change_words(change: Any) -> str:
    """Returns a difference in words."""
    return f"{change.path} {change_value(change.before)} -> {change_value(change.after)}"


def _in_short(change: Any) -> str:
    """Returns a difference in words; if an image stays in its repository, only the tags."""
    if change.path == "image":
        before, after = change_value(change.before), change_value(change.after)
        repository, mark, tag = after.rpartition("@" if "@" in after else ":")
        if mark and "/" not in tag and before.startswith(f"{repository}{mark}"):
            return f"image {before.removeprefix(repository + mark)} -> {tag}"
    return change_words(change)


def report_changes(answer: Any, name: str, *, waits: bool) -> None:
    """Writes, for people, the differences that an update or a rollback has made, and whether pods are replaced.

    `waits`: the command itself waits for the rollout.
    """
    for change in answer.changes:
        say_prose(f"{name}: {_in_short(change)}")
    # A server before 0.3 returns no changes, but a changed container is reconciling.
    if not answer.changes and not answer.container.reconciling:
        say(f"{name}: nothing differs", err=True)
    if answer.rolls_out and dry_run.get():
        say(f"{name}: would roll out", err=True)
    elif answer.rolls_out:
        follow = "" if waits else f"; to follow it: pilothouse rollout status {name}"
        say(f"{name}: rolls out{follow}", err=True)
