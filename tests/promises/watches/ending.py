"""The end of a campaign: all watchers reach the head.

Then the log, the lists and the tokens are read and tried.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio

from pilothouse.config.v1 import config_pb2 as config
from pilothouse.container.v1 import container_pb2 as container
from tests.conftest import connection, number_changes
from tests.promises.calling import Caller, Outcome, failed
from tests.promises.watches import told, watching
from tests.promises.watches.environment import BRIEF, NAMESPACES, Environment
from tests.promises.watches.recording import CONFIG, CONTAINER, Logged, Probe, Seen, State, Wanted
from tests.promises.watches.validators import (
    ANOTHERS_CALLER,
    ANOTHERS_FILTER,
    BELOW_THE_HORIZON,
    GOES_ON,
    OF_ANOTHER_HISTORY,
    OF_THE_GONE,
)
from tests.promises.watches.watching import Follower, Given
from tests.waiting import poll_until, within

_MESSAGES: dict[str, Any] = {
    "container": container.Container,
    "config_map": config.Config,
    "secret": config.Config,
}
_KINDS = {"container": CONTAINER, "config_map": CONFIG, "secret": CONFIG}
_PAGE = 5000
# The number of messages that are compared for each token that is tried, and the number of tokens of a watcher.
_COMPARED, _TRIED = 40, 3


async def end_namespace(environment: Environment, followers: Sequence[Follower]) -> None:
    """Deletes a namespace.

    Returns once its watchers have received its end or a later position.
    """
    environment.recording.gone.add(BRIEF)
    async with environment.callers() as callers, connection(environment.database.admin_dsn) as sql:
        outcome, _, _ = await environment.certainly(
            callers, "DeleteNamespace", {"name": BRIEF, "cascade": True}
        )
        assert outcome.code == "OK", outcome.message

        async def gone() -> int | None:
            await number_changes(sql)
            ends = "SELECT max(revision) FROM events WHERE resource_name = $1 AND kind = 'deleted'"
            found: int | None = await sql.fetchval(f"{ends} AND resource_type = 'namespace'", BRIEF)
            return found

        end = await poll_until(gone, seconds=60, what="the namespace is gone")

        async def behind() -> list[str]:
            own = [each for each in followers if each.kind.wanted.namespace == BRIEF]
            return [each.watch.name for each in own if not each.watch.ended and each.position < (end or 0)]

        await poll_until(behind, lambda found: not found, seconds=60, what="its watchers beyond its end")


async def settle(environment: Environment, followers: Sequence[Follower]) -> None:
    """Returns once all work is done and every watcher has reached the head."""
    async with connection(environment.database.admin_dsn) as sql:

        async def head() -> int:
            await number_changes(sql)
            return int(await sql.fetchval("SELECT revision FROM stream_head"))

        async def quiet() -> bool:
            # Remaining work on the cluster still writes events.
            due = (
                "SELECT count(*) FROM reconcile_work WHERE due_at < clock_timestamp() + interval '30 seconds'"
            )
            return not await sql.fetchval(due)

        await poll_until(quiet, seconds=60, what="the reconcilers have nothing to do")

        async def behind() -> list[str]:
            newest = await head()
            return [each.watch.name for each in followers if not each.watch.ended and each.position < newest]

        await poll_until(behind, lambda found: not found, seconds=60, what="all watchers at the head")


async def read_log(environment: Environment) -> None:
    """Reads the events of the database into the recording."""
    async with connection(environment.database.admin_dsn) as sql:
        await number_changes(sql)
        for left in await sql.fetch(
            "SELECT format('pending %s', id) FROM pending_changes UNION ALL "
            "SELECT format('set aside %s: %s %s', id, sqlstate, constraint_name) FROM pending_incidents"
        ):
            environment.recording.stranded.append(left[0])
        after = 0
        while rows := await sql.fetch(
            "SELECT revision, resource_type, kind, pending_id, operation_id, message FROM events "
            "WHERE revision > $1 ORDER BY revision LIMIT $2",
            after,
            _PAGE,
        ):
            for row in rows:
                environment.recording.log.append(_logged(row))
            after = rows[-1]["revision"]


def _logged(row: Any) -> Logged:
    make = _MESSAGES.get(row["resource_type"])
    if make is None:
        # Events of namespaces and volumes count only as places in the log.
        state = State(f"{row['resource_type']} {row['revision']}", "", "", 1, 0, {}, "")
        kind, what = row["resource_type"], "added"
    else:
        state = told.state(told.held(make.FromString(row["message"])))
        kind, what = _KINDS[row["resource_type"]], row["kind"]
    return Logged(row["revision"], kind, row["pending_id"] or 0, what, str(row["operation_id"] or ""), state)


async def read_lists(environment: Environment) -> None:
    """Reads each server's lists into the recording."""
    async with environment.callers() as callers:
        for caller in callers:
            listed: dict[str, dict[str, State]] = defaultdict(dict)
            for method, kind, field in (
                ("ListContainers", CONTAINER, "containers"),
                ("ListConfigMaps", CONFIG, "config_maps"),
            ):
                page = ""
                while True:
                    fields = {"pageSize": 500, "pageToken": page}
                    outcome, _, _ = await environment.certainly([caller], method, fields)
                    assert outcome.code == "OK", f"{method}: {outcome.code} {outcome.message}"
                    for entity in getattr(outcome.answer, field):
                        listed[kind][entity.uid] = told.state(entity)
                    page = outcome.answer.next_page_token
                    if not page:
                        break
            environment.recording.final.append(listed)


async def probe_tokens(environment: Environment, followers: Sequence[Follower]) -> None:
    """Tries tokens in all ways.

    Tokens are tried at each server, with another filter, and as another user. Then the horizon is moved up, and
    tokens below it are tried. At last they are tried in a new history.
    """
    choose = random.Random(f"probes {environment.size.seed}")
    async with environment.callers() as admins, environment.callers("tenant") as tenants:
        probes = []
        for number, follower in enumerate(followers):
            own, others = (tenants, admins) if follower.kind.user else (admins, tenants)
            wanted = follower.kind.wanted
            other = wanted._replace(label=("tier", "sideways"))
            how = OF_THE_GONE if wanted.namespace in environment.recording.gone else GOES_ON
            for given in choose.sample(follower.tokens, min(_TRIED, len(follower.tokens))):
                probes += [_Trial(number, caller, how, wanted, given) for caller in own]
                probes.append(_Trial(number, own[0], ANOTHERS_FILTER, other, given))
                if wanted.namespace in ("", *NAMESPACES[:-1]):
                    probes.append(_Trial(number, others[0], ANOTHERS_CALLER, wanted, given))
        await _try_all(environment, probes)
        below = await _below(environment, followers, admins, choose)
        await _try_all(environment, below)
        async with environment.database.owner() as owner:
            await owner.execute("SELECT begin_new_history()")
        kept = [trial for trial in below if trial.how == GOES_ON]
        await _try_all(environment, [trial._replace(how=OF_ANOTHER_HISTORY) for trial in kept])


async def _below(
    environment: Environment, followers: Sequence[Follower], callers: Sequence[Caller], choose: random.Random
) -> list[_Trial]:
    """Moves the horizon to the median of the tokens' positions.

    The removal of old partitions has the same effect.
    """
    tried = [
        (number, follower)
        for number, follower in enumerate(followers)
        if not follower.kind.user and not follower.watch.ended and follower.tokens
    ]
    revisions = sorted(given.revision for _, follower in tried for given in follower.tokens)
    horizon = revisions[len(revisions) // 2] + 1
    async with connection(environment.database.admin_dsn) as sql:
        await sql.execute("UPDATE stream_head SET oldest_revision = $1", horizon)
        await sql.execute("DELETE FROM events WHERE revision < $1", horizon)
    # A watch may resume from the event just before the oldest stored one without a gap.
    return [
        _Trial(
            number,
            choose.choice(callers),
            BELOW_THE_HORIZON if given.revision < horizon - 1 else GOES_ON,
            follower.kind.wanted,
            given,
        )
        for number, follower in tried
        # The oldest token is always below the horizon.
        for given in (
            min(follower.tokens, key=lambda given: given.revision),
            *choose.sample(follower.tokens, min(_TRIED, len(follower.tokens))),
        )
    ]


class _Trial(NamedTuple):
    """A token to try: its watch, the caller, and the way in which it is tried."""

    watch: int
    caller: Caller
    how: str
    wanted: Wanted
    given: Given


async def _try_all(environment: Environment, trials: Sequence[_Trial]) -> None:
    """Tries tokens, up to 16 concurrently."""
    some = asyncio.Semaphore(16)

    async def run(trial: _Trial) -> None:
        async with some, within(20):
            environment.recording.probes.append(await _tried(environment, trial))

    await asyncio.gather(*map(run, trials))


async def _tried(environment: Environment, trial: _Trial) -> Probe:
    """Returns the first changes after a token.

    A bookmark means that there are no more changes.
    """
    body = watching.request(trial.wanted, trial.given.token)
    changes: list[Seen] = []
    outcome, whole = Outcome("OK"), False
    try:
        async with trial.caller.watching(environment.rule(watching.method(trial.wanted)), body) as stream:
            async for answer in stream:
                change = watching.seen(answer)
                whole = change is None
                if change is not None:
                    changes.append(change)
                if whole or len(changes) == _COMPARED:
                    break
    except grpc.aio.AioRpcError as error:
        outcome = failed(error)
    return Probe(
        trial.how,
        trial.watch,
        trial.given.life,
        trial.given.revision,
        outcome.code,
        outcome.reason,
        tuple(changes),
        whole,
    )
