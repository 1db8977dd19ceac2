"""The simulated cluster as a program, for `pilothouse simulate-cluster` and for the process of `serve --dev`.

The simulator is a package of its own and imports nothing of the server. The format of its log lines and the rate
of garbage collection are the launcher's choice, so this module sets them for both programs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
import yaml

from pilothouse_server.runtime import log_lines
from pilothouse_server.runtime.process_tuning import collect_rarely
from pilothouse_simulator import SimulatedCluster, gateway_definitions

log = structlog.get_logger(__name__)


class SimulatorOrders(msgspec.Struct, frozen=True):
    """The orders that the launcher (`embedded.simulator`) sends to the process: JSON on standard input.

    `launcher` is its process id. `port` 0 means a free one. `definitions_path` is a file of CustomResourceDefinitions
    that the cluster serves next to those of the Gateway API, or empty.
    """

    launcher: int
    state_path: str
    token: str
    port: int
    log_level: str
    log_format: str
    definitions_path: str


async def simulate(cluster: SimulatedCluster, announce: Callable[[dict[str, Any]], None]) -> None:
    """Runs the cluster until SIGTERM or SIGINT; calls `announce` with its kubeconfig when it responds.

    Raises:
        OSError: its port or its state file is taken.
        ValueError: its state file cannot be read.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    collect_rarely()
    cluster.provide_load_balancers()
    async with cluster:
        announce(cluster.kubeconfig())
        await stopping.wait()


async def simulate_for_kubectl(
    nodes: int, speed: float, port: int, state_path: Path | None, announce: Callable[[dict[str, Any]], None]
) -> None:
    """Runs a cluster over TLS, as `simulate`: kubectl sends no token over plain HTTP."""
    cluster = SimulatedCluster(nodes=nodes, speed=speed, port=port, state_path=state_path, tls=True,
                               definitions=gateway_definitions())  # fmt: skip
    await simulate(cluster, announce)


def main() -> int:
    """Runs the process of `serve --dev`: reads orders from standard input, writes the kubeconfig to standard output."""
    orders = msgspec.json.decode(sys.stdin.buffer.read(), type=SimulatorOrders)
    log_lines.configure(orders.log_level, orders.log_format)
    if os.getppid() != orders.launcher:
        # The launcher was killed before the kernel registered that this process ends with it.
        return 1
    try:
        definitions = read_definitions(Path(orders.definitions_path)) if orders.definitions_path else []
        cluster = SimulatedCluster(
            port=orders.port,
            token=orders.token,
            state_path=Path(orders.state_path),
            definitions=[*gateway_definitions(), *definitions],
        )
        asyncio.run(simulate(cluster, _announce))
    except (OSError, ValueError) as error:
        log.error("the simulated cluster cannot run", why=str(error))
        return 1
    return 0


def read_definitions(path: Path) -> list[dict[str, Any]]:
    """Returns the CustomResourceDefinitions in a file of YAML or JSON documents.

    Raises:
        OSError: it cannot be read.
        ValueError: it contains something else.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML") from error
    for document in documents:
        if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
            raise ValueError(f"{path} may contain CustomResourceDefinitions only")
    return documents


def _announce(kubeconfig: dict[str, Any]) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(kubeconfig) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
