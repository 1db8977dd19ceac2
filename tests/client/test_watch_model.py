"""After any connection faults, a reader that replays a watch has the server's state."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.container.v1.container_pb2 import Container
from pilothouse_client import AsyncClient, ChangeKind
from tests.client.conftest import PASSWORD, QUICK
from tests.client.fake_server import FakeServer
from tests.waiting import within

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3)),
        st.tuples(st.just("delete"), st.integers(0, 3)),
        st.sampled_from([("cut", 0), ("forget", 0), ("expire", 0), ("read", 0)]),
    ),
    max_size=25,
)


async def _apply(fake: FakeServer, step: str, number: int) -> None:
    key = ("shop", f"c{number}")
    if step == "put":
        # The image distinguishes the versions of a container.
        row = Container(namespace=key[0], name=key[1], image=str(fake.revision + 1))
        await fake.commit("container", key, row)
    elif step == "delete" and key in fake.tables["container"]:
        await fake.commit("container", key, None)
    elif step == "cut":
        await fake.cut_watches()
    elif step == "forget":
        await fake.forget_history()
    elif step == "expire":
        fake.expire_access_tokens()
        await fake.cut_watches()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_STEPS)
async def test_a_replayed_watch_ends_with_the_servers_state(steps: list[tuple[str, int]]) -> None:
    fake = FakeServer()
    fake.bookmark_period = 0.02
    await fake.start()
    known: dict[str, str] = {}
    revisions: list[int] = []
    try:
        async with AsyncClient(fake.address, username="admin", password=PASSWORD, retry=QUICK) as client:
            watch = client.containers.watch()

            async def read_until(revision: int) -> None:
                async with within(20):
                    async for change in watch:
                        if change.kind is ChangeKind.RESTARTED:
                            known.clear()
                            revisions.clear()
                        elif change.kind is ChangeKind.DELETED:
                            del known[change.resource.name]
                        elif change.kind in (ChangeKind.ADDED, ChangeKind.MODIFIED):
                            # Each change comes once: ADDED for a new container, MODIFIED for a known one.
                            assert (change.resource.name in known) == (change.kind is ChangeKind.MODIFIED)
                            known[change.resource.name] = change.resource.image
                        if change.revision and change.kind is not ChangeKind.BOOKMARK:
                            revisions.append(change.revision)
                        if change.resume_token and int(change.resume_token) >= revision:
                            return

            for step, number in steps:
                await _apply(fake, step, number)
                if step == "read":
                    await read_until(fake.revision)
            await read_until(fake.revision)
    finally:
        await fake.stop()
    rows = fake.tables["container"]
    assert known == {name: row.image for (_, name), row in rows.items()}  # type: ignore[attr-defined]
    assert revisions == sorted(revisions)
