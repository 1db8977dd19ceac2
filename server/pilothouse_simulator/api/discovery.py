"""Discovery: versions, groups and resources, in the classic and the aggregated form.

All documents follow from the resource registry. The aggregated form has its own media type and an ETag; a client
that sends the ETag again gets 304.
"""

from __future__ import annotations

import hashlib
from typing import Any

import orjson
from aiohttp import web

from pilothouse_simulator.api.representation import json_response, parse_accept
from pilothouse_simulator.values.resources import (
    EVENTS,
    EVENTS_GROUP_ALIAS,
    GROUP_VERSIONS,
    REGISTRY,
    ResourceType,
    Subresource,
)

JsonObject = dict[str, Any]

AGGREGATED_TYPE = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
VERSION: JsonObject = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "98b35193b2ac7a23a673325f5e9b830ecd5ba406",
    "gitTreeState": "clean",
    "buildDate": "2026-07-23T00:00:00Z",
    "goVersion": "go1.26.4",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def resources_of(group: str) -> list[ResourceType]:
    """The resource types of a group, by name; events appear in two groups."""
    if group == EVENTS_GROUP_ALIAS[0]:
        return [EVENTS]
    return sorted((entry for entry in REGISTRY if entry.group == group), key=lambda entry: entry.plural)


def version_of(group: str) -> str:
    """The version of a group; empty where the server has none."""
    return "v1" if not group else GROUP_VERSIONS.get(group, "")


def has_group_version(group: str, version: str) -> bool:
    """Whether the server has this group in this version."""
    return version == version_of(group)


def has_group(group: str) -> bool:
    """Whether the server has this named group."""
    return group in GROUP_VERSIONS


def _group(name: str) -> JsonObject:
    version = {"groupVersion": f"{name}/{version_of(name)}", "version": version_of(name)}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _verbs(group_name: str, resource: ResourceType) -> list[str]:
    """Events can be read and deleted at their second address, not written."""
    written = ("create", "patch", "update")
    second = group_name == EVENTS_GROUP_ALIAS[0]
    return [verb for verb in resource.verbs if not (second and verb in written)]


def api_versions(address: str) -> JsonObject:
    """GET /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list() -> JsonObject:
    """GET /apis."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in GROUP_VERSIONS]}


def group(name: str) -> JsonObject:
    """GET /apis/{group}."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)}


def resource_list(group_name: str) -> JsonObject:
    """GET /api/v1 and /apis/{group}/v1."""
    entries: list[JsonObject] = []
    for resource in resources_of(group_name):
        entry: JsonObject = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": _verbs(group_name, resource),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        entry["storageVersionHash"] = resource.storage_version_hash
        entries.append(entry)
        entries.extend(
            _subresource_entry(resource, subresource) for subresource in resource.subresource_types
        )
    head: JsonObject = {"kind": "APIResourceList"}
    if group_name:
        head["apiVersion"] = "v1"
    group_version = f"{group_name}/{version_of(group_name)}" if group_name else "v1"
    return {**head, "groupVersion": group_version, "resources": entries}


def _subresource_entry(resource: ResourceType, subresource: Subresource) -> JsonObject:
    entry: JsonObject = {
        "name": f"{resource.plural}/{subresource.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind,
        "verbs": list(subresource.verbs),
    }
    if subresource.group:
        entry["group"], entry["version"] = subresource.group, subresource.version
    return entry


def aggregated(groups: tuple[str, ...]) -> JsonObject:
    """The aggregated document of some groups (the core group has an empty name)."""
    items: list[JsonObject] = []
    for name in groups:
        resources = [_aggregated_resource(name, resource) for resource in resources_of(name)]
        version = {"version": version_of(name), "resources": resources, "freshness": "Current"}
        items.append({"metadata": {"name": name} if name else {}, "versions": [version]})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_resource(group_name: str, resource: ResourceType) -> JsonObject:
    entry: JsonObject = {
        "resource": resource.plural,
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": _verbs(group_name, resource),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresource_types:
        entry["subresources"] = [
            {
                "subresource": subresource.name,
                "responseKind": {
                    "group": subresource.group,
                    "version": subresource.version,
                    "kind": subresource.kind,
                },
                "verbs": list(subresource.verbs),
            }
            for subresource in resource.subresource_types
        ]
    return entry


def wants_aggregated(request: web.Request) -> bool:
    """Whether the client prefers the aggregated form."""
    for media_type, parameters in parse_accept(request.headers.get("Accept", "")):
        if media_type == "application/json":
            return parameters.get("as") == "APIGroupDiscoveryList" and parameters.get("v") in (
                "v2",
                "v2beta1",
            )
    return False


def aggregated_response(request: web.Request, groups: tuple[str, ...]) -> web.Response:
    """The aggregated document, or 304 when the client has it already."""
    body = orjson.dumps(aggregated(groups))
    etag = f'"{hashlib.sha512(body).hexdigest().upper()}"'
    headers = {"ETag": etag, "Vary": "Accept"}
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={**headers, "Content-Type": AGGREGATED_TYPE})


def answer(request: web.Request, parts: list[str]) -> web.Response | None:
    """The discovery document at a path (its parts), or None when there is none."""
    if parts == ["version"]:
        return json_response(VERSION)
    if parts == ["api"]:
        if wants_aggregated(request):
            return aggregated_response(request, ("",))
        return json_response(api_versions(request.host))
    if parts == ["apis"]:
        if wants_aggregated(request):
            return aggregated_response(request, tuple(GROUP_VERSIONS))
        return json_response(group_list())
    if parts == ["api", "v1"]:
        return json_response(resource_list(""))
    if len(parts) == 2 and parts[0] == "apis" and has_group(parts[1]):
        return json_response(group(parts[1]))
    if len(parts) == 3 and parts[0] == "apis" and has_group_version(parts[1], parts[2]):
        return json_response(resource_list(parts[1]))
    return None
