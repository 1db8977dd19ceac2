"""Counts calls and measures how long they take, for Prometheus; outermost, so that nothing is missed."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import Counter, Gauge, Histogram

from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.pipeline import CallFailed, Proceed

CALLS = Counter("pilothouse_rpc_calls_total", "Calls by outcome.", ("service", "method", "code"))
SECONDS = Histogram("pilothouse_rpc_seconds", "Duration of unary calls.", ("service", "method"))
IN_FLIGHT = Gauge("pilothouse_rpc_in_flight", "Calls being served.", ("service", "method"))


class _Method:
    """What counts one method: a label is looked for once, not with each call."""

    def __init__(self, rule: Rule) -> None:
        self._names = (rule.service, rule.name)
        self._calls: dict[str, Counter] = {}
        self.in_flight = IN_FLIGHT.labels(*self._names)
        self.seconds = SECONDS.labels(*self._names)

    def calls(self, code: str) -> Counter:
        """Counts those that ended with this code."""
        found = self._calls.get(code)
        if found is None:
            found = self._calls[code] = CALLS.labels(*self._names, code)
        return found


_methods: dict[str, _Method] = {}


async def telemetry(call: Call, proceed: Proceed) -> bytes:
    """Observes the call from its first byte to its last."""
    method = _methods.get(call.method) or _methods.setdefault(call.method, _Method(call.rule))
    method.in_flight.inc()
    code = "OK"
    try:
        return await proceed()
    except CallFailed as failure:
        code = failure.code.name
        raise
    except asyncio.CancelledError:
        code = call.code_if_cut
        raise
    except BaseException:
        code = "INTERNAL"
        raise
    finally:
        method.in_flight.dec()
        method.calls(code).inc()
        if not call.rule.streams:
            method.seconds.observe(time.perf_counter() - call.started)
