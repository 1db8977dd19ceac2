"""Runs a simulated cluster alone and prints its kubeconfig: `python -m pilothouse_server.cluster.simulated`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from pathlib import Path

import yaml

from .server import SimulatedCluster


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    cluster = SimulatedCluster(
        nodes=arguments.nodes,
        speed=arguments.speed,
        port=arguments.port,
        tls=True,
        token=arguments.token,
        state_path=arguments.state,
    )
    async with cluster:
        text = yaml.safe_dump(cluster.kubeconfig(), sort_keys=False)
        if arguments.kubeconfig is not None:
            await asyncio.to_thread(arguments.kubeconfig.write_text, text)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()
        await stop.wait()


def main() -> None:
    """Parses the command line and runs until interrupted."""
    parser = argparse.ArgumentParser(description="A simulated Kubernetes cluster.")
    parser.add_argument("--nodes", type=int, default=3, help="number of nodes")
    parser.add_argument("--speed", type=float, default=1.0, help="simulated seconds per real second")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--token", default=None, help="bearer token of clients (default: random)")
    parser.add_argument("--state", type=Path, default=None, help="file that keeps the cluster between runs")
    parser.add_argument(
        "--kubeconfig", type=Path, default=None, help="file to write (default: standard output)"
    )
    arguments = parser.parse_args()
    # Objects are trees without cycles, by the hundred thousand: a full collection finds nothing and takes a second.
    gc.set_threshold(100_000, 50, 1000)
    asyncio.run(_run(arguments))


if __name__ == "__main__":
    main()
