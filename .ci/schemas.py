"""Writes the schemas of Kubernetes 1.30 to 1.37 from the package kubernetes-validate: `python .ci/schemas.py generate`.

`check` compares the file with the one that would be written.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pilothouse_manifests.schemas import tables
from pilothouse_manifests.schemas.openapi import definitions_of

_FOLDER = Path(tables.__file__).parent
_MOST_BYTES = 2 * 1024 * 1024


def packed(versions: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Returns the file with the definitions, by version and name. Equal input gives equal bytes."""
    places: dict[str, int] = {}
    numbers = {
        version: sorted(
            places.setdefault(json.dumps([name, each], sort_keys=True), len(places))
            for name, each in sorted(definitions.items())
        )
        for version, definitions in sorted(versions.items())
    }
    text = json.dumps({"definitions": [json.loads(each) for each in places], "versions": numbers})
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def _generated() -> bytes:
    # The package itself is not imported: that would require other packages.
    spec = find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("kubernetes-validate is missing: run `make setup`")
    source = Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema"
    versions = {}
    for minor in range(tables.OLDEST, tables.NEWEST + 1):
        text = (source / f"v1.{minor}.0-local-strict" / "_definitions.json").read_text()
        versions[f"1.{minor}"] = definitions_of(json.loads(text))
    return packed(versions)


def main(verb: str) -> int:
    """Runs a command and returns the exit code: 1 if the file differs or is too large."""
    found, file = _generated(), _FOLDER / tables.FILE
    if len(found) > _MOST_BYTES:
        print(f"the schemas have {len(found)} bytes, more than {_MOST_BYTES}")
        return 1
    if verb == "generate":
        file.write_bytes(found)
        print(f"wrote {file.name}: {len(found)} bytes")
        return 0
    if file.read_bytes() != found:
        print("the schemas differ from those of kubernetes-validate: run `python .ci/schemas.py generate`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2] or ["check"]))
