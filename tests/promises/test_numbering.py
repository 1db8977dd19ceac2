"""Promise 1, after the commit: committed changes are numbered soon.

This holds despite failures of the server and its neighbours.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY

from tests.config.canaries import secrets_of
from tests.promises.environment import Environment
from tests.promises.stored_log import log_faults
from tests.promises.test_first_states import create, numbering_held
from tests.promises.test_watches import second_server
from tests.waiting import poll_until

# A trigger that refuses the records of one method when they are numbered. Each mutation under test defines it
# again.
_SPOILT = """
CREATE OR REPLACE FUNCTION control_spoilt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.request_path = '{method}' THEN
        RAISE EXCEPTION 'spoilt' USING ERRCODE = 'check_violation', CONSTRAINT = 'spoilt';
    END IF;
    RETURN NEW;
END
$$
"""
_TRIGGER = """
CREATE TRIGGER control_spoilt BEFORE INSERT ON operation_logs FOR EACH ROW EXECUTE FUNCTION control_spoilt()
"""
_ASIDE = "pilothouse_changes_set_aside_total"


async def held_up_by_others(environment: Environment) -> list[str]:
    """Makes every mutation while its record cannot be numbered.

    Returns the faults of the mutation and of the next call.
    """
    faults: list[str] = []
    feed = environment.server.application.feed
    async with environment.sql() as sql:
        await sql.execute(_SPOILT.format(method=""))
        await sql.execute(_TRIGGER)
        for rule in sorted(environment.rules.values(), key=lambda rule: rule.name == "DeleteNamespace"):
            if not rule.mutates:
                continue
            await sql.execute(_SPOILT.format(method=rule.method))
            told, aside = REGISTRY.get_sample_value(_ASIDE) or 0, await _set_aside(sql)
            outcome = await environment.caller_of(rule).invoke(rule, environment.request(rule))
            # A mutation that is a stream has two records. The next call has one.
            await environment.call("GetNamespace", {"name": "nowhere-to-be-found"})
            # Other writes may happen at any time, such as volumes' events for mounts. Their changes are not
            # checked.
            committed = await _pending(sql)
            await feed.settled()
            await feed.settled()
            if outcome.code != "OK":
                faults.append(f"{rule.name}: {outcome.code} {outcome.message}")
            if committed & await _pending(sql):
                faults.append(f"{rule.name} is neither numbered nor set aside")
            if await _set_aside(sql) == aside:
                faults.append(f"{rule.name} is not set aside")
            if (REGISTRY.get_sample_value(_ASIDE) or 0) == told:
                faults.append(f"{rule.name} is set aside, and no metric says so")
            last = await sql.fetchrow(
                "SELECT request_path FROM operation_logs WHERE error_code = 'NOT_FOUND' ORDER BY sequence DESC LIMIT 1"
            )
            if last is None or not last["request_path"].endswith("/GetNamespace"):
                faults.append(f"{rule.name} holds up the record of the next call")
            await sql.execute("DELETE FROM pending_incidents")
        await sql.execute("DROP TRIGGER control_spoilt ON operation_logs")
        faults += await log_faults(sql)
    return faults


async def _pending(sql: asyncpg.Connection) -> set[int]:
    return {row["id"] for row in await sql.fetch("SELECT id FROM pending_changes")}


async def _set_aside(sql: asyncpg.Connection) -> int:
    return int(await sql.fetchval("SELECT count(*) FROM pending_incidents"))


async def test_what_cannot_be_numbered_holds_no_other_up_and_is_told(full_environment: Environment) -> None:
    assert await held_up_by_others(full_environment) == []


@pytest.mark.full
async def test_a_change_that_stays_pending_forever_is_found(full_environment: Environment) -> None:
    """Control of the test above."""
    async with full_environment.server.database.owner() as owner:
        await owner.execute(
            "CREATE OR REPLACE FUNCTION set_aside(p_id bigint, p_sqlstate text, p_constraint text) RETURNS void "
            "LANGUAGE plpgsql AS $$ BEGIN END $$"
        )
    faults = await held_up_by_others(full_environment)
    assert "CreateContainer is neither numbered nor set aside" in faults


async def test_changes_left_unnumbered_are_numbered_by_another_server_in_a_second(
    environment: Environment, tmp_path: Path
) -> None:
    # The other server gets no call, because a call that reads the log would have the changes numbered first.
    async with second_server(environment, tmp_path), environment.sql() as sql:

        async def numbered() -> bool:
            return bool(
                await sql.fetchval(
                    "SELECT EXISTS (SELECT FROM operation_logs WHERE resource_name = 'left-behind')"
                )
            )

        with numbering_held(environment):
            await create(environment, "left-behind")
            await poll_until(numbered, seconds=1.0)


async def test_changes_are_numbered_in_batches_unless_a_caller_waits(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests when a pass waits for more changes.

    After a pass that found several changes, the next one waits for more, unless a caller requests the present
    ones.
    """
    settled = environment.server.application.feed.settled
    async with environment.sql() as sql:

        async def pending() -> int:
            return int(await sql.fetchval("SELECT count(*) FROM pending_changes"))

        with monkeypatch.context() as patch:
            for name in ("GATHER_SECONDS", "POLL_SECONDS", "IDLE_POLL_SECONDS"):
                patch.setattr(f"pilothouse_server.store.feed.{name}", 3600.0)
            await settled()
            await create(environment, "alone")
            await poll_until(pending, lambda found: not found, what="one by itself is numbered at once")
            with numbering_held(environment):
                await create(environment, "first")
                await create(environment, "second")
            await poll_until(pending, lambda found: not found, what="both are numbered")
            await create(environment, "waits-for-more")
            assert await pending() == 1
            await settled()
            assert await pending() == 0
        # The next pass has the usual interval again.
        await settled()


async def test_a_replay_is_answered_before_the_first_call_is_numbered(full_environment: Environment) -> None:
    """Replays mutations whose `request_id` row exists before they are numbered.

    The mutation itself writes the row.
    """
    found = []
    with numbering_held(full_environment):
        for rule in sorted(full_environment.rules.values(), key=lambda rule: rule.name == "DeleteNamespace"):
            if rule.mutates and rule.has_request_id:
                request = full_environment.request(rule)
                request.request_id = str(uuid4())
                caller = full_environment.caller_of(rule)
                first, second = await caller.invoke(rule, request), await caller.invoke(rule, request)
                # A replayed response lacks secrets.
                secret = any(any(secrets_of(answer)) for answer in first.answers)
                alike = first.answers == second.answers or secret or "secret" in rule.name.lower()
                if (first.code, second.code) != ("OK", "OK") or not alike:
                    found.append(f"{rule.name}: {first.code}, {second.code} {second.message}")
    assert found == []


async def test_the_age_of_changes_that_cannot_be_numbered_is_a_metric(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moves the head to a revision without a partition of events.

    All changes wait for the partition and none is lost. The metric shows the age of the oldest one.
    """
    # Otherwise the server would create the partition immediately.
    monkeypatch.setattr(environment.server.application.feed, "on_partitions_wanted", lambda: None)
    await create(environment, "before")
    async with environment.sql() as sql:
        await sql.execute("UPDATE stream_head SET revision = 99999999, oldest_revision = 99999999")
        await create(environment, "waits")

        async def age() -> float:
            return REGISTRY.get_sample_value("pilothouse_pending_oldest_seconds") or 0.0

        await poll_until(age, lambda seconds: seconds > 0.5, what="an age of the oldest change")
        async with environment.server.database.owner() as owner:
            await owner.execute("SELECT create_revision_partitions('events', 100000000, 1)")

        async def revision() -> int:
            return int(await sql.fetchval("SELECT revision FROM stream_head"))

        # The head is checked first: the metric belongs to the process, and another server of this process may
        # set it to 0 in between.
        await poll_until(revision, lambda found: found == 100000000, what="the change is numbered")
        await poll_until(age, lambda seconds: not seconds, what="nothing is pending")
