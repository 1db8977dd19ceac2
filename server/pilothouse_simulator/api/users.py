"""Users of the simulated cluster, identified by token or client certificate, and their rights.

The cluster's own token, which is in its kubeconfig, belongs to an administrator. Other users are added with rules in
the form of a ClusterRole, to reproduce a cluster with narrow rights. Messages and order follow the recordings: a bad
token is 401 before all else, and a missing right is 403 before the object, the body or even the resource is read. A
caller without credentials is anonymous and may read the health and the version; other callers may also read the API
discovery.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aiohttp import web

from pilothouse_simulator.api.context import RequestTarget
from pilothouse_simulator.api.options import boolean
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.clock import format_time
from pilothouse_simulator.values.resources import ResourceType

JsonObject = dict[str, Any]

_AUTHORIZATION = "authorization.k8s.io/v1"
_AUTHENTICATION = "authentication.k8s.io/v1"
# The reviews that any authenticated user may request about itself.
REVIEWS = {
    f"/apis/{_AUTHORIZATION}/selfsubjectaccessreviews": "access",
    f"/apis/{_AUTHORIZATION}/selfsubjectrulesreviews": "rules",
    f"/apis/{_AUTHENTICATION}/selfsubjectreviews": "identity",
}
_REVIEW_RULES: tuple[JsonObject, ...] = (
    {
        "verbs": ["create"],
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    },
    {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
)
# Paths that are not resources: public paths, and paths for authenticated users.
_PUBLIC_PATHS = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_OPEN_PATHS = (
    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version",
    "/version/",
)  # fmt: skip
_ANY = "*"
_WRITING = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class AccessRule:
    """Verbs on resources (`pods`, `pods/log`) of API groups, in every namespace; `*` matches any."""

    verbs: frozenset[str]
    api_groups: frozenset[str]
    resources: frozenset[str]

    def allows(self, verb: str, group: str, resource: str) -> bool:
        """Returns whether the rule allows the verb."""
        wanted = ((verb, self.verbs), (group, self.api_groups), (resource, self.resources))
        return all(word in granted or _ANY in granted for word, granted in wanted)

    def to_json(self) -> JsonObject:
        """Returns the rule as a review shows it."""
        return {
            "verbs": sorted(self.verbs),
            "apiGroups": sorted(self.api_groups),
            "resources": sorted(self.resources),
        }


@dataclass(frozen=True)
class ApiUser:
    """A user and its rules; `rules` None allows everything."""

    name: str
    rules: tuple[AccessRule, ...] | None = None

    def may(self, verb: str, group: str, resource: str) -> bool:
        """Returns whether any rule allows the verb."""
        return self.rules is None or any(rule.allows(verb, group, resource) for rule in self.rules)


ANONYMOUS = ApiUser("system:anonymous", ())
_EVERYTHING = AccessRule(frozenset({_ANY}), frozenset({_ANY}), frozenset({_ANY}))


class Users:
    """The users of one cluster. `roles_loaded` is False on a server that has just started: rules do not apply yet."""

    def __init__(self, administrator_token: str) -> None:
        self.roles_loaded = True
        self._by_token = {administrator_token: ApiUser("admin")}
        self._by_certificate: dict[str, ApiUser] = {}

    def add(self, token: str, name: str, rules: Iterable[JsonObject] | None = None) -> None:
        """Admits `token` as a user; `rules` are those of a ClusterRole, and None allows everything."""
        self._by_token[token] = ApiUser(name, _rules(rules))

    def add_certificate(self, name: str, rules: Iterable[JsonObject] | None = None) -> None:
        """Admits holders of a client certificate with this common name."""
        self._by_certificate[name] = ApiUser(name, _rules(rules))

    def remove(self, token: str) -> None:
        """Stops admitting `token`."""
        self._by_token.pop(token, None)

    def authenticate(self, request: web.Request) -> ApiUser:
        """Returns the user that sent a request. Raises ApiError 401 for an unknown token or certificate."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            for token, user in self._by_token.items():
                if hmac.compare_digest(given.strip().encode(), token.encode()):
                    return user
        elif not (name := _common_name(request)):
            return ANONYMOUS
        elif name in self._by_certificate:
            return self._by_certificate[name]
        raise api_errors.unauthorized()

    def impersonated(self, user: ApiUser, request: web.Request, target: RequestTarget | None) -> ApiUser:
        """Returns the user that the request impersonates, or `user`.

        Raises ApiError 403 without the right to impersonate.
        """
        name = request.headers.get("Impersonate-User")
        if name is None:
            return user
        if not self._may(user, "impersonate", "", "users"):
            if target is None:
                raise _forbidden_path(user, "impersonate", request.path)
            raise _forbidden(user, f"impersonate-on:user-info:{_verb(request, target)}", target)
        known = (*self._by_token.values(), *self._by_certificate.values())
        return next((each for each in known if each.name == name), ApiUser(name, ()))

    def authorize(self, user: ApiUser, request: web.Request, target: RequestTarget) -> None:
        """Raises ApiError 403 unless the user may make the request."""
        verb = _verb(request, target)
        resource = target.resource
        if not self._may(user, verb, resource.group, _with_subresource(target)):
            raise _forbidden(user, verb, target)

    def authorize_path(self, user: ApiUser, request: web.Request) -> None:
        """Raises ApiError 403 unless the user may request this path, which is not a resource."""
        if user.rules is None:
            return
        paths = _PUBLIC_PATHS if user is ANONYMOUS else _OPEN_PATHS
        path = request.path
        if not self.roles_loaded or not any(
            path == each or (each.endswith("*") and path.startswith(each[:-1])) for each in paths
        ):
            raise _forbidden_path(user, request.method.lower(), path)

    def review(self, user: ApiUser, question: str, body: JsonObject, now: datetime) -> JsonObject:
        """Returns the review that a user requests about itself."""
        if question == "access":
            return self._access(user, body)
        if question == "rules":
            rules = (_EVERYTHING,) if user.rules is None else user.rules
            status = {
                "resourceRules": [*_REVIEW_RULES, *(rule.to_json() for rule in rules)],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": list(_OPEN_PATHS)}],
                "incomplete": False,
            }
            return _review("SelfSubjectRulesReview", {"spec": {}, "status": status})
        details = {
            "username": user.name,
            "uid": f"uid-{user.name}",
            "groups": ["system:authenticated" if user is not ANONYMOUS else "system:unauthenticated"],
        }
        review = _review("SelfSubjectReview", {"status": {"userInfo": details}}, _AUTHENTICATION)
        review["metadata"]["creationTimestamp"] = format_time(now)
        return review

    def _access(self, user: ApiUser, body: JsonObject) -> JsonObject:
        spec = body.get("spec") or {}
        asked = {key: value for key, value in (spec.get("resourceAttributes") or {}).items() if value}
        resource = "/".join(
            part for part in (asked.get("resource", ""), asked.get("subresource", "")) if part
        )
        allowed = self._may(user, asked.get("verb", ""), asked.get("group", ""), resource)
        status = {"allowed": allowed, **({"reason": "RBAC: allowed"} if allowed else {})}
        return _review("SelfSubjectAccessReview", {"spec": {"resourceAttributes": asked}, "status": status})

    def _may(self, user: ApiUser, verb: str, group: str, resource: str) -> bool:
        return (self.roles_loaded or user.rules is None) and user.may(verb, group, resource)


def _review(kind: str, parts: JsonObject, api_version: str = _AUTHORIZATION) -> JsonObject:
    return {"kind": kind, "apiVersion": api_version, "metadata": {}, **parts}


def _rules(rules: Iterable[JsonObject] | None) -> tuple[AccessRule, ...] | None:
    if rules is None:
        return None
    return tuple(
        AccessRule(frozenset(rule["verbs"]), frozenset(rule["apiGroups"]), frozenset(rule["resources"]))
        for rule in rules
    )


def _common_name(request: web.Request) -> str:
    certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
    subject = dict(pair for parts in (certificate or {}).get("subject", ()) for pair in parts)
    return str(subject.get("commonName", ""))


def _verb(request: web.Request, target: RequestTarget) -> str:
    if request.method in ("GET", "HEAD"):
        if target.name and not target.watch_prefix:
            return "get"
        return "watch" if target.watch_prefix or boolean(request.query, "watch") else "list"
    if request.method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return _WRITING.get(request.method, request.method.lower())


def _with_subresource(target: RequestTarget) -> str:
    plural = target.resource.plural
    return f"{plural}/{target.subresource}" if target.subresource else plural


def _forbidden_path(user: ApiUser, verb: str, path: str) -> ApiError:
    message = f'forbidden: User "{user.name}" cannot {verb} path "{path}"'
    return api_errors.failure(403, message, "Forbidden", {})


def _forbidden(user: ApiUser, verb: str, target: RequestTarget) -> ApiError:
    resource: ResourceType = target.resource
    named = f' "{target.name}"' if target.name else ""
    # A Namespace object counts as inside the namespace it names.
    namespace = target.namespace or (target.name if resource.kind == "Namespace" else None)
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    message = (
        f'{api_errors.qualified(resource)}{named} is forbidden: User "{user.name}" cannot {verb} resource '
        f'"{_with_subresource(target)}" in API group "{resource.group}" {where}'
    )
    return api_errors.failure(403, message, "Forbidden", api_errors.object_details(resource, target.name))
