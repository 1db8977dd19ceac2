"""Large buffers that are freed go back to the system, no matter how many were freed before."""

from __future__ import annotations

import ctypes
import sys

import pytest

from pilothouse_server.runtime import process_tuning
from tests.processes import finished

# Prints whether the second block of the size of a password's hash is still mapped after it was freed.
_PROGRAM = """
import ctypes, sys
from pilothouse_server.runtime import process_tuning

if sys.argv[1] == "set":
    assert process_tuning.give_back_large_buffers()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for _ in range(2):
    block = libc.malloc(19 * 1024 * 1024)
    libc.free(block)
ranges = [line.split()[0].split("-") for line in open("/proc/self/maps")]
print(any(int(first, 16) <= block < int(end, 16) for first, end in ranges))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("threshold", "kept"), [("set", b"False"), ("as it comes", b"True")])
async def test_a_large_buffer_that_is_freed_is_not_kept(threshold: str, kept: bytes) -> None:
    if not process_tuning.is_glibc():
        pytest.skip("another C library has another allocator")
    code, output, errors = await finished(sys.executable, "-c", _PROGRAM, threshold)
    assert (code, output.strip()) == (0, kept), errors.decode()


def test_another_c_library_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    assert process_tuning.give_back_large_buffers() is False
