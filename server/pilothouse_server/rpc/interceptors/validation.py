"""Checks that the request is valid.

All rules that the proto fields declare are checked before the handler runs. A dry run then takes its seat at the
cluster, if an earlier dry run has shown which cluster that is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable

from google.protobuf.message import Message

from pilothouse_server.flowcontrol.reservation import before_dry_run
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.method_rules import Rule
from pilothouse_server.rpc.pipeline import Runner
from pilothouse_server.rpc.validation import goes_last, is_long, validate, validate_in_steps
from pilothouse_server.runtime.event_loop import long_work


def validation(rule: Rule, inner: Runner) -> Runner:
    """Returns the runner that raises InvalidArgument with every violation.

    The handler's iterator checks the messages of a client stream.
    """

    def valid(call: Call) -> Awaitable[bytes]:
        if is_long(call.request):
            return run(call)
        validate(call.request)
        return inner(call)

    async def run(call: Call) -> bytes:
        if call.request is not None:
            if is_long(call.request):
                await validate_in_steps(call.request)
                # The handler's own work on a long request takes a while as well.
                await long_work(last=goes_last(call.request))
            else:
                validate(call.request)
            if call.validate_only and call.namespace:
                await before_dry_run((call.method, call.namespace))
        if call.requests is not None:
            call.requests = _validated(call.requests)
        return await inner(call)

    # Most methods have one short request and no dry run, so there is nothing to wait for.
    return run if rule.streams or rule.has_validate_only else valid


async def _validated(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        validate(request)
        yield request
