"""SQL for applications: their rows, the present state of their members, and the documents of their revisions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import orjson
from sqlalchemy import ColumnElement, and_, bindparam, case, delete, func, insert, select, text, update

from pilothouse_server.applications.health import (
    PROGRESS_DEADLINE_SECONDS,
    PresentState,
    becomes_unschedulable,
    health_in_step,
    member_health,
)
from pilothouse_server.applications.model import (
    ApplicationResource,
    FollowedApplication,
    Member,
    MemberKey,
    MemberPlace,
    UserRef,
)
from pilothouse_server.applications.tables import APPLICATION_DOCUMENTS, APPLICATION_MEMBERS, APPLICATIONS
from pilothouse_server.errors import already_exists
from pilothouse_server.revisions.tables import REVISIONS
from pilothouse_server.runtime.event_loop import cooperatively
from pilothouse_server.store.errors import register_constraint
from pilothouse_server.store.filtering import FilterField, FilterKind, compile_filter, filter_fields
from pilothouse_server.store.in_namespaces import Matching, narrowed, read_matching
from pilothouse_server.store.paging import (
    NextPage,
    OrderField,
    PageRequest,
    finish_page,
    paginate_rows,
    parse_order_by,
)
from pilothouse_server.store.references import IN_NAMESPACE, NAMESPACES, USERS, keys_of, namespace_ref
from pilothouse_server.store.results import Row
from pilothouse_server.store.unit_of_work import ReadTransaction, Transaction
from pilothouse_server.values.labels import LabelSelector
from pilothouse_server.values.resources import Condition

register_constraint("uq_applications_name", lambda: already_exists("application", "of this name"))

_STATUSES = {name.upper(): name for name in ("healthy", "progressing", "degraded", "suspended", "missing")}
_FILTERS = {
    "status": FilterField(APPLICATIONS.c.status, FilterKind.ENUM, _STATUSES, "APPLICATION_STATUS_"),
    "namespace": FilterField(NAMESPACES.c.name),
    **filter_fields(APPLICATIONS, "name reason message uid create_time update_time labels"),
    "revision": FilterField(APPLICATIONS.c.revision_number, FilterKind.NUMBER),
    "revisions_kept": FilterField(APPLICATIONS.c.revisions_kept, FilterKind.INTEGER),
    "rollback_on_failure": FilterField(APPLICATIONS.c.rollback_on_failure, FilterKind.BOOLEAN),
    "progress_deadline_seconds": FilterField(APPLICATIONS.c.progress_deadline_seconds, FilterKind.INTEGER),
    "created_by": FilterField(USERS.c.username),
}
_ORDERS = {
    "name": OrderField(APPLICATIONS.c.name),
    "create_time": OrderField(APPLICATIONS.c.created_at),
}
_WHOLE = select(APPLICATIONS, *IN_NAMESPACE, USERS.c.username.label("creator")).select_from(
    # An ended namespace contains no applications, so this query need not exclude ended ones.
    APPLICATIONS.join(NAMESPACES, NAMESPACES.c.id == APPLICATIONS.c.namespace_id).outerjoin(
        USERS, USERS.c.id == APPLICATIONS.c.created_by
    )
)
_FIND = _WHOLE.where(NAMESPACES.c.name == bindparam("namespace"), APPLICATIONS.c.name == bindparam("name"))
_GET = _WHOLE.where(APPLICATIONS.c.id == bindparam("application_id"))
# Two applies of one namespace would change each other's members.
_TAKE_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('apply ' || :namespace_id, 0))")
_MEMBERS = text("""
SELECT m.application_id, m.resource_type, m.api_group, m.object_kind, m.name, m.api_version, m.kind, m.generation,
    m.phase, m.wave, m.step, m.hook, m.pruned, m.delete_on, m.outcome, m.outcome_reason, m.outcome_message,
    p.id AS present_id, p.generation AS present_generation, p.status, p.reason, p.message, p.state, p.conditions,
    p.applied, p.going, u.username, now() AS moment
FROM application_members AS m LEFT JOIN LATERAL (
    SELECT id, generation, status, reason, message, desired_state AS state, conditions, updated_by,
        observed_generation >= generation AS applied, deletion_requested_at IS NOT NULL AS going
    FROM containers WHERE m.resource_type = 'container' AND namespace_id = m.namespace_id AND name = m.name
    UNION ALL
    SELECT id, generation, status, reason, message, '', conditions, updated_by, observed_generation >= generation,
        deletion_requested_at IS NOT NULL
    FROM services WHERE m.resource_type = 'service' AND namespace_id = m.namespace_id AND name = m.name
    UNION ALL
    SELECT id, generation, status, reason, message, health, conditions, updated_by, observed_generation >= generation,
        deletion_requested_at IS NOT NULL
    FROM objects WHERE m.resource_type = 'object' AND namespace_id = m.namespace_id AND api_group = m.api_group
        AND kind = m.object_kind AND name = m.name
    UNION ALL
    SELECT id, generation, status, reason, message, type, conditions, updated_by, observed_generation >= generation,
        deletion_requested_at IS NOT NULL
    FROM volumes WHERE m.resource_type = 'volume' AND namespace_id = m.namespace_id AND name = m.name
    UNION ALL
    SELECT id, generation, '', '', '', '', conditions, updated_by, observed_generation >= generation,
        deletion_requested_at IS NOT NULL
    FROM config_maps WHERE m.resource_type = 'config_map' AND namespace_id = m.namespace_id AND name = m.name
    UNION ALL
    SELECT id, generation, '', '', '', '', conditions, updated_by, observed_generation >= generation,
        deletion_requested_at IS NOT NULL
    FROM secrets WHERE m.resource_type = 'secret' AND namespace_id = m.namespace_id AND name = m.name
) AS p ON true LEFT JOIN users AS u ON u.id = p.updated_by
WHERE m.application_id = ANY (CAST(:ids AS bigint[]))
ORDER BY m.application_id, m.step, m.kind, m.name
""")
# The fingerprint changes with any desired state, application or membership of a namespace, but not with statuses.
_MARKED = (
    *(f"{table} WHERE deletion_requested_at IS NULL AND" for table in ("containers", "services", "objects")),
    *(f"{table} WHERE deletion_requested_at IS NULL AND" for table in ("volumes", "config_maps", "secrets")),
    "application_members WHERE",
    "(SELECT id, namespace_id, 1000 * CAST(revision_number AS bigint) + step AS generation FROM applications) AS a "
    "WHERE",
)
_MARK = text(
    "SELECT concat_ws('/', "
    + ", ".join(
        f"(SELECT count(*) || ':' || COALESCE(sum(hashint8extended(id, generation)), 0) "  # noqa: S608
        f"FROM {rows} namespace_id = :namespace_id)"
        for rows in _MARKED
    )
    + ")"
)
_OWNERS = text("""
SELECT m.resource_type, m.api_group, m.object_kind, m.name, a.name AS application
FROM application_members AS m JOIN applications AS a ON a.id = m.application_id
WHERE m.namespace_id = :namespace_id
""")
_ADD_MEMBERS = text("""
INSERT INTO application_members
    (application_id, namespace_id, resource_type, api_group, object_kind, name, api_version, kind, generation, phase,
    wave, step, hook, pruned, delete_on, outcome, outcome_reason, outcome_message)
SELECT :application_id, :namespace_id, r.resource_type, r.api_group, r.object_kind, r.name, r.api_version, r.kind,
    r.generation, r.phase, r.wave, r.step, r.hook, r.pruned, r.delete_on, r.outcome, r.outcome_reason,
    r.outcome_message
FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
    resource_type text, api_group text, object_kind text, name text, api_version text, kind text, generation bigint,
    phase text, wave integer, step integer, hook boolean, pruned boolean, delete_on jsonb, outcome text,
    outcome_reason text, outcome_message text)
""")
_ADD_DOCUMENTS = text("""
INSERT INTO application_documents (application_id, namespace_id, digest, document)
SELECT :application_id, :namespace_id, r.digest, r.document
FROM unnest(CAST(:digests AS text[]), CAST(:documents AS text[])) AS r(digest, document)
ON CONFLICT ON CONSTRAINT uq_application_documents_digest DO NOTHING
""")
# Deletes older revisions whose documents, together with those of newer revisions, exceed `most_bytes`.
_FORGET_LARGE = text("""
DELETE FROM revisions WHERE resource_type = 'application' AND resource_id = :application_id AND number IN (
    SELECT f.number FROM (
        SELECT d.number, sum(d.bytes) OVER (ORDER BY d.number DESC) AS total, max(d.number) OVER () AS newest
        FROM (
            SELECT max(r.number) AS number, octet_length(t.document) AS bytes
            FROM revisions AS r
            CROSS JOIN LATERAL jsonb_array_elements(r.document -> 'documents') AS e
            JOIN application_documents AS t ON t.application_id = r.resource_id AND t.digest = e ->> 'digest'
            WHERE r.resource_type = 'application' AND r.resource_id = :application_id
            GROUP BY t.digest, t.document) AS d) AS f
    WHERE f.total > :most_bytes AND f.number < f.newest)
""")
_FORGET_DOCUMENTS = text("""
DELETE FROM application_documents AS d WHERE d.application_id = :application_id AND NOT EXISTS (
    SELECT FROM revisions AS r CROSS JOIN LATERAL jsonb_array_elements(r.document -> 'documents') AS e
    WHERE r.resource_type = 'application' AND r.resource_id = d.application_id AND e ->> 'digest' = d.digest)
""")


_HAS_STATUS_WORK = text(
    "SELECT EXISTS (SELECT FROM application_changes) "
    "OR EXISTS (SELECT FROM applications WHERE look_at <= clock_timestamp())"
)
_LOCK_STATUS_WORK = text("""
SELECT id FROM applications
WHERE id IN (SELECT application_id FROM application_changes) OR look_at <= clock_timestamp()
ORDER BY id LIMIT :most FOR NO KEY UPDATE SKIP LOCKED
""")
_TAKE_NOTES = text("""
DELETE FROM application_changes AS c WHERE c.application_id = ANY (CAST(:ids AS bigint[]))
    OR NOT EXISTS (SELECT FROM applications AS a WHERE a.id = c.application_id)
""")
_LOCK = text("SELECT id FROM applications WHERE id = :application_id FOR NO KEY UPDATE")
_LOCK_NAMED = text(
    "SELECT id FROM applications WHERE namespace_id = :namespace_id AND name = :name FOR NO KEY UPDATE"
)
_HOLD = text("""
WITH found AS (
    SELECT w.resource_type, w.resource_id FROM reconcile_work AS w
    JOIN unnest(CAST(:types AS text[]), CAST(:ids AS bigint[])) AS r(resource_type, resource_id)
        USING (resource_type, resource_id)
    ORDER BY w.resource_type, w.resource_id FOR UPDATE OF w)
UPDATE reconcile_work AS w
SET held = :held, due_at = CASE WHEN :held THEN w.due_at ELSE LEAST(w.due_at, clock_timestamp()) END,
    attempts = CASE WHEN :held THEN w.attempts ELSE 0 END
FROM found WHERE w.resource_type = found.resource_type AND w.resource_id = found.resource_id
""")
_WRITE_OUTCOMES = text("""
UPDATE application_members AS m
SET outcome = r.outcome, outcome_reason = NULLIF(r.reason, ''), outcome_message = NULLIF(r.message, '')
FROM unnest(CAST(:types AS text[]), CAST(:groups AS text[]), CAST(:kinds AS text[]), CAST(:names AS text[]),
    CAST(:outcomes AS text[]), CAST(:reasons AS text[]), CAST(:messages AS text[]))
    AS r(resource_type, api_group, object_kind, name, outcome, reason, message)
WHERE m.application_id = :application_id AND m.resource_type = r.resource_type AND m.api_group = r.api_group
    AND m.object_kind = r.object_kind AND m.name = r.name
""")
_APPLIER = USERS.alias("applier")
_FOLLOWED = select(
    APPLICATIONS,
    *IN_NAMESPACE,
    USERS.c.username.label("creator"),
    REVISIONS.c.created_by.label("applier_id"),
    _APPLIER.c.username.label("applier"),
).select_from(
    APPLICATIONS.join(NAMESPACES, NAMESPACES.c.id == APPLICATIONS.c.namespace_id)
    .outerjoin(USERS, USERS.c.id == APPLICATIONS.c.created_by)
    # The user who applied the newest revision; `updated_by` may name another user, who paused the application since.
    .outerjoin(
        REVISIONS,
        and_(
            REVISIONS.c.resource_type == "application",
            REVISIONS.c.resource_id == APPLICATIONS.c.id,
            REVISIONS.c.number == APPLICATIONS.c.revision_number,
        ),
    )
    .outerjoin(_APPLIER, _APPLIER.c.id == REVISIONS.c.created_by)
)


async def take_turn(transaction: Transaction, namespace_id: int) -> bool:
    """Locks the namespace against other applies until the transaction ends; returns False if one is in progress."""
    found = await transaction.connection.execute(_TAKE_TURN, {"namespace_id": str(namespace_id)})
    return bool(found.scalar_one())


async def find(
    transaction: ReadTransaction, namespace: str, name: str, *, lock: bool = False
) -> ApplicationResource | None:
    """Returns the application of this name, if the caller may see it. `lock` locks its row."""
    query = _FIND.with_for_update(of=APPLICATIONS, key_share=True) if lock else _FIND
    row = (await transaction.connection.execute(query, {"namespace": namespace, "name": name})).one_or_none()
    return None if row is None else (await _with_members(transaction, [row]))[0]


async def get(transaction: ReadTransaction, application_id: int) -> ApplicationResource:
    """Returns the application with this id, which the transaction has written."""
    row = (await transaction.connection.execute(_GET, {"application_id": application_id})).one()
    return (await _with_members(transaction, [row]))[0]


async def list_applications(
    transaction: ReadTransaction,
    page: PageRequest,
    *,
    namespace_id: int | None,
    selector: LabelSelector | None,
    visible: Collection[int] | None,
) -> tuple[Sequence[ApplicationResource], NextPage]:
    """Returns one page of the applications of one namespace or of those in `visible`, and where the next begins."""
    keys = keys_of(APPLICATIONS, compile_filter(page.filter, _FILTERS))
    keys = narrowed(keys, APPLICATIONS, namespace_id, selector, visible)
    order = parse_order_by(page.order_by, _ORDERS, default="name", unique=APPLICATIONS.c.id)
    query = paginate_rows(_WHOLE, keys, APPLICATIONS.c.id, order, page)
    rows = (await transaction.connection.execute(query)).all()
    rows, next_page = finish_page(rows, order, page)
    return await _with_members(transaction, rows), next_page


async def stream_applications(
    transaction: ReadTransaction, wanted: Matching
) -> AsyncIterator[ApplicationResource]:
    """Yields every application that matches, by namespace and name."""
    async for rows in read_matching(transaction.connection, _WHOLE, APPLICATIONS, wanted, most_rows=50):
        for each in await _with_members(transaction, rows):
            yield each


async def count(transaction: ReadTransaction, namespace_id: int) -> int:
    """Returns how many applications a namespace contains."""
    query = select(func.count()).where(APPLICATIONS.c.namespace_id == namespace_id)
    return int((await transaction.connection.execute(query)).scalar_one())


async def insert_application(transaction: Transaction, wanted: ApplicationResource) -> int:
    """Adds an application and returns its id."""
    statement = (
        insert(APPLICATIONS)
        .values(
            name=wanted.name,
            namespace_id=wanted.namespace_id,
            created_by=transaction.actor.user_id,
            deadline_at=_deadline(wanted),
            **_changeable(transaction, wanted),
        )
        .returning(APPLICATIONS.c.id)
    )
    return int((await transaction.connection.execute(statement)).scalar_one())


async def update_application(transaction: Transaction, wanted: ApplicationResource) -> None:
    """Writes an application that the transaction has locked, as its next version."""
    await transaction.connection.execute(
        update(APPLICATIONS)
        .where(APPLICATIONS.c.id == wanted.id)
        .values(
            resource_version=APPLICATIONS.c.resource_version + 1,
            updated_at=func.now(),
            # Only a new revision gets a new deadline.
            deadline_at=case(
                (APPLICATIONS.c.revision_number == wanted.revision, APPLICATIONS.c.deadline_at),
                else_=_deadline(wanted),
            ),
            **_changeable(transaction, wanted),
        )
    )


async def has_status_work(transaction: ReadTransaction) -> bool:
    """Returns whether the status of any application has to be written."""
    return bool((await transaction.connection.execute(_HAS_STATUS_WORK)).scalar_one())


async def take_status_work(transaction: Transaction, most: int) -> list[FollowedApplication]:
    """Removes the change rows of some applications that no other transaction has locked; returns these, locked."""
    ids = list((await transaction.connection.execute(_LOCK_STATUS_WORK, {"most": most})).scalars())
    # A change row that is committed later stays in the table, so its members will be read again.
    await transaction.connection.execute(_TAKE_NOTES, {"ids": ids})
    query = _FOLLOWED.where(APPLICATIONS.c.id.in_(ids)).order_by(APPLICATIONS.c.id)
    rows = (await transaction.connection.execute(query)).all()
    applications = await _with_members(transaction, rows)
    return [_followed(row, each) for row, each in zip(rows, applications, strict=True)]


async def find_followed(transaction: ReadTransaction, application_id: int) -> FollowedApplication | None:
    """Returns an application with all that decides on its rollback; None if it was deleted."""
    query = _FOLLOWED.where(APPLICATIONS.c.id == application_id)
    rows = (await transaction.connection.execute(query)).all()
    applications = await _with_members(transaction, rows)
    return _followed(rows[0], applications[0]) if rows else None


async def lock_application(transaction: Transaction, application_id: int) -> None:
    """Locks the row of an application until the transaction ends."""
    await transaction.connection.execute(_LOCK, {"application_id": application_id})


async def lock_named(transaction: Transaction, namespace_id: int, name: str) -> None:
    """Locks the row of an application, if there is one, until the transaction ends."""
    await transaction.connection.execute(_LOCK_NAMED, {"namespace_id": namespace_id, "name": name})


async def hold(transaction: Transaction, resources: Sequence[tuple[str, int]]) -> None:
    """Makes the reconciler skip resources, given by type and id, until they are released."""
    await _set_held(transaction, resources, held=True)


async def release(transaction: Transaction, resources: Sequence[tuple[str, int]]) -> None:
    """Makes the reconciler apply resources that were held."""
    await _set_held(transaction, resources, held=False)


async def _set_held(transaction: Transaction, resources: Sequence[tuple[str, int]], *, held: bool) -> None:
    if resources:
        types, ids = zip(*resources, strict=True)
        await transaction.connection.execute(_HOLD, {"types": types, "ids": ids, "held": held})


async def write_outcomes(transaction: Transaction, application_id: int, hooks: Sequence[Member]) -> None:
    """Writes how hooks of an application have ended."""
    if hooks:
        parameters = {
            "application_id": application_id,
            "types": [each.key.noun for each in hooks],
            "groups": [each.key.api_group for each in hooks],
            "kinds": [each.key.kind for each in hooks],
            "names": [each.key.name for each in hooks],
            "outcomes": [each.outcome for each in hooks],
            "reasons": [each.outcome_reason for each in hooks],
            "messages": [each.outcome_message for each in hooks],
        }
        await transaction.connection.execute(_WRITE_OUTCOMES, parameters)


async def write_status(
    transaction: Transaction, followed: FollowedApplication, look_at: datetime | None
) -> None:
    """Writes the observed state of an application that the transaction has locked."""
    application = followed.application
    await transaction.connection.execute(
        update(APPLICATIONS)
        .where(APPLICATIONS.c.id == application.id)
        .values(
            status=application.status,
            reason=application.reason or None,
            message=application.message or None,
            healthy_since=followed.healthy_since,
            deadline_at=followed.deadline_at,
            not_rolled_back=followed.not_rolled_back or None,
            look_at=look_at,
            step=application.step,
            installed=application.installed,
        )
    )


async def delete_application(transaction: Transaction, application_id: int) -> None:
    """Removes an application with its members, documents and revisions; its objects stay."""
    await transaction.connection.execute(delete(APPLICATIONS).where(APPLICATIONS.c.id == application_id))


async def mark(transaction: ReadTransaction, namespace_id: int) -> str:
    """Returns a fingerprint of the desired states, applications and memberships of a namespace."""
    return str((await transaction.connection.execute(_MARK, {"namespace_id": namespace_id})).scalar_one())


async def owners(transaction: ReadTransaction, namespace_id: int) -> dict[MemberKey, str]:
    """Returns the names of the applications of a namespace by their members."""
    rows = await transaction.connection.execute(_OWNERS, {"namespace_id": namespace_id})
    return {_key(row): row.application for row in rows}


async def replace_members(
    transaction: Transaction, application: ApplicationResource, members: Iterable[Member]
) -> None:
    """Writes the members of an application."""
    await transaction.connection.execute(
        delete(APPLICATION_MEMBERS).where(APPLICATION_MEMBERS.c.application_id == application.id)
    )
    rows = [
        {
            "resource_type": each.key.noun,
            "api_group": each.key.api_group,
            "object_kind": each.key.kind,
            "name": each.key.name,
            "api_version": each.api_version,
            "kind": each.kind,
            "generation": each.generation,
            "phase": each.phase,
            "wave": each.wave,
            "step": each.place.step,
            "hook": each.hook,
            "pruned": each.pruned,
            "delete_on": sorted(each.place.delete_on),
            "outcome": each.outcome,
            "outcome_reason": each.outcome_reason or None,
            "outcome_message": each.outcome_message or None,
        }
        for each in members
    ]
    named = {"application_id": application.id, "namespace_id": application.namespace_id}
    await transaction.connection.execute(_ADD_MEMBERS, named | {"rows": orjson.dumps(rows).decode()})


async def add_documents(
    transaction: Transaction, application: ApplicationResource, documents: Mapping[str, str]
) -> None:
    """Stores documents by their digests, unless they are stored already."""
    named = {"application_id": application.id, "namespace_id": application.namespace_id}
    values = {"digests": list(documents), "documents": list(documents.values())}
    await transaction.connection.execute(_ADD_DOCUMENTS, named | values)


async def read_documents(
    transaction: ReadTransaction, application_id: int, digests: Collection[str]
) -> dict[str, str]:
    """Returns the documents that are still stored, by their digests."""
    query = select(APPLICATION_DOCUMENTS.c.digest, APPLICATION_DOCUMENTS.c.document).where(
        APPLICATION_DOCUMENTS.c.application_id == application_id,
        APPLICATION_DOCUMENTS.c.digest.in_(list(digests)),
    )
    return {row.digest: row.document for row in (await transaction.connection.execute(query)).all()}


async def forget_beyond(transaction: Transaction, application_id: int, most_bytes: int) -> None:
    """Deletes older revisions beyond this number of bytes of documents, and documents that no revision names."""
    named = {"application_id": application_id}
    await transaction.connection.execute(_FORGET_LARGE, named | {"most_bytes": most_bytes})
    await transaction.connection.execute(_FORGET_DOCUMENTS, named)


def _changeable(transaction: Transaction, wanted: ApplicationResource) -> dict[str, Any]:
    return {
        "labels": wanted.labels,
        "revision_number": wanted.revision,
        "revisions_kept": wanted.revisions_kept,
        "rollback_on_failure": wanted.rollback_on_failure,
        "progress_deadline_seconds": wanted.progress_deadline_seconds,
        "status": wanted.status,
        "reason": wanted.reason or None,
        "message": wanted.message or None,
        "step": wanted.step,
        "installed": wanted.installed,
        "healthy_since": None,
        "not_rolled_back": None,
        # Requests a pass of the status follower soon after the commit, even if no member changes.
        "look_at": func.now(),
        "updated_by": transaction.actor.user_id,
    }


def _deadline(wanted: ApplicationResource) -> ColumnElement[Any] | None:
    if not wanted.rollback_on_failure:
        return None
    seconds = wanted.progress_deadline_seconds or PROGRESS_DEADLINE_SECONDS
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


async def _with_members(transaction: ReadTransaction, rows: Sequence[Row]) -> list[ApplicationResource]:
    members: dict[int, list[Member]] = {row.id: [] for row in rows}
    steps = {row.id: row.step for row in rows}
    if members:
        found = await transaction.connection.execute(_MEMBERS, {"ids": sorted(members)})
        async for row in cooperatively(found):
            members[row.application_id].append(_member(row, steps[row.application_id]))
    return [_application(row, tuple(members[row.id])) for row in rows]


def _key(row: Row) -> MemberKey:
    return MemberKey(row.resource_type, row.name, row.api_group, row.object_kind)


def _member(row: Row, step: int) -> Member:
    key, present = _key(row), None
    if row.present_generation is not None:
        present = PresentState(
            status=row.status or "",
            reason=row.reason or "",
            message=row.message or "",
            state=row.state or "",
            conditions=msgspec.convert(row.conditions, tuple[Condition, ...], strict=False),
            applied=row.applied,
            going=row.going,
        )
    is_there = present is not None and not present.going
    waiting = row.step > step and present is not None and is_there and not present.applied
    modified = present is None or row.present_generation != row.generation
    modified = modified and not (row.pruned or row.outcome)
    stored = Member(
        key=key,
        api_version=row.api_version,
        kind=row.kind,
        generation=row.generation,
        modified=modified,
        modified_by=(row.username or "") if modified else "",
        fails_at=None if row.outcome else becomes_unschedulable(key.noun, present),
        place=MemberPlace(row.phase, row.wave, row.step, row.hook, frozenset(row.delete_on)),
        pruned=row.pruned,
        outcome=row.outcome,
        outcome_reason=row.outcome_reason or "",
        outcome_message=row.outcome_message or "",
        waiting=waiting,
        running=row.kind == "Job" and is_there and row.status != "succeeded" and not row.outcome,
        resource_id=row.present_id if is_there else None,
    )
    found = health_in_step(stored, member_health(key.noun, present, row.moment))
    return msgspec.structs.replace(
        stored, status=found.status, reason=found.reason, message=found.message, failed=found.failed
    )


def _application(row: Row, members: tuple[Member, ...]) -> ApplicationResource:
    return ApplicationResource(
        id=row.id,
        uid=str(row.uid),
        name=row.name,
        namespace_ref=namespace_ref(row),
        labels=row.labels,
        revision=row.revision_number,
        revisions_kept=row.revisions_kept,
        rollback_on_failure=row.rollback_on_failure,
        progress_deadline_seconds=row.progress_deadline_seconds,
        status=row.status,
        reason=row.reason or "",
        message=row.message or "",
        members=members,
        step=row.step,
        installed=row.installed,
        resource_version=row.resource_version,
        row_version=row.row_version,
        created_at=row.created_at,
        updated_at=row.updated_at,
        created_by=row.creator or "",
    )


def _followed(row: Row, application: ApplicationResource) -> FollowedApplication:
    return FollowedApplication(
        application,
        row.healthy_since,
        row.deadline_at,
        row.not_rolled_back or "",
        None if row.applier_id is None else UserRef(row.applier_id, row.applier or ""),
    )
