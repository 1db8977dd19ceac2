"""aiohttp, loaded when the first cluster is connected to.

It takes 8 MB and a quarter of a second, which a server that serves calls, or starts, need not wait for. The Kubernetes
client library brings it in a thread (`connection`), so the event loop is not held by it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp
else:

    class _Aiohttp:
        """The names of the module; each is looked up once."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module("aiohttp"), name)
            setattr(self, name, found)
            return found

    aiohttp = _Aiohttp()

__all__ = ["aiohttp"]
