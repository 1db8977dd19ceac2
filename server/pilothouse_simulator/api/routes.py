"""Routes each request to its handler: authentication, faults, discovery, resources and subresources.

One catch-all handler gets every request, because the resource registry decides which paths exist, and because the real
server has its own responses for unknown paths, resources and methods. Any `ApiError` becomes a Status here.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from email.utils import format_datetime
from typing import Any

import orjson
from aiohttp import web

from pilothouse_simulator.api import discovery, openapi
from pilothouse_simulator.api.context import ApiContext, RequestTarget, parse_path
from pilothouse_simulator.api.options import boolean
from pilothouse_simulator.api.representation import NEW_EVENTS_VERSION, json_response
from pilothouse_simulator.api.routes_delete import delete_collection, delete_object
from pilothouse_simulator.api.routes_exec import ExecRoutes
from pilothouse_simulator.api.routes_nodes import NodeRoutes
from pilothouse_simulator.api.routes_port_forward import PortForwardRoutes
from pilothouse_simulator.api.routes_read import get_object, list_objects
from pilothouse_simulator.api.routes_subresources import (
    bind_pod,
    evict_pod,
    finalize_namespace,
    handle_scale,
    write_status,
)
from pilothouse_simulator.api.routes_write import create_object, patch_object, replace_object
from pilothouse_simulator.api.stalling import timed_out, with_storage
from pilothouse_simulator.api.users import ANONYMOUS, REVIEWS, Users
from pilothouse_simulator.api.watch import watch_objects
from pilothouse_simulator.nodes.kubelet import Kubelets
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.api_errors import ApiError
from pilothouse_simulator.values.resources import GROUP_VERSIONS, ResourceTypes

Handler = Callable[[ApiContext, web.Request, RequestTarget], Awaitable[web.StreamResponse]]

_HEALTH_PATHS = frozenset({"/livez", "/readyz", "/healthz"})
_HEALTH_CHECKS = ("ping", "log", "informer-sync", "storage-readiness", "shutdown")
_STORAGE_CHECK_SECONDS = 2.0


def _openapi(parts: list[str], types: ResourceTypes) -> dict[str, Any] | None:
    if parts == ["openapi", "v3"]:
        return openapi.root(types)
    return openapi.document(types, "/".join(parts[2:])) if parts[:2] == ["openapi", "v3"] else None


class ApiRoutes:
    """The request handler of one server. `users` decides permissions.

    `kubelets` serve the requests that need a node: logs, usage, exec and port-forward.
    """

    def __init__(self, context: ApiContext, users: Users, *, kubelets: Kubelets) -> None:
        self._context = context
        self._users = users
        self._nodes = NodeRoutes(kubelets)
        self._exec = ExecRoutes(kubelets)
        self._ports = PortForwardRoutes(kubelets)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Handles any request."""
        faults = self._context.faults
        path = request.path
        if path == "/simulator/faults":
            return await self._handle_faults(request)
        transport = request.transport
        if transport is None:
            return web.Response(status=503)
        if self._is_closing():
            transport.abort()
            return web.Response(status=503)
        if faults.on_request is not None:
            faults.on_request(request.method, path)
        self._context.busy.add(transport)
        try:
            if path not in _HEALTH_PATHS:
                if faults.refuse_connections:
                    transport.abort()
                    return web.Response(status=503)
                await self._suffer()
            response = await self._dispatch(request)
        except ApiError as error:
            response = json_response(error.status, error.code, list(error.headers.items()))
        finally:
            self._context.busy.discard(transport)
        if self._is_closing():
            response.force_close()
        if not response.prepared:
            response.headers["Date"] = format_datetime(self._context.clock.now(), usegmt=True)
            response.headers["Audit-Id"] = str(uuid.uuid4())
            response.headers["Cache-Control"] = "no-cache, private"
        return response

    async def _suffer(self) -> None:
        """Applies the faults that affect any request: waits for the latency, and raises the injected ApiError."""
        faults = self._context.faults
        if faults.latency_seconds:
            await asyncio.sleep(faults.latency_seconds)
        if (error := faults.next_error()) is not None:
            raise error

    def _is_closing(self) -> bool:
        return self._context.closing

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        user = self._users.authenticate(request)
        if path in _HEALTH_PATHS:
            return await self._health(request)
        types = self._context.store.types
        target = parse_path(path, types)
        named = target or parse_path(path, types, known=False)
        user = self._users.impersonated(user, request, named)
        if path in REVIEWS and request.method == "POST" and user is not ANONYMOUS:
            body, now = await request.json(), self._context.clock.now()
            return json_response(self._users.review(user, REVIEWS[path], body, now), 201)
        if named is None:
            self._users.authorize_path(user, request)
        else:
            self._users.authorize(user, request, named)
        parts = path.strip("/").split("/")
        document = discovery.answer(request, parts, types)
        if document is not None:
            return document
        description = _openapi(parts, types)
        if description is not None:
            return json_response(description)
        if target is None:
            return self._unknown(parts)
        handler = self._handler(request, target)
        response = await with_storage(
            self._context, request, target, lambda: handler(self._context, request, target)
        )
        if request.method not in ("GET", "HEAD") and self._context.faults.next_answer_is_lost():
            return timed_out()
        return response

    @staticmethod
    def _unknown(parts: list[str]) -> web.StreamResponse:
        known = (parts[0] == "api" and len(parts) > 2) or (
            parts[0] == "apis" and len(parts) > 3 and parts[1] in GROUP_VERSIONS
        )
        if known:
            raise api_errors.unknown_resource()
        return web.Response(status=404, text="404 page not found\n")

    async def _health(self, request: web.Request) -> web.Response:
        path = request.path
        if not self._users.roles_loaded:
            message = f'forbidden: User "{ANONYMOUS.name}" cannot get path "{path}"'
            raise api_errors.failure(403, message, "Forbidden", {})
        failed = ""
        if path == "/livez" and self._context.faults.storage_stalled:
            await self._context.clock.sleep(_STORAGE_CHECK_SECONDS)
            failed = "storage-readiness"
        elif path == "/readyz" and not self._context.ready:
            failed = "informer-sync"
        if "verbose" not in request.query and not failed:
            return web.Response(text="ok")
        lines = "".join(
            f"[-]{name} failed: reason withheld\n" if name == failed else f"[+]{name} ok\n"
            for name in _HEALTH_CHECKS
        )
        result = "failed" if failed else "passed"
        return web.Response(text=f"{lines}{path.strip('/')} check {result}\n", status=500 if failed else 200)

    def _handler(self, request: web.Request, target: RequestTarget) -> Handler:
        method, resource = request.method, target.resource
        if target.subresource:
            return self._subresource_handler(method, target)
        if target.name:
            if target.watch_prefix and method == "GET":
                return watch_objects
            handlers: dict[str, Handler] = {
                "GET": get_object, "PUT": replace_object, "PATCH": patch_object, "DELETE": delete_object,
            }  # fmt: skip
        elif method == "GET":
            return watch_objects if target.watch_prefix or boolean(request.query, "watch") else list_objects
        elif resource.namespaced and target.namespace is None:
            raise api_errors.method_not_allowed()
        else:
            handlers = {"POST": create_object}
            if "deletecollection" in resource.verbs:
                handlers["DELETE"] = delete_collection
        # Events are written as core events; at their other address they can only be read and deleted.
        read_only = target.api_version == NEW_EVENTS_VERSION and method in ("POST", "PUT", "PATCH")
        if method not in handlers or read_only:
            raise api_errors.method_not_allowed()
        return handlers[method]

    def _subresource_handler(self, method: str, target: RequestTarget) -> Handler:
        subresource = target.subresource
        table: dict[tuple[str, str], Handler] = {
            ("GET", "status"): get_object,
            ("PUT", "status"): write_status,
            ("PATCH", "status"): write_status,
            ("GET", "scale"): handle_scale,
            ("PUT", "scale"): handle_scale,
            ("PATCH", "scale"): handle_scale,
            ("PUT", "finalize"): finalize_namespace,
            ("POST", "binding"): bind_pod,
            ("POST", "eviction"): evict_pod,
            ("GET", "exec"): self._exec.run,
            ("POST", "exec"): self._exec.run,
            ("GET", "portforward"): self._ports.forward,
            ("POST", "portforward"): self._ports.forward,
            ("GET", "log"): self._nodes.read_log,
            ("GET", "proxy"): self._nodes.proxy,
        }
        handler = table.get((method, subresource))
        if handler is None:
            raise api_errors.method_not_allowed()
        return handler

    async def _handle_faults(self, request: web.Request) -> web.StreamResponse:
        faults = self._context.faults
        try:
            if self._users.authenticate(request) is ANONYMOUS:
                raise api_errors.unauthorized()
            if request.method == "POST":
                faults.update(json.loads(await request.read()))
            elif request.method != "GET":
                raise api_errors.method_not_allowed()
        except ApiError as error:
            return json_response(error.status, error.code)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return json_response(api_errors.bad_request(f"bad fault plan: {error}").status, 400)
        return web.Response(body=orjson.dumps(faults.to_json()), content_type="application/json")
