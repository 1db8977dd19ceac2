"""The services of the API, read from the stubs: a test of all services includes a new one automatically."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor

import pilothouse


def _files() -> list[FileDescriptor]:
    folder = Path(pilothouse.__path__[0])
    found = sorted(path.relative_to(folder).with_suffix("").parts for path in folder.rglob("*_pb2.py"))
    return [import_module(".".join(("pilothouse", *parts))).DESCRIPTOR for parts in found]


SERVICES: Final[tuple[ServiceDescriptor, ...]] = tuple(
    service for file in _files() for service in file.services_by_name.values()
)
METHODS: Final[tuple[MethodDescriptor, ...]] = tuple(
    method for service in SERVICES for method in service.methods
)
