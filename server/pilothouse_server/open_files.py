"""How many files and connections a process may have open: as many as the system lets it.

Systemd, and containerd since its version 2, begin a process with 1,024 and let it have hundreds of thousands, for the
sake of programs that call `select`. None of ours does. A stranger took all of them by 1,100 connections that said
nothing: nobody else could connect, nor could the server to its database.
"""

from __future__ import annotations

import resource
from contextlib import suppress


def allow_many_open_files() -> None:
    """To be called once, at the start: programs that are started inherit it. Where the system refuses, it stays."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
