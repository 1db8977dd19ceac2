"""`pilothouse` without a bound for anonymous callers: see `injected_fault.py`.

The control of each bound finds its fault.
"""

from __future__ import annotations

from typing import Any

from pilothouse_server.flowcontrol import classes
from pilothouse_server.identity.credentials.login_turns import LoginTurns, Whose
from pilothouse_server.identity.failure_budgets import FailureBudgets
from pilothouse_server.rpc.refusals import Refusals
from tests.promises.hostile.fault_injection import run


def all_log_ins_stand_in_one_line() -> None:
    """Removes the turns and the failure budgets of single addresses."""
    turn = LoginTurns.turn

    def all_alike(self: LoginTurns, _whose: Whose) -> Any:
        return turn(self, Whose("everybody", "everybody", known=False))

    LoginTurns.turn = all_alike  # type: ignore[assignment,method-assign]
    FailureBudgets.take = lambda _self, _who: None  # type: ignore[assignment,method-assign]


def each_refusal_has_a_record() -> None:
    """Records every refusal singly."""
    Refusals.singly = lambda *_arguments: True  # type: ignore[method-assign]


def each_refusal_is_told_before_its_deadline() -> None:
    """Sends a refusal before its caller's deadline although its turn is later.

    It ignores how many other refusals were sent in that time.
    """
    classes.LATE_REFUSALS = classes.Rate(1e6, 1_000_000, 0.0)


if __name__ == "__main__":
    injected = (
        all_log_ins_stand_in_one_line,
        each_refusal_has_a_record,
        each_refusal_is_told_before_its_deadline,
    )
    run({made.__name__: made for made in injected})
