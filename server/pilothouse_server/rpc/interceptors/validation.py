"""Whether what is asked can be meant.

Every rule that the proto fields declare, before the handler is reached. A call that only tries something out then takes
its place among those that wait for the cluster, if it is known which.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.message import Message

from pilothouse_server.rpc.admission.seats import before_trial
from pilothouse_server.rpc.call import Call
from pilothouse_server.rpc.pipeline import Proceed
from pilothouse_server.rpc.validation import is_long, validate, validate_in_steps


async def validation(call: Call, proceed: Proceed) -> bytes:
    """Raises InvalidArgument with every violation; messages of a client stream are checked by the
    handler's iterator.
    """
    if call.request is not None:
        if is_long(call.request):
            await validate_in_steps(call.request)
        else:
            validate(call.request)
        if call.validate_only and call.namespace:
            await before_trial((call.method, call.namespace))
    if call.requests is not None:
        call.requests = _validated(call.requests)
    return await proceed()


async def _validated(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        validate(request)
        yield request
