"""Who may do what on the simulated cluster: users by token or client certificate, and their rights.

The cluster's own token is an administrator's, as the kubeconfig it prints. Others are added with rules of the form of
a ClusterRole, to show what a cluster with narrow rights answers. Wording and order follow the recordings: a bad token
is 401 before all else, and a missing right is 403 before the object, the body or even the resource is looked at.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from . import api_errors
from .api_errors import ApiError
from .resources import ResourceType
from .routes_context import Target
from .routes_options import boolean

JsonObject = dict[str, Any]

ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_ANY = "*"
_WRITING = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True)
class Rule:
    """Verbs on resources (`pods`, `pods/log`) of API groups, in every namespace; `*` is any."""

    verbs: frozenset[str]
    api_groups: frozenset[str]
    resources: frozenset[str]

    def allows(self, verb: str, group: str, resource: str) -> bool:
        """Whether the rule covers this."""
        wanted = ((verb, self.verbs), (group, self.api_groups), (resource, self.resources))
        return all(word in granted or _ANY in granted for word, granted in wanted)


@dataclass(frozen=True)
class User:
    """A user and its rules; None means everything."""

    name: str
    rules: tuple[Rule, ...] | None = None

    def may(self, verb: str, group: str, resource: str) -> bool:
        """Whether any rule allows this."""
        return self.rules is None or any(rule.allows(verb, group, resource) for rule in self.rules)


ANONYMOUS = User("system:anonymous", ())


class Users:
    """The users of one cluster. `roles_loaded` False is a server that has just started: rules do not count yet."""

    def __init__(self, administrator_token: str) -> None:
        self.roles_loaded = True
        self._by_token = {administrator_token: User("admin")}
        self._by_certificate: dict[str, User] = {}

    def add(self, token: str, name: str, rules: Iterable[JsonObject] | None = None) -> None:
        """Lets `token` in as a user; `rules` are those of a ClusterRole, None everything."""
        self._by_token[token] = User(name, _rules(rules))

    def add_certificate(self, name: str, rules: Iterable[JsonObject] | None = None) -> None:
        """Lets holders of a client certificate of this common name in."""
        self._by_certificate[name] = User(name, _rules(rules))

    def remove(self, token: str) -> None:
        """Lets `token` in no longer."""
        self._by_token.pop(token, None)

    def authenticate(self, request: web.Request) -> User:
        """Who asks; ApiError 401 where nobody does."""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            for token, user in self._by_token.items():
                if hmac.compare_digest(given.strip().encode(), token.encode()):
                    return user
        elif not scheme:
            user_of_certificate = self._by_certificate.get(_common_name(request))
            if user_of_certificate is not None:
                return user_of_certificate
        raise api_errors.unauthorized()

    def authorize(self, user: User, request: web.Request, target: Target) -> None:
        """ApiError 403 unless the user may do what the request asks."""
        verb = _verb(request, target)
        resource = target.resource
        if not self._may(user, verb, resource.group, _with_subresource(target)):
            raise _forbidden(user, verb, target)

    def review(self, user: User, body: JsonObject) -> JsonObject:
        """The answer to a SelfSubjectAccessReview."""
        spec = body.get("spec") or {}
        asked = {key: value for key, value in (spec.get("resourceAttributes") or {}).items() if value}
        resource = "/".join(
            part for part in (asked.get("resource", ""), asked.get("subresource", "")) if part
        )
        allowed = self._may(user, asked.get("verb", ""), asked.get("group", ""), resource)
        return {
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {},
            "spec": {"resourceAttributes": asked},
            "status": {"allowed": allowed, **({"reason": "RBAC: allowed"} if allowed else {})},
        }

    def _may(self, user: User, verb: str, group: str, resource: str) -> bool:
        return (self.roles_loaded or user.rules is None) and user.may(verb, group, resource)


def _rules(rules: Iterable[JsonObject] | None) -> tuple[Rule, ...] | None:
    if rules is None:
        return None
    return tuple(
        Rule(frozenset(rule["verbs"]), frozenset(rule["apiGroups"]), frozenset(rule["resources"]))
        for rule in rules
    )


def _common_name(request: web.Request) -> str:
    certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
    subject = dict(pair for parts in (certificate or {}).get("subject", ()) for pair in parts)
    return str(subject.get("commonName", ""))


def _verb(request: web.Request, target: Target) -> str:
    if request.method in ("GET", "HEAD"):
        if target.name and not target.watch_prefix:
            return "get"
        return "watch" if target.watch_prefix or boolean(request.query, "watch") else "list"
    if request.method == "DELETE":
        return "delete" if target.name else "deletecollection"
    return _WRITING.get(request.method, request.method.lower())


def _with_subresource(target: Target) -> str:
    plural = target.resource.plural
    return f"{plural}/{target.subresource}" if target.subresource else plural


def _forbidden(user: User, verb: str, target: Target) -> ApiError:
    resource: ResourceType = target.resource
    named = f' "{target.name}"' if target.name else ""
    # A namespace is itself in the namespace that it is.
    namespace = target.namespace or (target.name if resource.kind == "Namespace" else None)
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    message = (
        f'{api_errors.qualified(resource)}{named} is forbidden: User "{user.name}" cannot {verb} resource '
        f'"{_with_subresource(target)}" in API group "{resource.group}" {where}'
    )
    return api_errors.failure(403, message, "Forbidden", api_errors.object_details(resource, target.name))
