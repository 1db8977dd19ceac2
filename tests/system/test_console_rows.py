"""No list of the console shows two rows with one key, for any order of the watch's changes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from pilothouse.watch.v1 import watch_pb2
from tests.conftest import Database
from tests.gateway.browser import port_of
from tests.system.console import Console, served, tab
from tests.system.hostile_feed import HostileFeed
from tests.waiting import poll_until

pytestmark = pytest.mark.system(minutes=3)

# Makes pauses, silences and a tab's reading time twenty times shorter, so that each state is read in many parts.
_QUICK = """
const [later, times, now] = [window.setTimeout, window.setInterval, performance.now.bind(performance)];
window.setTimeout = (run, ms = 0, ...more) => later(run, ms / 20, ...more);
window.setInterval = (run, ms = 0, ...more) => times(run, ms / 20, ...more);
performance.now = () => 20 * now();
"""
# Records each uid that a table shows in two rows, after every change of the page.
_SEEN_TWICE = r"""
window.twice = [];
new MutationObserver(() => {
  for (const body of document.querySelectorAll('main tbody')) {
    const found = [...body.rows].flatMap(row => row.innerText.match(/\b\d{6}\b/) ?? []);
    window.twice.push(...found.filter((each, at) => found.indexOf(each) !== at));
  }
}).observe(document, {subtree: true, childList: true, characterData: true});
"""
# The pages that show the nouns, and the button that opens a form with a list of namespaces.
PAGES = (
    ("namespaces", [watch_pb2.NOUN_NAMESPACE], ""),
    ("containers", [watch_pb2.NOUN_CONTAINER], "New container"),
    ("applications", [watch_pb2.NOUN_APPLICATION], "Apply YAML"),
    ("configs", [watch_pb2.NOUN_CONFIG], "New secret"),
    ("clusters", [watch_pb2.NOUN_CLUSTER], ""),
    ("access", [watch_pb2.NOUN_USER, watch_pb2.NOUN_GRANT], ""),
)
_UID = re.compile(r"\b\d{6}\b")
ENDINGS = {"silence", "closed", "unavailable", "unknown", "scope"}


async def shown(console: Console) -> list[str]:
    """Returns the uids in the rows of the page's tables."""
    texts: list[str] = await console.page.locator("main tbody tr").all_inner_texts()
    return sorted(uid for text in texts for uid in _UID.findall(text))


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_hostile_watch_never_produces_two_rows_with_one_key(
    database: Database, tmp_path: Path, seed: int
) -> None:
    async with (
        served(database, tmp_path, with_cluster=False) as server,
        tab(port_of(server)) as console,
        aclosing(HostileFeed(seed)) as feed,
    ):
        await console.log_in()
        await console.page.add_init_script(_QUICK + _SEEN_TWICE)
        await feed.install(console.page)
        await console.open("account")
        await console.page.reload()
        for address, nouns, button in PAGES:
            feed.honest = False
            await console.open(address)
            await console.page.locator("main h1").first.wait_for()
            if button:
                await console.press(button)
            before = feed.streams

            async def streams(before: int = before) -> int:
                return feed.streams - before

            async def both(nouns: Sequence[int] = nouns) -> tuple[list[str], list[str]]:
                there = sorted(uid for noun in nouns for uid in feed.there[noun])
                return await shown(console), there

            await poll_until(streams, lambda count: count >= 8)
            assert console.complaints == [], address
            assert await console.page.evaluate("window.twice") == [], address
            # The feed now sends its true state, and the page must show it.
            feed.honest = True
            feed.cut()
            await poll_until(both, lambda found: found[0] == found[1])
        assert feed.hang_and_leak == ENDINGS
