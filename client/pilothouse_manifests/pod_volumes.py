"""The part of the table for volumes of the pods of one container alone, which are no volumes of the namespace."""

from __future__ import annotations

from pilothouse_manifests.fields import Field, FieldPart, Flag, Number, OneOf, Repeated, Text
from pilothouse_manifests.table import VOLUME_SOURCES

# 0644, the permission bits of files that show a config map or a secret.
USUAL_MODE = 0o644

_MODE = Number(maximum=0o777, optional=True)
KEY_FILE = FieldPart(
    "items",
    (
        Field("key", "key", Text(), required=True),
        Field("path", "path", Text(), required=True),
        Field("mode", "mode", _MODE),
    ),
)


def _files(name: str, key: str) -> FieldPart:
    return FieldPart(
        name,
        (
            Field("source_name", key, Text(), required=True),
            Field("optional", "optional", Flag()),
            Field("default_mode", "defaultMode", _MODE, default=USUAL_MODE),
            Field("items", "items", Repeated(KEY_FILE, by="key")),
        ),
    )


# The sources by our word.
FILES = {"config_map": _files("config_map", "name"), "secret": _files("secret", "secretName")}
POD_VOLUME = FieldPart(
    "pod_volumes",
    (
        Field("name", "name", Text(), required=True),
        OneOf("source", tuple((name, VOLUME_SOURCES[name][0], part) for name, part in FILES.items())),
    ),
)
