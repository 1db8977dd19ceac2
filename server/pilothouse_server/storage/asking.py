"""Asks a claim's cluster what it would say to it: the part of `validate_only` that only the cluster can answer.

The server-side dry run checks schema, admission, quota, and whether a bound claim may grow. It happens in a
transaction that is rolled back afterwards, so it has a deadline of its own. A namespace that is not on the cluster yet
cannot be asked about: that is no refusal.
"""

from __future__ import annotations

import asyncio

from pilothouse_server.cluster.claims import PERSISTENT_VOLUME_CLAIMS, claim
from pilothouse_server.cluster.errors import ClusterError, Invalid, NotFound, Refused, Unreachable
from pilothouse_server.containers.live import Connect, caller_error
from pilothouse_server.errors import FailedPrecondition, InvalidArgument
from pilothouse_server.storage.model import Volume

SECONDS = 10.0


async def check_on_cluster(connect: Connect, volume: Volume) -> None:
    """Have the volume's cluster try its claim out, and change nothing; other types have nothing to try.

    Raises:
        InvalidArgument: the cluster finds the claim wrong; with its words.
        FailedPrecondition: the cluster refuses it: a quota, a policy, a right, a class that does not let it grow.
        Unavailable: the cluster does not answer.
    """
    if not volume.is_claim:
        return
    name = volume.cluster_name
    try:
        client = await connect(name)
        async with asyncio.timeout(SECONDS):
            await client.dry_run(PERSISTENT_VOLUME_CLAIMS, claim(volume), force=True)
    except TimeoutError:
        away = Unreachable(f"cluster {name!r} did not answer within {SECONDS:g} s")
        raise caller_error(away, name) from None
    except NotFound:
        return
    except Refused as refusal:
        kind = InvalidArgument if isinstance(refusal, Invalid) else FailedPrecondition
        raise kind(
            f'cluster "{name}" would refuse it: {refusal.message}',
            reason="CLUSTER_REFUSED",
            metadata={"cluster": name, "cluster_reason": refusal.reason},
        ) from refusal
    except ClusterError as error:
        raise caller_error(error, name) from error
