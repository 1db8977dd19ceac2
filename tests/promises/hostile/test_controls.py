"""The controls of the campaign against hostile callers.

Servers with an injected fault let anonymous callers block them, fill their memory or fill their log. The
campaign must find each fault.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Database
from tests.promises.hostile.attacker import attacking
from tests.promises.hostile.bystanders import Window
from tests.promises.hostile.environment import Verdict, environment
from tests.promises.hostile.fault_injection import INJECTED_FAULTS

pytestmark = pytest.mark.full

ATTACKS = "tests.promises.hostile.attacks"
_FAULTS_MODULE = "tests.promises.hostile.fault_injection"
# The injected fault → the required message.
FOUND_BY = {
    "strangers_hold_the_loop": "the p99 rose",
    "strangers_fill_the_memory": "memory grew",
    "strangers_fill_the_output": "the log grew",
}


@pytest.mark.soak(part="hostile")
@pytest.mark.parametrize("injected_fault", INJECTED_FAULTS)
async def test_a_server_without_a_bound_is_found(
    database: Database, tmp_path: Path, injected_fault: str
) -> None:
    async with environment(database, tmp_path, injected_fault=f"{_FAULTS_MODULE} {injected_fault}") as made:
        # One pair of windows suffices to find an injected fault. An intact server needs three pairs, because
        # any pair may be disturbed.
        verdict = await made.attacked(
            lambda: attacking(ATTACKS, "resets", address=made.address, count=2000), pairs=1
        )
    assert any(fault.startswith(FOUND_BY[injected_fault]) for fault in verdict.faults()), verdict.faults()


def window(seconds: float = 0.01, *, first: float = 0.01, **more: list[str]) -> Window:
    met = {"errors": [], "health_errors": [], **more}
    return Window([first] * 50, [seconds] * 250, met["errors"], [seconds] * 30, met["health_errors"], 6.0)


@pytest.mark.parametrize(
    ("quiet", "loud", "more", "said"),
    [
        (window(), window(0.019), {}, ""),
        (window(), window(0.021), {}, "the p99 rose"),
        (window(), window(first=0.7), {}, ""),
        (window(), window(first=0.72), {}, "calls of the first second took longer"),
        (window(), window(errors=["GetContainer: UNAVAILABLE"]), {}, "a bystander failed"),
        (window(), window(health_errors=["Health.Check: TimeoutError"]), {}, "health failed"),
        (window(errors=["GetContainer: UNAVAILABLE"]), window(), {}, "without the attack"),
        (window(), window(), {"memory_growth_bytes": 101 << 20}, "memory grew"),
        (window(), window(), {"log_bytes": 110_000}, "the log grew"),
    ],
)
def test_each_measure_can_fail(quiet: Window, loud: Window, more: dict[str, int], said: str) -> None:
    verdict = Verdict(**more)  # type: ignore[arg-type]
    verdict.add(quiet, loud)
    found = verdict.faults()
    assert found == [] if not said else [fault.startswith(said) for fault in found] == [True], found


def test_one_disturbed_pair_does_not_decide() -> None:
    verdict = Verdict()
    for seconds in (0.01, 0.5, 0.012):
        verdict.add(window(), window(seconds))
    assert verdict.faults() == []


@pytest.mark.parametrize(("seconds", "plain"), [(0.014, True), (0.016, False), (0.059, False), (0.061, True)])
def test_a_ratio_near_the_promised_bound_is_unclear(seconds: float, plain: bool) -> None:
    verdict = Verdict()
    verdict.add(window(), window(seconds))
    assert verdict.is_plain is plain
