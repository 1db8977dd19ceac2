"""How tests wait: only with `tests.waiting`, so that one setting adapts all deadlines to the machine.

A second function that polls would have its own pause and deadline. A number of seconds that is compared with a clock,
or passed to asyncio unchanged, is right on one machine and wrong on a busier one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from tests.conventions.sources import Source

WAITING = "tests/waiting.py"
# Files that simulate time, use it up, or measure it over hundreds of rounds for a statistic.
READ_CLOCKS = {
    "tests/virtual_time.py",
    "tests/test_event_loop.py",
    "tests/test_long_loops.py",
    "tests/conventions/__main__.py",
    "tests/promises/hostile/bystanders.py",
}
CLOCKS = {"monotonic", "perf_counter", "process_time", "thread_time"}
LONG_TIER = "soak"
PAUSES = {"sleep", "pass_time"}
SCALED = {"patient", "runs_out"}
# Functions that scale their seconds themselves.
PATIENT = {"patient", "within", "poll_until", "finished"}

AnyFunction = ast.FunctionDef | ast.AsyncFunctionDef
Loop = ast.While | ast.For | ast.AsyncFor


def no_sleeps_in_tests(sources: Sequence[Source]) -> Iterator[str]:
    """Reports sleeps: each is too short on a slow machine and too long on a fast one."""
    for source in _tests(sources):
        for call in _calls(source.tree):
            yields_only = len(call.args) == 1 and ast.unparse(call.args[0]) == "0"
            # The simulated cluster's own clock is not the machine's.
            simulated = ast.unparse(call.func).endswith("clock.sleep")
            if _name(call) == "sleep" and not yields_only and not simulated:
                yield (
                    f"{source.path}:{call.lineno}: {ast.unparse(call.func)}: wait for a condition "
                    "by tests.waiting.poll_until"
                )


def one_way_to_poll(sources: Sequence[Source]) -> Iterator[str]:
    """Reports loops that pause until a condition holds: each is a second `poll_until`."""
    for source in _tests(sources):
        for node in ast.walk(source.tree):
            if isinstance(node, Loop) and _ends_by_itself(node) and any(map(_pauses, ast.walk(node))):
                yield (
                    f"{source.path}:{node.lineno}: a loop that pauses until something holds: "
                    "use tests.waiting.poll_until"
                )


def _ends_by_itself(loop: Loop) -> bool:
    endless = isinstance(loop, ast.While) and ast.unparse(loop.test) == "True"
    leaves = any(isinstance(each, ast.Return | ast.Break) for each in ast.walk(loop))
    return leaves or (isinstance(loop, ast.While) and not endless)


def _pauses(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        fresh_event = ast.unparse(node.func) in ("asyncio.Event().wait", "Event().wait")
        swallows = _name(node) == "suppress" and "TimeoutError" in map(ast.unparse, node.args)
        return _name(node) in PAUSES or fresh_event or swallows
    swallowed = isinstance(node, ast.ExceptHandler) and node.type and "TimeoutError" in ast.unparse(node.type)
    return bool(swallowed) and not any(isinstance(each, ast.Raise | ast.Return) for each in ast.walk(node))


def no_elapsed_time(sources: Sequence[Source]) -> Iterator[str]:
    """Reports measured durations: they depend on the load of the machine; the product promises deadlines instead."""
    for source in _tests(sources):
        if source.path in READ_CLOCKS:
            continue
        long_tier = {id(part) for test in _functions(source) if _is_long(test) for part in ast.walk(test)}
        for node in ast.walk(source.tree):
            if isinstance(node, ast.expr) and id(node) not in long_tier and _measures(node):
                yield (
                    f"{source.path}:{node.lineno}: {ast.unparse(node)}: assert no elapsed time; give what is "
                    "promised a deadline by poll_until(seconds=…) or within(…) of tests.waiting"
                )
                break


def _measures(node: ast.expr) -> bool:
    """Returns whether a clock's reading is compared or subtracted; for a Stopwatch, only upper bounds count."""
    if isinstance(node, ast.Compare):
        upward = isinstance(node.ops[0], ast.Lt | ast.LtE)
        downward = isinstance(node.ops[0], ast.Gt | ast.GtE)
        least = node.left if upward else node.comparators[-1] if downward else None
        stopwatch = least is not None and ast.unparse(least).endswith(".passed()")
        return stopwatch or any(map(_reads_clock, ast.walk(node)))
    difference = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)
    return difference and any(map(_reads_clock, ast.walk(node)))


def _is_long(test: AnyFunction) -> bool:
    """Returns whether a test is in the long tier, which is for statistics over many rounds."""
    return any(f"mark.{LONG_TIER}" in ast.unparse(each) for each in test.decorator_list)


def _reads_clock(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    loops = _name(node) == "time" and "loop" in ast.unparse(node.func)
    return _name(node) in CLOCKS or loops


def patience_once(sources: Sequence[Source]) -> Iterator[str]:
    """Reports `patient(…)` in calls that scale it again: six seconds would become four minutes."""
    for source in _tests(sources):
        for call in _calls(source.tree):
            given = [*call.args, *(each.value for each in call.keywords if each.arg == "seconds")]
            inner = [node for each in given for node in ast.walk(each) if isinstance(node, ast.Call)]
            if _name(call) in PATIENT and any(_name(each) == "patient" for each in inner):
                yield f"{source.path}:{call.lineno}: {_name(call)}(…) is patient itself: give it the plain seconds"


def patient_deadlines(sources: Sequence[Source]) -> Iterator[str]:
    """Reports deadlines in plain seconds: a machine that does other work misses them."""
    for source in _tests(sources):
        for call in _calls(source.tree):
            for time in filter(_is_literal, _deadlines(call)):
                yield (
                    f"{source.path}:{call.lineno}: {ast.unparse(time)} seconds: write within(…) or patient(…) of "
                    "tests.waiting, or runs_out(…) where the test waits for the end of the time"
                )


def _deadlines(call: ast.Call) -> Iterator[ast.expr]:
    """Yields the timeouts of a call."""
    called = ast.unparse(call.func)
    if called in ("asyncio.timeout", "asyncio.timeout_at"):
        yield from call.args[:1]
    if called == "asyncio.wait_for":
        yield from call.args[1:2]
    if called not in ("within", "poll_until"):
        yield from (each.value for each in call.keywords if each.arg == "timeout")


def _is_literal(time: ast.expr) -> bool:
    """Returns whether a time is a literal or a constant, and nothing scales it."""
    names = [ast.unparse(each).split(".")[-1] for each in ast.walk(time) if isinstance(each, ast.Name)]
    if SCALED.intersection(names) or ast.unparse(time) == "None":
        return False
    numbers = any(isinstance(each, ast.Constant) for each in ast.walk(time))
    return numbers or any(name.isupper() for name in names)


def _tests(sources: Sequence[Source]) -> Iterator[Source]:
    return (source for source in sources if source.is_test and source.path != WAITING)


def _functions(source: Source) -> Iterator[AnyFunction]:
    return (node for node in ast.walk(source.tree) if isinstance(node, AnyFunction))


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).split(".")[-1]


WAITS = (no_sleeps_in_tests, one_way_to_poll, no_elapsed_time, patience_once, patient_deadlines)
