"""The recordings of a real API server, read into the adapter's structs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from pilothouse_server.kubernetes.objects import EventObject, Pod

FOLDER = Path(__file__).parent.parent / "recordings"


@cache
def exchanges(name: str) -> list[dict[str, Any]]:
    """Returns the exchanges of a recording, with abbreviated watch lines expanded."""
    recording = json.loads((FOLDER / f"{name}.json").read_text())
    for exchange in recording["exchanges"]:
        specs: dict[str, Any] = {}
        for line in exchange.get("response", {}).get("lines") or []:
            thing = line.get("json", {}).get("object", {})
            uid = thing.get("metadata", {}).get("uid", "")
            if thing.get("spec") == "=previous":
                thing["spec"] = specs[uid]
            specs[uid] = thing.get("spec")
    return list(recording["exchanges"])


def answers(name: str) -> Iterator[tuple[str, int, bytes]]:
    """Yields (note, status, body) of every response with a body."""
    for exchange in exchanges(name):
        response = exchange.get("response", {})
        if "status" in response and ("body" in response or "text" in response):
            body = json.dumps(response["body"]) if "body" in response else response["text"]
            yield exchange.get("note", ""), response["status"], body.encode()


def watched(name: str, kind: str) -> list[dict[str, Any]]:
    """Returns the objects of a kind in the recording's watches, in order."""
    return [
        line["json"]["object"]
        for exchange in exchanges(name)
        for line in exchange.get("response", {}).get("lines") or []
        if "json" in line
        and line["json"]["object"].get("kind") == kind
        and line["json"]["type"] in ("ADDED", "MODIFIED")
    ]


def pods(name: str) -> list[Pod]:
    """Returns every state of the recording's pods, in order."""
    return [msgspec.convert(thing, Pod) for thing in watched(name, "Pod")]


def events(name: str) -> list[EventObject]:
    """Returns the events of the recording."""
    return [msgspec.convert(thing, EventObject) for thing in watched(name, "Event")]
