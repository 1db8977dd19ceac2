"""The definitions of several versions of Kubernetes, in one file that contains equal definitions once."""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from importlib import resources

from pilothouse_manifests.schemas.definitions import Schemas

FILE = "kubernetes.json.gz"
OLDEST, NEWEST = 30, 37


@lru_cache(maxsize=NEWEST - OLDEST + 1)
def schemas(minor: int = NEWEST) -> Schemas:
    """Returns the schemas of Kubernetes 1.`minor`, or of the nearest version if there are none for it.

    Reading a version takes some tens of milliseconds, once.
    """
    whole = json.loads(gzip.decompress((resources.files(__package__) / FILE).read_bytes()))
    numbers = whole["versions"][f"1.{min(max(minor, OLDEST), NEWEST)}"]
    return Schemas(dict(whole["definitions"][number] for number in numbers))
