"""Runs the docstring examples of all public names of the client against one server.

Each example can use: `client` of an administrator; `address`, `password` and `token` of the server; its own
`namespace`; `path` of a file; and the public names.
"""

from __future__ import annotations

import asyncio
import doctest
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

import pilothouse_client
from pilothouse.container.v1.container_pb2 import CONTAINER_STATUS_RUNNING, Container
from pilothouse.namespace.v1.namespace_pb2 import Namespace, ResourceQuota
from pilothouse_client.errors import error_of
from tests.harness import PASSWORD, Server


async def test_examples_of_public_names(shared_server: Server, tmp_path: Path) -> None:
    token = await shared_server.token()
    (path := tmp_path / "token").write_text("no token of any issuer")
    found: dict[str, Any] = {name: getattr(pilothouse_client, name) for name in pilothouse_client.__all__}
    found |= {"asyncio": asyncio, "grpc": grpc, "error_of": error_of}
    found |= {each.__name__: each for each in (Container, FieldMask, Namespace, ResourceQuota)}
    found |= {"CONTAINER_STATUS_RUNNING": CONTAINER_STATUS_RUNNING}
    found |= {"address": shared_server.address, "password": PASSWORD, "token": token, "path": path}

    def run() -> list[str]:
        faults: list[str] = []
        finder = doctest.DocTestFinder(recurse=False)
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
        with pilothouse_client.Client(shared_server.address, token=token) as client:
            for name in pilothouse_client.__all__:
                for each in finder.find(found[name], name, module=False, globs={**found, "client": client}):
                    namespace = f"examples-{name.lower()}"
                    if any("namespace" in example.source for example in each.examples):
                        client.namespaces.create(namespace=Namespace(name=namespace))
                    each.globs["namespace"] = namespace
                    runner.run(each, out=faults.append)
        assert runner.summarize(verbose=False).attempted >= len(pilothouse_client.__all__)
        return faults

    faults = await asyncio.to_thread(run)
    assert not faults, "".join(faults)
