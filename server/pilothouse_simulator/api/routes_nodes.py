"""Requests that need a node: the logs of a pod, and usage through the node proxy."""

from __future__ import annotations

from contextlib import aclosing, suppress

from aiohttp import web

from pilothouse_simulator.api.context import ApiContext, RequestTarget
from pilothouse_simulator.api.options import boolean
from pilothouse_simulator.api.representation import json_response
from pilothouse_simulator.nodes.kubelet import Kubelet, Kubelets
from pilothouse_simulator.nodes.logs import LogRequest, parse_log_options, read_log
from pilothouse_simulator.nodes.stats import UsageReporter
from pilothouse_simulator.values import api_errors
from pilothouse_simulator.values.resources import NODES, PODS

_PORT = 10250
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"


class NodeRoutes:
    """The handlers of requests that the kubelets serve."""

    def __init__(self, kubelets: Kubelets) -> None:
        self._kubelets = kubelets
        self._usage = UsageReporter(kubelets)

    async def read_log(
        self, context: ApiContext, request: web.Request, target: RequestTarget
    ) -> web.StreamResponse:
        """Handles GET of pods/log: returns text for every Accept header, as a stream with `follow`."""
        options = parse_log_options(target.name, request.query)
        self._check_there(context, target, options)
        answer = await read_log(self._kubelets, str(target.namespace), target.name, options)
        if answer.error is not None:
            raise api_errors.ApiError(answer.error)
        if answer.chunks is None:
            return web.Response(status=answer.code)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        # A client that disconnects is not an error.
        with suppress(ConnectionError):
            async with aclosing(answer.chunks) as chunks:
                async for chunk in chunks:
                    await response.write(chunk)
            await response.write_eof()
        return response

    def _check_there(self, context: ApiContext, target: RequestTarget, options: LogRequest) -> None:
        """Raises ApiError 500 if the kubelet of the pod's node is down."""
        pod = context.store.get(PODS, target.namespace, target.name)
        kubelet = self._kubelets.by_node.get(pod["spec"].get("nodeName", "")) if pod is not None else None
        if pod is None or kubelet is None or not kubelet.away:
            return
        container = options.container or pod["spec"]["containers"][0]["name"]
        place = f"{target.namespace}/{target.name}/{container}"
        url = f"https://{kubelet.ip}:{_PORT}/containerLogs/{place}"
        raise api_errors.failure(500, f'Get "{url}": {refused_dial(kubelet)}')

    async def proxy(
        self, context: ApiContext, request: web.Request, target: RequestTarget
    ) -> web.StreamResponse:
        """Handles GET through the node proxy: `stats/summary` and `metrics/resource`; other paths are 404."""
        if context.store.get(NODES, None, target.name) is None:
            raise api_errors.not_found(NODES, target.name)
        if target.name not in self._kubelets.by_node:
            raise api_errors.failure(
                503, f"error trying to reach service: no kubelet runs on {target.name}", "ServiceUnavailable"
            )
        if (kubelet := self._kubelets.by_node[target.name]).away:
            message = f"error trying to reach service: {refused_dial(kubelet)}"
            raise api_errors.failure(503, message, "ServiceUnavailable")
        if target.rest == "stats/summary":
            brief = bool(boolean(request.query, "only_cpu_and_memory"))
            return json_response(self._usage.stats_summary(target.name, only_cpu_and_memory=brief))
        if target.rest == "metrics/resource":
            body = self._usage.resource_metrics(target.name).encode()
            return web.Response(body=body, headers={"Content-Type": _METRICS_TYPE})
        return web.Response(status=404, text="404: Page Not Found")


def refused_dial(kubelet: Kubelet) -> str:
    """Returns the API server's message about a kubelet that is down."""
    return f"dial tcp {kubelet.ip}:{_PORT}: connect: connection refused"
