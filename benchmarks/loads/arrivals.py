"""Waits until the cluster has a number of objects: counts them in a watch of their metadata, with bare HTTP."""

from __future__ import annotations

import time
from typing import Any

import aiohttp
import orjson

# The kinds that are counted, by the load that creates them.
_PATHS = {
    "deployments": "/apis/apps/v1/deployments",
    "services": "/apis/apps/v1/deployments",
    "objects": "/apis/networking.k8s.io/v1/networkpolicies",
}
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_LONGEST_LINE = 1 << 20


def session(kubeconfig: dict[str, Any]) -> aiohttp.ClientSession:
    """Returns a session with the cluster of a kubeconfig that has a token."""
    server = kubeconfig["clusters"][0]["cluster"]["server"]
    token = kubeconfig["users"][0]["user"]["token"]
    return aiohttp.ClientSession(
        server, headers={"Authorization": f"Bearer {token}"}, read_bufsize=_LONGEST_LINE
    )


async def arrived(cluster: aiohttp.ClientSession, load: str, version: str, count: int) -> float:
    """Returns the monotonic time at which this number of objects had been added after `version`."""
    query = {"watch": "true", "resourceVersion": version}
    timeout = aiohttp.ClientTimeout(total=None)
    async with cluster.get(
        _PATHS[load], params=query, headers={"Accept": _METADATA}, timeout=timeout
    ) as watch:
        watch.raise_for_status()
        while count > 0:
            line = await watch.content.readline()
            if not line:
                raise RuntimeError("the cluster ended the watch")
            count -= orjson.loads(line)["type"] == "ADDED"
    return time.monotonic()


async def version(cluster: aiohttp.ClientSession, load: str) -> str:
    """Returns the version at which a watch starts that reports the objects that are created from now on."""
    async with cluster.get(_PATHS[load], params={"limit": "1"}) as answer:
        answer.raise_for_status()
        return str((await answer.json())["metadata"]["resourceVersion"])
