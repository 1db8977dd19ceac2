"""When so many Deployments are there: counted by a watch of the cluster itself, metadata alone, by bare HTTP."""

from __future__ import annotations

import time
from typing import Any

import aiohttp
import orjson

_DEPLOYMENTS = "/apis/apps/v1/deployments"
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_LONGEST_LINE = 1 << 20


def session(kubeconfig: dict[str, Any]) -> aiohttp.ClientSession:
    """A session with the cluster of a kubeconfig, which has a token."""
    server = kubeconfig["clusters"][0]["cluster"]["server"]
    token = kubeconfig["users"][0]["user"]["token"]
    return aiohttp.ClientSession(
        server, headers={"Authorization": f"Bearer {token}"}, read_bufsize=_LONGEST_LINE
    )


async def arrived(cluster: aiohttp.ClientSession, version: str, count: int) -> float:
    """Returns the monotonic time at which this number of Deployments had been added after `version`."""
    query = {"watch": "true", "resourceVersion": version}
    timeout = aiohttp.ClientTimeout(total=None)
    async with cluster.get(
        _DEPLOYMENTS, params=query, headers={"Accept": _METADATA}, timeout=timeout
    ) as watch:
        watch.raise_for_status()
        while count > 0:
            line = await watch.content.readline()
            if not line:
                raise RuntimeError("the cluster ended the watch")
            count -= orjson.loads(line)["type"] == "ADDED"
    return time.monotonic()


async def version(cluster: aiohttp.ClientSession) -> str:
    """Returns where a watch of Deployments begins that sees what is made from now on."""
    async with cluster.get(_DEPLOYMENTS, params={"limit": "1"}) as answer:
        answer.raise_for_status()
        return str((await answer.json())["metadata"]["resourceVersion"])
