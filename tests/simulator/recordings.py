"""Reads the recordings of a real API server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]

RECORDINGS = Path(__file__).parents[1] / "recordings"
_NAMESPACE = re.compile(r"/namespaces/([^/]+)")


def load(name: str) -> JsonObject:
    """Returns a recording with its abbreviations expanded."""
    recording: JsonObject = json.loads((RECORDINGS / f"{name}.json").read_text())
    for exchange in recording["exchanges"]:
        # Later recordings omit empty parts.
        exchange["request"] = {"query": {}, "headers": {}, **exchange["request"]}
        exchange.setdefault("response", {}).setdefault("headers", {})
        specs: dict[str, Any] = {}
        for line in exchange.get("response", {}).get("lines", []):
            obj = line.get("json", {}).get("object", {})
            uid = obj.get("metadata", {}).get("uid")
            if uid and obj.get("spec") == "=previous":
                obj["spec"] = specs[uid]
            elif uid and "spec" in obj:
                specs[uid] = obj["spec"]
    return recording


def namespaces_of(recording: JsonObject) -> list[str]:
    """Returns the namespaces that a recording uses but does not create."""
    requests = [exchange["request"] for exchange in recording["exchanges"]]
    made = {
        (request.get("body") or {}).get("metadata", {}).get("name", "")
        for request in requests
        if request["method"] == "POST" and request["path"] == "/api/v1/namespaces"
    }
    used: list[str] = []
    for request in requests:
        match = _NAMESPACE.search(request.get("path", ""))
        if match and match[1].startswith("rec-") and match[1] not in (*made, *used, "rec-none"):
            used.append(match[1])
    return used
