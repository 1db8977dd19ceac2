"""All SQL about containers, their images and their history."""

from __future__ import annotations

from pilothouse_server.containers.repository.cached import find_cached
from pilothouse_server.containers.repository.changing import (
    ContainerChange,
    HistoryLine,
    admit_change,
    draft_change,
    write_change,
)
from pilothouse_server.containers.repository.containers import (
    PlacedContainer,
    count,
    count_alone,
    find,
    get,
    get_many,
    get_many_placed,
    list_ready,
    remove_all,
    stream_containers,
    stream_ready,
    usage_of_quota,
)
from pilothouse_server.containers.repository.creation import (
    Creation,
    FactReader,
    ReadOnce,
    admit,
    admit_draft,
    admit_many,
    allowed_external_sources,
    allowed_hosts,
    draft_creation,
    service_limits,
    storage_limits,
    version_of_cluster,
    write,
    write_many,
)
from pilothouse_server.containers.repository.history import list_history
from pilothouse_server.containers.repository.images import (
    count_users,
    delete_image,
    find_image,
    list_images,
)
from pilothouse_server.containers.repository.pods import list_observed_pods, list_pods
from pilothouse_server.containers.repository.runs import (
    find_run_name,
    list_runs,
    run_event,
    runs_by_id,
    stream_runs,
)
from pilothouse_server.containers.repository.sources import users_of_claim, users_of_source

__all__ = [
    "ContainerChange",
    "Creation",
    "FactReader",
    "HistoryLine",
    "PlacedContainer",
    "ReadOnce",
    "admit",
    "admit_change",
    "admit_draft",
    "admit_many",
    "allowed_external_sources",
    "allowed_hosts",
    "count",
    "count_alone",
    "count_users",
    "delete_image",
    "draft_change",
    "draft_creation",
    "find",
    "find_cached",
    "find_image",
    "find_run_name",
    "get",
    "get_many",
    "get_many_placed",
    "list_history",
    "list_images",
    "list_observed_pods",
    "list_pods",
    "list_ready",
    "list_runs",
    "remove_all",
    "run_event",
    "runs_by_id",
    "service_limits",
    "storage_limits",
    "stream_containers",
    "stream_ready",
    "stream_runs",
    "usage_of_quota",
    "users_of_claim",
    "users_of_source",
    "version_of_cluster",
    "write",
    "write_change",
    "write_many",
]
