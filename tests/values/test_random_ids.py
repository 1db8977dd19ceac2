"""Random ids are UUIDs of version 4, and unique across processes."""

from __future__ import annotations

import sys
from uuid import RFC_4122, UUID

from pilothouse_server.values.random_ids import random_id
from tests.processes import finished

# More than one batch: some ids come from the batch made before the fork, and some from later batches.
_PROGRAM = """
import os
from pilothouse_server.values.random_ids import random_id

first = random_id()
child = os.fork()
ids = [random_id() for _ in range(100)]
if child:
    os.waitpid(child, 0)
os.write(1, ("\\n".join(ids) + "\\n").encode())
"""


def test_random_ids_are_uuids_of_version_4() -> None:
    made = [random_id() for _ in range(1000)]
    for each in made:
        read = UUID(each)
        assert (str(read), read.version, read.variant) == (each, 4, RFC_4122)
    assert len(set(made)) == len(made)
    # Each of the 122 random bits takes both values.
    for bit in range(128):
        values = {UUID(each).int >> bit & 1 for each in made}
        assert len(values) == (1 if bit in (62, 63, 76, 77, 78, 79) else 2)


async def test_a_forked_process_returns_other_ids() -> None:
    code, output, errors = await finished(sys.executable, "-W", "error", "-c", _PROGRAM)
    assert code == 0, errors.decode()
    made = output.decode().split()
    assert len(made) == 200
    assert len(set(made)) == 200
