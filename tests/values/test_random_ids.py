"""Random ids are UUIDs of version 4, no two alike, in whichever process."""

from __future__ import annotations

import sys
from uuid import RFC_4122, UUID

from pilothouse_server.values.random_ids import random_id
from tests.processes import finished

# More than one batch, so that some are left in the parent and some are made after.
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


def test_they_are_uuids_of_version_4() -> None:
    made = [random_id() for _ in range(1000)]
    for each in made:
        read = UUID(each)
        assert (str(read), read.version, read.variant) == (each, 4, RFC_4122)
    assert len(set(made)) == len(made)
    # Each of the 122 bits that are random is both.
    for bit in range(128):
        values = {UUID(each).int >> bit & 1 for each in made}
        assert len(values) == (1 if bit in (62, 63, 76, 77, 78, 79) else 2)


async def test_a_process_that_is_forked_gives_others() -> None:
    code, output, errors = await finished(sys.executable, "-W", "error", "-c", _PROGRAM)
    assert code == 0, errors.decode()
    made = output.decode().split()
    assert len(made) == 200
    assert len(set(made)) == 200
