"""Asks the cluster what it would say to a config map or secret: the part of `validate_only` that only it can answer."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect, tried
from pilothouse_server.config.model import Config, Values
from pilothouse_server.kubernetes.dry_run import dry_run_config, dry_run_config_deletion


async def check_on_cluster(connect: Connect, config: Config, values: Values | None = None) -> None:
    """Have the cluster try it out, or its deletion if it is being deleted, and change nothing.

    `values` are a secret's, in the clear; no error repeats one. Raises as `tried`.
    """
    if config.deletion_requested_at is not None:
        await tried(connect, config.cluster_name, lambda client: dry_run_config_deletion(client, config))
    else:
        await tried(connect, config.cluster_name, lambda client: dry_run_config(client, config, values or {}))
