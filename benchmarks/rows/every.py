"""All rows by name, in the order of the table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from benchmarks.measure import Figure
from benchmarks.rows import (
    applications,
    auditing,
    by_http,
    changing,
    clusters,
    console,
    credentials,
    first_state,
    fresh,
    listing,
    pace,
    reading,
    snapshots,
    standing,
    starting,
    usage,
    watching,
    whole,
    writing,
)
from benchmarks.testbed import Testbed


@dataclass(frozen=True, slots=True)
class Row:
    """The subject of a row, its function, and whether it is measured by default.

    `printed` is the name of the row's first line in the table, if it differs from the row's own name.
    """

    about: str
    measure: Callable[[Testbed], AsyncIterator[Figure]]
    usual: bool = True
    printed: str = ""


ROWS: Mapping[str, Row] = {
    "1": Row("GetContainer", reading.get_container),
    "2": Row("CreateContainer", writing.create_container),
    "2c": Row("changes of containers", changing.change_container),
    "2d": Row("containers with sidecars", writing.create_with_sidecars),
    "2e": Row("containers with a Service", writing.create_with_service),
    "3": Row("the record and the event of a mutation", writing.audit),
    "4": Row("events to many watchers", watching.fan_out),
    "5": Row("commit to delivery", watching.latency),
    "snapshot": Row("rows 2 and 5 while a snapshot is held open", snapshots.snapshot, printed="2"),
    "6": Row("usage samples stored", usage.record_usage),
    "7": Row("first look at a cluster", clusters.observation),
    "pods": Row("a whole server with 5,000 pods", whole.whole_server, printed="7"),
    "kinds": Row("a whole server with 1,000 finished runs and 200 StatefulSets", whole.other_kinds),
    "8": Row("late pages of lists", listing.lists),
    "9": Row("a month of usage", usage.query_usage),
    "10": Row("two server processes", standing.processes),
    "11": Row("memory and idle processor time", standing.memory),
    "12": Row("start", standing.start),
    "13": Row("first state of a watch", first_state.first_state),
    "14": Row("Deployments of containers that are made", pace.deployments),
    "15": Row("containers made by one apply", applications.apply_application),
    "applies": Row("row 5 while applies run", applications.beside_applies, printed="15"),
    "16": Row("GetContainer by HTTP", by_http.by_http),
    "17": Row("the command's processor time", starting.command),
    "18": Row("the page in a browser", console.console, usual=False),
    "objects": Row("carried objects that are made", pace.objects),
    "audit": Row("the audit log as a transparency log", auditing.audit_log),
    "keys": Row("callers known by API keys", credentials.keys),
    "containers": Row("a hundred containers until they run", clusters.hundred_containers),
    "clone": Row("clone and make run, which installs all packages", fresh.make_run, usual=False),
}
