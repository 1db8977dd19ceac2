"""All SQL of the overview and the search. It reads tables of many nouns, under the caller's row-level security.

The counts of containers come from an index alone (`idx_containers_namespace_status`). A search reads every row that the
caller may list, because no index serves parts of words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import BigInteger, Integer, String, select, text
from sqlalchemy.dialects.postgresql import JSONB

from pilothouse_server.dashboard.model import Count, Found, SeenNamespace, Sights, UsagePoint, Wrong
from pilothouse_server.namespaces.model import Quota
from pilothouse_server.store.paging import (
    NextPage,
    OrderColumn,
    OrderSpec,
    PageRequest,
    finish_page,
    paginate,
)
from pilothouse_server.store.unit_of_work import ReadTransaction
from pilothouse_server.values.quantity import Quantity


class _Noun(NamedTuple):
    """A noun's table, the columns that it shows, and the condition under which a row needs attention.

    `urgency` orders such rows, the lowest first.
    """

    table: str
    wrong: str = "false"
    urgency: str = "9"
    status: str = "status"
    reason: str = "coalesce(reason, '')"
    message: str = "coalesce(message, '')"
    kind: str = "''"
    image: str = "''"
    restarts: str = "0"


# Reasons for which a pending container does not start by itself.
_STUCK = (
    "'ImagePullBackOff', 'ErrImagePull', 'InvalidImageName', 'ErrImageNeverPull', 'CreateContainerConfigError', "
    "'CreateContainerError', 'Unschedulable', 'FailedMount', 'FailedCreate', 'RunContainerError'"
)
_NOUNS: Final[Mapping[str, _Noun]] = {
    "application": _Noun("applications", "status IN ('degraded', 'missing')", "1"),
    "container": _Noun(
        "containers",
        f"(status IN ('failed', 'crash_loop_back_off') OR (status = 'pending' AND reason IN ({_STUCK})))",
        "CASE status WHEN 'crash_loop_back_off' THEN 2 WHEN 'failed' THEN 3 ELSE 4 END",
        image="coalesce(spec ->> 'image', '')",
        restarts="restart_count",
    ),
    "service": _Noun("services", "status = 'failed'", "6"),
    "object": _Noun("objects", "(status = 'failed' OR health = 'degraded')", "5", kind="kind"),
    "volume": _Noun("volumes", "status = 'failed'", "7"),
    "config": _Noun(
        "(SELECT id, uid, name, namespace_id, labels, updated_at, 'ConfigMap' AS kind FROM config_maps UNION ALL "
        "SELECT id, uid, name, namespace_id, labels, updated_at, 'Secret' FROM secrets) AS configs",
        status="''",
        reason="''",
        message="''",
        kind="kind",
    ),
}
# Nouns in the order of search results.
SEARCHED: Final = ("namespace", *_NOUNS)
_NAMESPACES = text(
    "SELECT n.id, n.name, n.cluster_name, n.resource_quota, k.stale_since FROM namespaces AS n "
    "LEFT JOIN clusters AS k ON k.name = n.cluster_name AND k.deleted_at IS NULL "
    "WHERE n.deleted_at IS NULL ORDER BY n.name"
)
_USED = text(
    "SELECT namespace_id, sum(containers) AS containers, sum(cpu_millicores) AS cpu, sum(memory_bytes) AS memory "
    "FROM quota_counters WHERE namespace_id = ANY (CAST(:ids AS bigint[])) GROUP BY namespace_id"
)


async def namespaces(transaction: ReadTransaction) -> list[SeenNamespace]:
    """Returns the namespaces that exist and that the caller may read, by name."""
    rows: Sequence[Any] = (await transaction.connection.execute(_NAMESPACES)).all()
    return [
        SeenNamespace(
            row.id,
            row.name,
            row.cluster_name,
            msgspec.convert(row.resource_quota, Quota) if row.resource_quota else None,
            row.stale_since,
        )
        for row in rows
    ]


async def count(transaction: ReadTransaction, sights: Sights, namespace_id: int | None) -> list[Count]:
    """Returns the numbers of resources by noun, namespace and status."""
    parts = [
        f"SELECT '{word}' AS noun, namespace_id, {noun.status} AS status, count(*) AS count FROM {noun.table} "  # noqa: S608 - our own words
        f"WHERE {where} GROUP BY 2, 3"
        for word, noun, where in _narrowed(sights, namespace_id)
    ]
    return [Count(*row) for row in await _rows(transaction, parts, sights, namespace_id)]


async def count_wrong(
    transaction: ReadTransaction, sights: Sights, namespace_id: int | None
) -> dict[int, int]:
    """Returns the numbers of resources that need attention, by namespace."""
    parts = [
        f"SELECT namespace_id, count(*) AS count FROM {noun.table} WHERE {noun.wrong} AND {where} GROUP BY 1"  # noqa: S608
        for _, noun, where in _narrowed(sights, namespace_id)
    ]
    found: dict[int, int] = {}
    for row in await _rows(transaction, parts, sights, namespace_id):
        found[row.namespace_id] = found.get(row.namespace_id, 0) + row.count
    return found


async def worst(
    transaction: ReadTransaction, sights: Sights, namespace_id: int | None, most: int
) -> list[Wrong]:
    """Returns the resources that need attention, the most urgent first, and then the latest."""
    parts = [
        f"(SELECT '{word}' AS noun, namespace_id, name, {noun.kind} AS kind, {noun.status} AS status, "  # noqa: S608
        f"{noun.reason} AS reason, {noun.message} AS message, {noun.restarts} AS restarts, updated_at, "
        f"{noun.urgency} AS urgency FROM {noun.table} WHERE {noun.wrong} AND {where} "
        "ORDER BY urgency, updated_at DESC LIMIT :most)"
        for word, noun, where in _narrowed(sights, namespace_id)
    ]
    query = (
        "SELECT w.noun, n.name, w.name, w.kind, upper(w.status), w.reason, w.message, w.restarts, w.updated_at "  # noqa: S608
        f"FROM ({' UNION ALL '.join(parts)}) AS w JOIN namespaces AS n ON n.id = w.namespace_id "
        "ORDER BY w.urgency, w.updated_at DESC LIMIT :most"
    )
    rows = await _rows(transaction, [query] if parts else [], sights, namespace_id, most=most)
    return [Wrong(*row) for row in rows]


async def used(transaction: ReadTransaction, ids: Sequence[int]) -> dict[int, Quota]:
    """Returns the sums that count against the quotas of namespaces: containers, cores and memory."""
    rows: Sequence[Any] = (await transaction.connection.execute(_USED, {"ids": list(ids)})).all()
    return {
        row.namespace_id: Quota(
            int(row.containers),
            Quantity.from_millicores(int(row.cpu)).text,
            Quantity.from_bytes(int(row.memory)).text,
        )
        for row in rows
    }


async def usage(
    transaction: ReadTransaction, sights: Sights, namespace_id: int | None, since: int, step: int, bucket: int
) -> list[UsagePoint]:
    """Returns sums over the containers of each namespace, from `since` on.

    They are averages over steps of `step` seconds that consist of roll-ups of `bucket` seconds.
    """
    table = "container_usage_hourly" if bucket < 86_400 else "container_usage_daily"
    sight = {"usage": sights["usage"]}
    where = _where("usage", sight["usage"], namespace_id)
    query = (
        "SELECT namespace_id, to_timestamp(floor(extract(epoch FROM bucket) / :step) * :step) AS at, "  # noqa: S608
        "CAST(coalesce(sum(cpu_cores_avg), 0) / :buckets AS double precision) AS cpu, "
        "CAST(coalesce(sum(memory_bytes_avg), 0) / :buckets AS double precision) AS memory "
        f"FROM {table} WHERE bucket >= to_timestamp(:since) AND {where} GROUP BY 1, 2"
    )
    rows = await _rows(
        transaction,
        [query],
        sight,
        namespace_id,
        "ORDER BY namespace_id, at",
        since=since,
        step=step,
        buckets=step // bucket,
    )
    return [UsagePoint(*row) for row in rows]


async def search(
    transaction: ReadTransaction,
    page: PageRequest,
    words: Sequence[str],
    sights: Sights,
    namespace_id: int | None,
) -> tuple[list[Found], NextPage]:
    """Returns a page of the resources that contain all words, by noun and name."""
    parts = []
    for word in sights:
        rank, where = SEARCHED.index(word), _where(word, sights[word], namespace_id)
        noun = _NOUNS.get(word) or _Noun("namespaces")
        place = "namespace_id" if word in _NOUNS else "id"
        living = "true" if word in _NOUNS else "deleted_at IS NULL"
        texts = (
            f"lower(concat_ws(' ', name, {noun.status}, {noun.reason}, {noun.image}, {noun.kind}, "
            "replace(replace(CAST(labels AS text), '\": \"', '='), '\"', ' ')))"
        )
        matches = " AND ".join(f"strpos({texts}, :word_{index}) > 0" for index in range(len(words)))
        parts.append(
            f"SELECT {rank} AS rank, '{word}' AS noun, id, {place} AS place, name, CAST(uid AS text) AS uid, "  # noqa: S608
            f"{noun.kind} AS kind, {noun.status} AS status, {noun.reason} AS reason, {noun.image} AS image, labels "
            f"FROM {noun.table} WHERE {matches} AND {living} AND "
            + (where if word in _NOUNS else where.replace("namespace_id", "id"))
        )
    found = (
        text(
            "SELECT f.rank, f.noun, f.id, f.name, f.uid, f.kind, f.status, f.reason, f.image, f.labels, "  # noqa: S608
            "CASE f.noun WHEN 'namespace' THEN '' ELSE n.name END AS namespace "
            f"FROM ({' UNION ALL '.join(parts)}) AS f JOIN namespaces AS n ON n.id = f.place"
        )
        .bindparams(
            **_parameters(sights, namespace_id),
            **{f"word_{index}": word.lower() for index, word in enumerate(words)},
        )
        .columns(
            rank=Integer(),
            noun=String(),
            id=BigInteger(),
            name=String(),
            uid=String(),
            kind=String(),
            status=String(),
            reason=String(),
            image=String(),
            labels=JSONB(),
            namespace=String(),
        )
        .subquery("found")
    )
    # The ids of config maps and secrets overlap, so the order includes the kind.
    order = OrderSpec(
        (
            *(OrderColumn(name, found.c[name]) for name in ("rank", "name", "kind")),
            OrderColumn("", found.c.id),
        )
    )
    rows, next_page = finish_page(
        (await transaction.connection.execute(paginate(select(found), order, page))).all(), order, page
    )
    return [
        Found(
            row.noun,
            row.namespace,
            row.name,
            row.uid,
            row.kind,
            row.status.upper(),
            row.reason,
            row.image,
            row.labels,
        )
        for row in rows
    ], next_page


def _narrowed(sights: Sights, namespace_id: int | None) -> Iterable[tuple[str, _Noun, str]]:
    for word, noun in _NOUNS.items():
        if word in sights:
            yield word, noun, _where(word, sights[word], namespace_id)


def _where(word: str, sight: frozenset[int] | None, namespace_id: int | None) -> str:
    conditions = ["true"] if sight is None else [f"namespace_id = ANY (CAST(:in_{word} AS bigint[]))"]
    if namespace_id is not None:
        conditions.append("namespace_id = :in_namespace")
    return " AND ".join(conditions)


def _parameters(sights: Sights, namespace_id: int | None) -> dict[str, Any]:
    given: dict[str, Any] = {f"in_{word}": list(sight) for word, sight in sights.items() if sight is not None}
    if namespace_id is not None:
        given["in_namespace"] = namespace_id
    return given


async def _rows(
    transaction: ReadTransaction,
    parts: Sequence[str],
    sights: Sights,
    namespace_id: int | None,
    end: str = "",
    **more: Any,
) -> Sequence[Any]:
    if not parts:
        return []
    query = f"{' UNION ALL '.join(parts)} {end}"
    given = {**_parameters(sights, namespace_id), **more}
    # The query may not have the parameters of every noun.
    given = {name: value for name, value in given.items() if f":{name}" in query}
    return (await transaction.connection.execute(text(query), given)).all()
