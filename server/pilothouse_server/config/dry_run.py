"""Tries a config map or secret on the cluster by a dry run: the part of `validate_only` that needs the cluster."""

from __future__ import annotations

from pilothouse_server.clusters.refusals import Connect, tried
from pilothouse_server.config import objects
from pilothouse_server.config.model import Config, Values
from pilothouse_server.kubernetes import warnings
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.conditions import cluster_warnings
from pilothouse_server.kubernetes.dry_run import dry_run_deletion
from pilothouse_server.kubernetes.errors import NotFound, Refused
from pilothouse_server.values.resources import ObjectWarning


async def check_on_cluster(
    connect: Connect, config: Config, values: Values | None = None
) -> tuple[ObjectWarning, ...]:
    """Tries a config map or secret, or its deletion if it is being deleted, on the cluster; changes nothing.

    Returns the warnings of the cluster. `values`: the plain values of a secret. No error and no warning repeats one.
    Raises as `tried`.
    """

    async def trial(client: ClusterClient) -> None:
        if config.deletion_requested_at is not None:
            await dry_run_config_deletion(client, config)
        else:
            await dry_run_config(client, config, values or {})

    with warnings.noted() as collected:
        await tried(connect, config.namespace_ref, trial)
    return cluster_warnings(objects.without_values(words, values or {}) for words in collected)


async def dry_run_config(client: ClusterClient, config: Config, values: Values) -> None:
    """Tries the ConfigMap or Secret. `values`: those of a secret; no refusal repeats one."""
    resource = objects.resource_of(config)
    found = await client.find(resource, config.kubernetes_namespace, config.kubernetes_name)
    objects.check_ours(config, found)
    try:
        await client.dry_run(resource, objects.manifest(config, values), force=True)
    except NotFound:
        return
    except Refused as refusal:
        if found is None or not objects.is_made_anew(config, refusal):
            raise objects.redacted(refusal, values) from None


async def dry_run_config_deletion(client: ClusterClient, config: Config) -> None:
    """Tries the deletion of the ConfigMap or Secret."""
    resource = objects.resource_of(config)
    found = await client.find(resource, config.kubernetes_namespace, config.kubernetes_name)
    if found is not None and objects.is_ours(config, found):
        await dry_run_deletion(client, resource, found, "Background")
