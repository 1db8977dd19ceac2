"""Counts calls and measures how long they take, for Prometheus; outermost, so that nothing is missed."""

from __future__ import annotations

import asyncio
import time

from prometheus_client import Counter, Gauge, Histogram

from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import CallFailed, Proceed

CALLS = Counter("pilothouse_rpc_calls_total", "Calls by outcome.", ("service", "method", "code"))
SECONDS = Histogram("pilothouse_rpc_seconds", "Duration of unary calls.", ("service", "method"))
IN_FLIGHT = Gauge("pilothouse_rpc_in_flight", "Calls being served.", ("service", "method"))


async def telemetry(call: Call, proceed: Proceed) -> bytes:
    """Observes the call from its first byte to its last."""
    labels = (call.rule.service, call.rule.name)
    IN_FLIGHT.labels(*labels).inc()
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
        IN_FLIGHT.labels(*labels).dec()
        CALLS.labels(*labels, code).inc()
        if not call.rule.streams:
            SECONDS.labels(*labels).observe(time.perf_counter() - call.started)
