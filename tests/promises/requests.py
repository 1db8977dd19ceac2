"""A valid request for every RPC, in the environment of `tests.promises.environment`.

A new RPC needs an entry here; `test_requests.py` fails until it has one. Requests are written in their JSON
form. Each mutation has a target of its own, named after the RPC, so that all mutations can be made one after
another.
"""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.json_format import ParseDict

from pilothouse_server.rpc.method_rules import Rule
from tests.harness import PASSWORD

OWN = "own"
ANOTHER_PASSWORD = "another correct horse battery"
UNUSED_IMAGE = "unused:1"
Fields = dict[str, Any]
_ACCOUNT: Fields = {"apiVersion": "v1", "kind": "ServiceAccount"}


def request_for(rule: Rule, fields: Fields | None = None) -> Any:
    """Returns the request of an RPC, or one of the same method with the given fields."""
    return ParseDict(REQUESTS[rule.name] if fields is None else fields, rule.request_class())


def target(method: str) -> str:
    """Returns the name of the resource that the RPC `method` is tried on."""
    return f"for-{method.lower()}"


def user(name: str) -> Fields:
    """Returns the fields of a new user."""
    return {"username": name, "email": f"{name}@example.org"}


def workload(name: str) -> Fields:
    """Returns the fields of a new container."""
    return {"name": name, "image": "nginx:1.27", "labels": {"app": name}}


def volume(name: str) -> Fields:
    """Returns the fields of a new volume."""
    return {"name": name, "type": "VOLUME_TYPE_PERSISTENT_VOLUME_CLAIM", "size": "1Gi", "mountPath": "/data"}


def service(name: str) -> Fields:
    """Returns the fields of a new Service."""
    return {"name": name, "selector": {"app": name}, "ports": [{"port": 80}]}


def carried(name: str) -> Fields:
    """Returns the fields of a new object."""
    document = json.dumps({"metadata": {"labels": {"app": name}}, "automountServiceAccountToken": False})
    return {**_ACCOUNT, "name": name, "document": document}


def config_map(name: str) -> Fields:
    """Returns the fields of a new config map."""
    return {"name": name, "data": {"a.conf": "one"}}


def secret(name: str) -> Fields:
    """Returns the fields of a new secret."""
    return {"name": name, "data": {"key": "dmFsdWU="}}


def application(name: str, **data: str) -> Fields:
    """Returns the fields of a new application that consists of one config map."""
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-settings"},
        "data": data,
    }
    return {"name": name, "documents": [{"json": json.dumps(document)}]}


def role(name: str) -> Fields:
    """Returns the fields of a new role."""
    return {"name": name, "displayName": "Some role", "permissions": ["container.get"]}


def _on_target(*methods: str) -> dict[str, Fields]:
    return {method: {"namespace": OWN, "name": target(method)} for method in methods}


def _in_namespace(*methods: str) -> dict[str, Fields]:
    return {method: {"namespace": OWN} for method in methods}


def _of_web(*methods: str) -> dict[str, Fields]:
    return {method: {"namespace": OWN, "name": "web"} for method in methods}


def _nothing(*methods: str) -> dict[str, Fields]:
    return {method: {} for method in methods}


def _updating(method: str, noun: str, fields: Fields, path: str) -> dict[str, Fields]:
    """Returns an update of a resource in a namespace."""
    return {method: {"namespace": OWN, "name": target(method), noun: fields, "updateMask": path}}


_IDENTITY: dict[str, Fields] = {
    "Login": {"username": "admin", "password": PASSWORD},
    "CompleteLogin": {"challenge": "none of ours"},
    "BeginOidcLogin": {"redirectUri": "http://127.0.0.1:1/callback"},
    "BeginDeviceLogin": {},
    "CompleteDeviceLogin": {"loginToken": "none of ours"},
    "CompleteOidcLogin": {"loginToken": "none of ours", "state": "none", "code": "none"},
    "RefreshSession": {"refreshToken": "none of ours"},
    # Refused, because it is not a token.
    "ExchangeToken": {"subjectToken": "none.of.ours"},
    # The environment fills in the current code of a seed that it has requested.
    "ConfirmTotp": {"code": ""},
    "DisableTotp": {"password": PASSWORD},
    "ResetSecondFactor": {"username": target("ResetSecondFactor")},
    "Reauthenticate": {"password": PASSWORD},
    "ChangePassword": {"currentPassword": PASSWORD, "newPassword": ANOTHER_PASSWORD},
    "CreateUser": {"user": user(target("CreateUser")), "password": PASSWORD},
    "GetUser": {"username": "admin"},
    "UpdateUser": {
        "username": target("UpdateUser"),
        "user": {"fullName": "Somebody Else"},
        "updateMask": "fullName",
    },
    "DeleteUser": {"username": target("DeleteUser")},
    "ResetPassword": {"username": target("ResetPassword"), "newPassword": ANOTHER_PASSWORD},
    "CreateRole": {"role": role(target("CreateRole"))},
    "GetRole": {"name": "viewer"},
    "UpdateRole": {
        "name": target("UpdateRole"),
        "role": {"permissions": ["container.list"]},
        "updateMask": "permissions",
    },
    "DeleteRole": {"name": target("DeleteRole")},
    "GrantRole": {"username": target("GrantRole"), "role": "viewer", "namespace": OWN},
    "RevokeRole": {"username": target("RevokeRole"), "role": "viewer", "namespace": OWN},
    "CheckPermission": {"permission": "container.get", "namespace": OWN},
    "ExplainPermission": {"permission": "container.get", "namespace": OWN},
    "ExplainPermissions": {"questions": [{"permission": "container.get", "namespace": OWN}]},
    "ListPrincipals": {"permission": "container.get", "namespace": OWN},
    "SimulateGrant": {"username": target("GrantRole"), "role": "viewer", "namespace": OWN},
    # The environment fills in the id of its second login's session.
    "RevokeSession": {"sessionId": ""},
    "CreateApiKey": {"name": target("CreateApiKey")},
    # The environment fills in the ids of keys that it makes for the administrator.
    "RotateApiKey": {"apiKeyId": ""},
    "RevokeApiKey": {"apiKeyId": ""},
    "CreateServiceAccount": {"namespace": OWN, "serviceAccount": {"name": target("CreateServiceAccount")}},
    **_on_target("DeleteServiceAccount"),
    **_in_namespace("ListRoleGrants", "ListServiceAccounts"),
    **_nothing("ListApiKeys"),
    **_nothing("Logout", "WhoAmI", "ListUsers", "ListRoles", "ListSessions", "EnrolTotp"),
}
_NAMESPACES: dict[str, Fields] = {
    "CreateNamespace": {"namespace": {"name": target("CreateNamespace")}},
    "GetNamespace": {"name": OWN},
    "UpdateNamespace": {"name": OWN, "namespace": {"description": "changed"}, "updateMask": "description"},
    # Without `cascade` the call would be refused, because the namespace is not empty.
    "DeleteNamespace": {"name": OWN, "cascade": True},
    "GetQuotaUsage": {"name": OWN},
    "GetCluster": {"name": "local"},
    # Nothing listens at this address, so the registration fails. The environment replaces it by its cluster's
    # address.
    "RegisterCluster": {
        "cluster": {"name": target("RegisterCluster")},
        "credentials": {"address": {"apiServer": "http://127.0.0.1:1", "token": "some-token"}},
    },
    "UpdateCluster": {"name": "local", "cluster": {"displayName": "Here"}, "updateMask": "displayName"},
    "DeregisterCluster": {"name": target("DeregisterCluster")},
    "ListOrphans": {"clusterName": "local"},
    "ResolveOrphans": {"clusterName": "local", "action": "ORPHAN_ACTION_KEEP", "all": True},
    **_nothing("ListNamespaces", "WatchNamespaces", "ListClusters", "GetRequiredRights"),
}
_CONTAINERS: dict[str, Fields] = {
    "CreateContainer": {"namespace": OWN, "container": workload(target("CreateContainer"))},
    "ImportContainers": {"namespace": OWN, "names": [target("ImportContainers")]},
    "GetImage": {"image": "nginx:1.27"},
    "DeleteImage": {"image": UNUSED_IMAGE},
    **_updating("UpdateContainer", "container", {"image": "nginx:1.28"}, "image"),
    **_on_target("DeleteContainer", "StartContainer", "StopContainer", "PauseContainer"),
    **_on_target("ResumeContainer", "RestartContainer"),
    "ScaleContainer": {"namespace": OWN, "name": target("UpdateContainer"), "replicas": 2},
    "RunContainer": {"namespace": OWN, "name": target("RunContainer")},
    "Exec": {"start": {"namespace": OWN, "name": "web", "command": ["true"]}},
    "PortForward": {"start": {"namespace": OWN, "name": "web", "port": 80}},
    "CopyFrom": {"namespace": OWN, "name": "web", "path": "/etc/hosts"},
    "CopyTo": {"start": {"namespace": OWN, "name": "web", "path": "/tmp"}},
    **_of_web("GetContainer", "ListPods", "ListStatusHistory", "StreamLogs"),
    "ListContainerRevisions": {"namespace": OWN, "name": target("UpdateContainer")},
    "RollbackContainer": {"namespace": OWN, "name": target("RollbackContainer")},
    "ListRuns": {"namespace": OWN, "name": target("RunContainer")},
    **_in_namespace("ListContainers", "WatchContainers", "WatchRuns", "ListImages"),
}
_STORAGE: dict[str, Fields] = {
    "CreateVolume": {"namespace": OWN, "volume": volume(target("CreateVolume"))},
    "AttachVolume": {
        "namespace": OWN,
        "name": target("AttachVolume"),
        "container": "web",
        "mountPath": "/attached",
    },
    "DetachVolume": {"namespace": OWN, "name": target("DetachVolume"), "container": "web"},
    **_updating("UpdateVolume", "volume", {"labels": {"a": "b"}}, "labels"),
    **_on_target("DeleteVolume"),
    **_of_web("GetVolume"),
    **_in_namespace("ListVolumes", "WatchVolumes"),
}
_NETWORK: dict[str, Fields] = {
    "CreateService": {"namespace": OWN, "service": service(target("CreateService"))},
    **_updating("UpdateService", "service", {"headless": True}, "headless"),
    **_on_target("DeleteService"),
    "ImportServices": {"namespace": OWN, "names": [target("ImportServices")]},
    **_of_web("GetService"),
    **_in_namespace("ListServices", "WatchServices"),
}
_OBJECTS: dict[str, Fields] = {
    "CreateObject": {"namespace": OWN, "object": carried(target("CreateObject"))},
    "UpdateObject": {
        "namespace": OWN,
        **_ACCOUNT,
        "name": target("UpdateObject"),
        "object": {"labels": {"a": "b"}},
        "updateMask": "labels",
    },
    "DeleteObject": {"namespace": OWN, **_ACCOUNT, "name": target("DeleteObject")},
    "ImportObjects": {"namespace": OWN, **_ACCOUNT, "names": [target("ImportObjects")]},
    "GetObject": {"namespace": OWN, **_ACCOUNT, "name": "web"},
    **_in_namespace("ListObjects", "WatchObjects", "ListObjectKinds"),
}
_CONFIG: dict[str, Fields] = {
    "CreateConfigMap": {"namespace": OWN, "configMap": config_map(target("CreateConfigMap"))},
    "CreateSecret": {"namespace": OWN, "secret": secret(target("CreateSecret"))},
    **_updating("UpdateConfigMap", "configMap", {"data": {"a.conf": "two"}}, "data"),
    **_updating("UpdateSecret", "secret", {"data": {"key": "b3RoZXI="}}, "data"),
    **_on_target("DeleteConfigMap", "DeleteSecret", "PurgeSecret"),
    **_of_web("GetConfigMap", "GetSecret", "RevealSecret"),
    **_in_namespace("ListConfigMaps", "ListSecrets", "WatchConfigs"),
    **_nothing("RotateKeys"),
}
_APPLICATIONS: dict[str, Fields] = {
    "ApplyApplication": {"namespace": OWN, **application(target("ApplyApplication"))},
    **_on_target("DeleteApplication", "PauseApplication", "ResumeApplication", "RollbackApplication"),
    **_of_web("GetApplication", "ListRevisions", "GetRevision", "ExportApplication"),
    "DiffRevisions": {"namespace": OWN, "name": target("RollbackApplication")},
    **_in_namespace("ListApplications", "WatchApplications"),
}
_SEVERAL: dict[str, Fields] = {
    "Watch": {"scopes": [{"noun": "NOUN_CONTAINER", "namespace": OWN}, {"noun": "NOUN_NAMESPACE"}]},
    "WatchEvents": {"namespace": OWN, "once": True},
    "GetOverview": {"namespace": OWN, "usagePoints": 10},
    "Search": {"namespace": OWN, "query": "web"},
}
_AUDIT: dict[str, Fields] = {
    # The environment fills in one of its operations.
    "GetOperation": {"operationId": ""},
    "ProveOperation": {"operationId": "00000000-0000-4000-8000-000000000000"},
    "ProveConsistency": {"firstSize": "1"},
    "GetAuditTile": {"path": "tile/0/000.p/1"},
    **_in_namespace("ListOperations", "WatchOperations", "ExportAuditLog"),
    **_nothing("GetUserOperationStats", "GetAuditHead", "VerifyAuditLog", "ListAuditSinks"),
    "CreateAuditSink": {
        "auditSink": {
            "name": target("CreateAuditSink"),
            "kind": "AUDIT_SINK_KIND_HTTP",
            "address": "https://siem.example.com",
        }
    },
    "DeleteAuditSink": {"name": target("DeleteAuditSink")},
}
_METRICS: dict[str, Fields] = {
    "RecordUsage": {"samples": [{"namespace": OWN, "container": "web", "cpuCoresUsed": 0.5}]},
    "QueryUsage": {"namespace": OWN, "container": "web"},
    **_of_web("GetContainerDetails"),
    **_in_namespace("WatchUsage", "GetNamespaceSummary", "ListTopContainers"),
    **_nothing("GetDatabaseStats", "GetTableSizes"),
}
REQUESTS: dict[str, Fields] = {
    **_IDENTITY,
    **_NAMESPACES,
    **_CONTAINERS,
    **_NETWORK,
    **_OBJECTS,
    **_STORAGE,
    **_CONFIG,
    **_APPLICATIONS,
    **_SEVERAL,
    **_AUDIT,
    **_METRICS,
}
