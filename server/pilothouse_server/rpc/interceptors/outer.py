"""The three outermost layers in one coroutine: telemetry → errors → operation.

They wait for nothing themselves. The coroutine ends with a response, a `CallFailed`, or the cancellation of a call that
the transport has cut off.
"""

from __future__ import annotations

import asyncio

from pilothouse_server.errors import PilothouseError
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.interceptors import errors, operation
from pilothouse_server.rpc.interceptors.telemetry import counts_of
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.pipeline import CallFailed, Runner


def outer(rule: Rule, inner: Runner) -> Runner:
    """Returns the runner that counts each call, translates its failure, and gives it its identity."""
    counts = counts_of(rule)

    async def run(call: Call) -> bytes:
        counts.began()
        code = "OK"
        try:
            try:
                with operation.Identified(call):
                    return await inner(call)
            # No variable that outlives its line may refer to one of these errors: the error refers to this frame.
            except PilothouseError as error:
                raise (errors.unheard(error) if call.unheard else errors.told(error)) from None
            except (asyncio.CancelledError, CallFailed):
                raise
            except Exception as error:  # noqa: BLE001 - it is logged, and its text is sent to nobody
                raise errors.unforeseen(call, error) from None
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
            counts.ended(call, code)

    return run
