"""aiohttp, loaded when the first cluster is connected to.

The import takes 8 MB and a quarter of a second, which would delay the server's start or its calls. The Kubernetes
client library imports it in a thread (`connection`), so that the import does not block the event loop.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp
else:

    class _Aiohttp:
        """The names of the module; each is imported on first use."""

        def __getattr__(self, name: str) -> Any:
            found = getattr(importlib.import_module("aiohttp"), name)
            setattr(self, name, found)
            return found

    aiohttp = _Aiohttp()

__all__ = ["aiohttp"]
