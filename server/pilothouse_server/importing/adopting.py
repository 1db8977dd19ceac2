"""What becomes wanted of a container because others made it so on its cluster: drift that is adopted.

The cluster has it already, so nothing is refused here: a quota that is passed by it counts what there is.
"""

from __future__ import annotations

import msgspec

from pilothouse_server.containers import operations, repository, rules
from pilothouse_server.containers.model import Container
from pilothouse_server.store.unit_of_work import Transaction
from pilothouse_server.values.image_reference import ImageReference

ADOPTED = "Adopted"
# The part of a container that is taken over; all else is as stored.
_FIELDS = ("image", "env", "resources", "replicas", "labels", "annotations", "spec")


async def adopt(transaction: Transaction, stored: Container, there: Container, words: str) -> Container:
    """Write what `there` wants as a new generation of the locked `stored`, with history and event.

    `words` say what was taken over, for the history. The actor is the transaction's.
    """
    wanted = msgspec.structs.replace(stored, **{name: getattr(there, name) for name in _FIELDS})
    if wanted == stored:
        return stored
    image_id = None
    if wanted.image != stored.image:
        image_id = await repository.register_image(transaction, ImageReference.parse(wanted.image))
    written = await repository.update_container(
        transaction,
        stored,
        wanted,
        image_id=image_id,
        quota=rules.quota_share(wanted),
        generation=stored.generation + 1,
    )
    told = msgspec.structs.replace(written.observed, reason=ADOPTED, message=words)
    await repository.add_history(
        transaction, msgspec.structs.replace(written, observed=told), stored.observed.status, "system"
    )
    transaction.emit(operations.event(written, "modified", stored))
    await transaction.enqueue("container", written.id, written.cluster_name, written.namespace_id)
    return written
