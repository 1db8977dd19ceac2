"""The form of a response: full objects, metadata only, or a table, depending on the Accept header.

All responses are JSON. A client that prefers protobuf or YAML and also accepts JSON gets JSON, as from a real server
that lacks an encoding; a client that does not accept JSON gets 406.

Metadata has two forms: `PartialObjectMetadata` for a single object and `PartialObjectMetadataList` for a list. As in
the real server (its `handlers/response.go`), negotiation accepts both for any request, and a mismatch is detected only
when an object is converted. A mismatch is a 406, for a write after the write is done. A watch has already sent 200 by
then, so it ends at its first event without an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from aiohttp import web

from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]
Form = Literal["object", "metadata", "metadata list", "table"]

NEW_EVENTS_VERSION = "events.k8s.io/v1"
_FORMS: dict[str, Form] = {
    "Table": "table",
    "PartialObjectMetadata": "metadata",
    "PartialObjectMetadataList": "metadata list",
}
_FORM_PARAMETERS = frozenset({"as", "g", "v"})


def parse_accept(header: str) -> list[tuple[str, dict[str, str]]]:
    """Returns the media types with their parameters, in the order of the header."""
    accepted = []
    for part in header.split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        if media_type:
            pairs = (parameter.partition("=") for parameter in parameters)
            accepted.append((media_type.lower(), {name.strip(): value.strip() for name, _, value in pairs}))
    return accepted


def negotiate(header: str | None) -> Form:
    """Returns the form of the response; raises 406 if no acceptable form can be served."""
    accepted = [
        parameters
        for media_type, parameters in parse_accept(header or "*/*")
        if media_type in ("application/json", "*/*", "application/*")
    ]
    if not accepted:
        raise api_errors.not_acceptable()
    for parameters in accepted:
        if not _FORM_PARAMETERS & parameters.keys():
            return "object"
        form = _FORMS.get(parameters.get("as", ""))
        if (
            form is not None
            and parameters.get("g") == "meta.k8s.io"
            and parameters.get("v") in ("v1", "v1beta1")
        ):
            return form
    raise api_errors.form_not_acceptable()


def json_response(body: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> web.Response:
    """Returns a response with a JSON body."""
    response = web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
    for name, value in headers:
        response.headers.add(name, value)
    return response


def metadata_only(obj: JsonObject) -> JsonObject:
    """Returns the PartialObjectMetadata of an object."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj.get("metadata", {}),
    }


def ordered(obj: JsonObject) -> JsonObject:
    """Returns the object with kind and apiVersion first, as people expect to read it."""
    return {"kind": obj["kind"], "apiVersion": obj["apiVersion"], **obj}


def list_item(obj: JsonObject) -> JsonObject:
    """Returns the object as an item of a list, without kind and apiVersion."""
    return {name: value for name, value in obj.items() if name not in ("kind", "apiVersion")}


def as_new_event(obj: JsonObject) -> JsonObject:
    """Returns a core event in the shape of events.k8s.io/v1, which has other names for the same fields."""
    names = {
        "involvedObject": "regarding",
        "message": "note",
        "source": "deprecatedSource",
        "firstTimestamp": "deprecatedFirstTimestamp",
        "lastTimestamp": "deprecatedLastTimestamp",
        "count": "deprecatedCount",
        "reportingComponent": "reportingController",
    }
    return {names.get(name, name): value for name, value in obj.items()}


@dataclass(frozen=True)
class Presenter:
    """Turns stored objects into the form that the client requested."""

    resource: ResourceType
    form: Form
    build_table: Callable[[ResourceType, list[JsonObject], bool], JsonObject]
    api_version: str

    def one(self, obj: JsonObject) -> JsonObject:
        """Returns a single object; raises 406 if a list was requested."""
        if self.form == "metadata list":
            raise api_errors.unfit_form("PartialObjectMetadataList", "not a list", self._type(""))
        if self.form == "metadata":
            return metadata_only(obj)
        if self.form == "table":
            table = self.build_table(self.resource, [obj], True)
            table["metadata"] = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return table
        return {**ordered(self._converted(obj)), "apiVersion": self.api_version}

    def _converted(self, obj: JsonObject) -> JsonObject:
        return as_new_event(obj) if self.api_version == NEW_EVENTS_VERSION else obj

    def _type(self, suffix: str) -> str:
        """Returns the name of the real server's Go type, which appears in its messages."""
        return f"*{self.resource.group.partition('.')[0] or 'core'}.{self.resource.kind}{suffix}"

    def many(self, objects: list[JsonObject], metadata: JsonObject) -> JsonObject:
        """Returns a list with its list metadata; raises 406 if a single object was requested."""
        if self.form == "metadata":
            raise api_errors.unfit_form("PartialObjectMetadata", "a list", self._type("List"))
        if self.form == "table":
            table = self.build_table(self.resource, objects, True)
            table["metadata"] = metadata
            return table
        if self.form == "metadata list":
            kind, version = "PartialObjectMetadataList", "meta.k8s.io/v1"
            items = [metadata_only(obj) for obj in objects]
        else:
            kind, version = self.resource.list_kind, self.api_version
            items = [list_item(self._converted(obj)) for obj in objects]
        return {"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}

    def event(self, kind: str, obj: JsonObject, *, first: bool) -> JsonObject:
        """Returns a watch event; only the first table of a stream names its columns."""
        if self.form == "table" and kind != "ERROR":
            table = self.build_table(self.resource, [obj] if kind != "BOOKMARK" else [], first)
            table["metadata"] = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            if kind == "BOOKMARK":
                table["rows"] = [{"cells": [], "object": metadata_only(obj)}]
            return {"type": kind, "object": table}
        if kind == "ERROR":
            return {"type": kind, "object": obj}
        return {"type": kind, "object": self.one(obj)}
