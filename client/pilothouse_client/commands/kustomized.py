"""`apply -k`: the output of kustomize, from the program of that name or from kubectl, which includes it.

The platform does not contain kustomize: overlays belong to the program that a team already uses. The lines in problems
are lines of its output.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

from pilothouse_client.commands.failures import CommandError

_PROGRAMS = (("kustomize", "build"), ("kubectl", "kustomize"))
_SECONDS = 120
_MOST_BYTES = 64 * 1024 * 1024
_WRONG_COMMAND_LINE = 2


def kustomized(folder: str) -> io.BytesIO:
    """Returns the output of kustomize for a folder.

    Raises:
        CommandError: the folder or the program does not exist, or the program fails.
    """
    if not Path(folder).is_dir():
        raise CommandError(f"-k {folder}: there is no such folder", _WRONG_COMMAND_LINE)
    found = ((shutil.which(name), verb) for name, verb in _PROGRAMS)
    program = next(((path, verb) for path, verb in found if path), None)
    if program is None:
        raise CommandError(
            "-k needs kustomize or kubectl in the PATH; install one, or apply the output of kustomize with -f -",
            _WRONG_COMMAND_LINE,
        )
    try:
        done = subprocess.run([*program, folder], capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise CommandError(f"-k {folder}: kustomize did not end within {_SECONDS} seconds") from None
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip()
        raise CommandError(f"-k {folder}: {why or 'kustomize failed'}")
    if len(done.stdout) > _MOST_BYTES:
        raise CommandError(f"-k {folder}: its output is longer than {_MOST_BYTES // 2**20} MiB")
    return io.BytesIO(done.stdout)
