"""Discovery: versions, groups and resources, in the classic and the aggregated form.

All documents are generated from the resource registry. The aggregated form has its own media type and an ETag; a client
that sends the current ETag gets 304.
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
    ResourceType,
    ResourceTypes,
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


def resources_of(types: ResourceTypes, group: str, version: str) -> list[ResourceType]:
    """Returns the resource types of a group and version, by name; events appear in two groups."""
    if group == EVENTS_GROUP_ALIAS[0]:
        return [EVENTS]
    found = (entry for entry in types if entry.group == group and version in _served(entry))
    return sorted(found, key=lambda entry: entry.plural)


def _served(resource: ResourceType) -> tuple[str, ...]:
    return resource.custom.versions if resource.custom is not None else (resource.version,)


def versions_of(types: ResourceTypes, group: str) -> tuple[str, ...]:
    """Returns the versions of a group, the preferred one first; empty if the server has none."""
    return types.groups().get(group, ()) if group else ("v1",)


def _group(types: ResourceTypes, name: str) -> JsonObject:
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version} for version in versions_of(types, name)
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _verbs(group_name: str, resource: ResourceType) -> list[str]:
    """Returns the verbs of a resource type. Events can be read and deleted at their second address, but not written."""
    written = ("create", "patch", "update")
    second = group_name == EVENTS_GROUP_ALIAS[0]
    return [verb for verb in resource.verbs if not (second and verb in written)]


def api_versions(address: str) -> JsonObject:
    """Returns the document of GET /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(types: ResourceTypes) -> JsonObject:
    """Returns the document of GET /apis."""
    groups = [_group(types, name) for name in types.groups()]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(types: ResourceTypes, name: str) -> JsonObject:
    """Returns the document of GET /apis/{group}."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(types, name)}


def resource_list(types: ResourceTypes, group_name: str, version: str) -> JsonObject:
    """Returns the document of GET /api/v1 and /apis/{group}/{version}."""
    entries: list[JsonObject] = []
    for resource in resources_of(types, group_name, version):
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
    group_version = f"{group_name}/{version}" if group_name else "v1"
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


def aggregated(types: ResourceTypes, groups: tuple[str, ...]) -> JsonObject:
    """Returns the aggregated document of some groups (the core group has an empty name)."""
    items: list[JsonObject] = []
    for name in groups:
        versions: list[JsonObject] = []
        for version in versions_of(types, name):
            resources = [
                _aggregated_resource(name, resource) for resource in resources_of(types, name, version)
            ]
            versions.append({"version": version, "resources": resources, "freshness": "Current"})
        items.append({"metadata": {"name": name} if name else {}, "versions": versions})
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
    """Returns whether the client prefers the aggregated form."""
    for media_type, parameters in parse_accept(request.headers.get("Accept", "")):
        if media_type == "application/json":
            return parameters.get("as") == "APIGroupDiscoveryList" and parameters.get("v") in (
                "v2",
                "v2beta1",
            )
    return False


def aggregated_response(request: web.Request, types: ResourceTypes, groups: tuple[str, ...]) -> web.Response:
    """Returns the aggregated document, or 304 if the client has the current one."""
    body = orjson.dumps(aggregated(types, groups))
    etag = f'"{hashlib.sha512(body).hexdigest().upper()}"'
    headers = {"ETag": etag, "Vary": "Accept"}
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={**headers, "Content-Type": AGGREGATED_TYPE})


def answer(request: web.Request, parts: list[str], types: ResourceTypes) -> web.Response | None:
    """Returns the discovery document at a path, given as its parts, or None if there is none."""
    if parts == ["version"]:
        return json_response(VERSION)
    if parts == ["api"]:
        if wants_aggregated(request):
            return aggregated_response(request, types, ("",))
        return json_response(api_versions(request.host))
    if parts == ["apis"]:
        if wants_aggregated(request):
            return aggregated_response(request, types, tuple(types.groups()))
        return json_response(group_list(types))
    if parts == ["api", "v1"]:
        return json_response(resource_list(types, "", "v1"))
    if len(parts) == 2 and parts[0] == "apis" and versions_of(types, parts[1]):
        return json_response(group(types, parts[1]))
    if len(parts) == 3 and parts[0] == "apis" and parts[2] in versions_of(types, parts[1]):
        return json_response(resource_list(types, *parts[1:]))
    return None
