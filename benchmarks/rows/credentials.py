"""Row `keys`: the cost of authenticating a caller by an API key, and of a million sessions and keys.

A caller is looked up at most once a second. So reads are measured as they normally run, and again with a look-up for
every call, which no installation does: only then is the cost that other rows add to a look-up visible. Those calls
run one after the other, because concurrent calls share a look-up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from benchmarks.child import Child
from benchmarks.measure import Arm, Figure, Pairs, Run, all_in_turns, compared, server_cost
from benchmarks.product import Product
from benchmarks.rows.reading import CONCURRENCY, METHOD, encoded_requests
from benchmarks.testbed import Database, Testbed, connected

_LOOKS_EACH_TIME = {"PILOTHOUSE_PRINCIPAL_CACHE_SECONDS": "0"}
# One in ten is live, as after a storm of log-ins; all belong to users that make no calls.
_FILL = """
INSERT INTO users (username, username_normalized, email, email_normalized, password_hash)
SELECT n, n, n, n, '!' FROM (SELECT 'crowd-' || i AS n FROM generate_series(1, 1000) AS i) AS names;
CREATE TEMPORARY TABLE crowd AS SELECT id, row_number() OVER () AS number FROM users WHERE username LIKE 'crowd-%';
INSERT INTO sessions (user_id, family_id, access_token_hash, refresh_token_hash, access_expires_at,
    refresh_expires_at, rotated_at)
SELECT crowd.id, gen_random_uuid(), sha256(('a' || i)::bytea), sha256(('r' || i)::bytea), now() + interval '1 day',
    now() + interval '7 days', CASE WHEN i % 10 > 0 THEN now() END
FROM generate_series(1, {count}) AS i JOIN crowd ON crowd.number = i % 1000 + 1;
INSERT INTO api_keys (user_id, name, key_hash, prefix, expires_at, revoked_at)
SELECT crowd.id, 'key-' || i, sha256(('k' || i)::bytea), 'phk_', now() + interval '90 days',
    CASE WHEN i % 10 > 0 THEN now() END
FROM generate_series(1, {count}) AS i JOIN crowd ON crowd.number = i % 1000 + 1;
DROP TABLE crowd;
"""


async def keys(testbed: Testbed) -> AsyncIterator[Figure]:
    """Measures a key against a session; then calls that all look up their key, at each number of credentials."""
    sizes = testbed.scale.credentials
    async with AsyncExitStack() as stack:
        (calls,) = await stack.enter_async_context(testbed.children(("loads.calls", testbed.cores.asking)))
        few = await stack.enter_async_context(testbed.database(testbed.scale.containers[0]))
        product = await stack.enter_async_context(testbed.product(few))
        session = await product.tenant_token()
        arms = [
            _getting(testbed, calls, product, few, token, CONCURRENCY)
            for token in (session, await product.tenant_key())
        ]
        for size in sizes:
            database = await stack.enter_async_context(testbed.database(testbed.scale.containers[0]))
            looking = await stack.enter_async_context(testbed.product(database, variables=_LOOKS_EACH_TIME))
            await looking.tenant_token()
            token = await looking.tenant_key()
            async with connected(database.superuser) as sql:
                await sql.execute(_FILL.format(count=size))
                await sql.execute("VACUUM ANALYZE sessions")
                await sql.execute("VACUUM ANALYZE api_keys")
                await sql.execute("VACUUM ANALYZE users")
            arms.append(_getting(testbed, calls, looking, database, token, 1))
        by_session, by_key, *looked_up = await all_in_turns(arms, testbed.scale.runs, warm=testbed.scale.warm)
    what = f"GetContainer by an API key, {CONCURRENCY} at a time"
    pairs = Pairs(by_key, by_session)
    yield compared("keys", what, "/s", pairs, "by a session", ("≥", 0.95))
    yield server_cost("keys", what, pairs, "by a session", 1.03)
    what = f"the same, one at a time and each looking its key up, {sizes[-1]:,} sessions and as many keys"
    pairs = Pairs(looked_up[-1], looked_up[0])
    yield compared("keys", what, "/s", pairs, f"{sizes[0]:,}", ("≥", 0.95))
    yield server_cost("keys", what, pairs, f"{sizes[0]:,}", 1.05)


def _getting(
    testbed: Testbed, calls: Child, product: Product, database: Database, token: str, concurrency: int
) -> Arm:
    async def run() -> Run:
        asked = calls.ask(
            "run",
            address=product.address,
            method=METHOD,
            token=token,
            requests=encoded_requests(),
            concurrency=concurrency,
            seconds=testbed.scale.seconds,
        )
        return await testbed.metered(product.process_id, database, asked)

    return run
