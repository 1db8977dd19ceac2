"""All rows by name, in the order of the table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from benchmarks.measure import Figure
from benchmarks.rows import clusters, fresh, listing, reading, standing, usage, watching, whole, writing
from benchmarks.world import World


@dataclass(frozen=True, slots=True)
class Row:
    """What a row is about, how it is measured, and whether it is measured unless others are asked for."""

    about: str
    measure: Callable[[World], AsyncIterator[Figure]]
    usual: bool = True


ROWS: Mapping[str, Row] = {
    "1": Row("GetContainer", reading.get_container),
    "2": Row("CreateContainer", writing.create_container),
    "3": Row("the audit record of a mutation", writing.audit),
    "4": Row("events to many watchers", watching.fan_out),
    "5": Row("commit to delivery", watching.latency),
    "6": Row("usage samples stored", usage.record_usage),
    "7": Row("first look at a cluster", clusters.observation),
    "pods": Row("a whole server with 5,000 pods", whole.whole_server),
    "8": Row("a late page of a list", listing.list_operations),
    "9": Row("a month of usage", usage.query_usage),
    "10": Row("two server processes", standing.processes),
    "11": Row("memory", standing.memory),
    "12": Row("start", standing.start),
    "containers": Row("a hundred containers until they run", clusters.hundred_containers),
    "clone": Row("clone and make run, which installs all packages", fresh.make_run, usual=False),
}
