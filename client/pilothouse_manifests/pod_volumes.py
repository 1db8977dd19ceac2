"""The part of the table for volumes that belong to one container's pods, not to the namespace."""

from __future__ import annotations

from pilothouse_manifests.fields import Chosen, Entry, Field, FieldPart, Flag, Number, OneOf, Repeated, Text
from pilothouse_manifests.table import AMOUNT_REFERENCE, CLAIM_SOURCE, FIELD_REFERENCE, MODE, VOLUME_SOURCES

# The default permission bits of files from a config map or a secret.
USUAL_MODE = 0o644
# The config map that Kubernetes creates in each namespace; it contains only the cluster's certificate.
ROOT_CERTIFICATE = "kube-root-ca.crt"
# The API's default validity of a token.
USUAL_EXPIRATION_SECONDS = 3600
_SHORTEST_EXPIRATION_SECONDS, _LONGEST_EXPIRATION_SECONDS = 600, 1 << 32

KEY_FILE = FieldPart(
    "items",
    (
        Field("key", "key", Text(), required=True),
        Field("path", "path", Text(), required=True),
        Field("mode", "mode", MODE),
    ),
)
DOWNWARD_FILE = FieldPart(
    "items",
    (
        Field("path", "path", Text(), required=True),
        Field("mode", "mode", MODE),
        Chosen("value_from", (FIELD_REFERENCE, AMOUNT_REFERENCE)),
    ),
)
_DEFAULT_MODE = Field("default_mode", "defaultMode", MODE, default=USUAL_MODE)
_FIELDS = Field("items", "items", Repeated(DOWNWARD_FILE, by="path"))


def _keys(key: str) -> tuple[Entry, ...]:
    return (
        Field("source_name", key, Text(), required=True),
        Field("optional", "optional", Flag()),
        Field("items", "items", Repeated(KEY_FILE, by="key")),
    )


PROJECTED_SOURCE = FieldPart(
    "sources",
    (
        OneOf(
            "source",
            (
                ("config_map", "configMap", FieldPart("config_map", _keys("name"))),
                ("secret", "secret", FieldPart("secret", _keys("name"))),
                ("downward_api", "downwardAPI", FieldPart("downward_api", (_FIELDS,))),
                (
                    "service_account_token",
                    "serviceAccountToken",
                    FieldPart(
                        "service_account_token",
                        (
                            Field("audience", "audience", Text()),
                            Field(
                                "expiration_seconds",
                                "expirationSeconds",
                                Number(_SHORTEST_EXPIRATION_SECONDS, _LONGEST_EXPIRATION_SECONDS),
                                default=USUAL_EXPIRATION_SECONDS,
                                written=True,
                            ),
                            Field("path", "path", Text(), required=True),
                        ),
                    ),
                ),
            ),
        ),
    ),
)
# Config maps and secrets with chosen keys or permission bits, which volumes of the namespace do not have.
FILES = {
    "config_map": FieldPart("config_map", (*_keys("name"), _DEFAULT_MODE)),
    "secret": FieldPart("secret", (*_keys("secretName"), _DEFAULT_MODE)),
}
# Sources that no volume of the namespace has, by the platform's word: the key and the part.
OWN_SOURCES: dict[str, tuple[str, FieldPart]] = {
    "projected": (
        "projected",
        FieldPart("projected", (Field("sources", "sources", Repeated(PROJECTED_SOURCE)), _DEFAULT_MODE)),
    ),
    "downward_api": ("downwardAPI", FieldPart("downward_api", (_FIELDS, _DEFAULT_MODE))),
}
_CLAIM_KEY, _ = VOLUME_SOURCES[CLAIM_SOURCE.name]
EXISTING_CLAIM = FieldPart(
    "existing_claim",
    (
        Field("claim_name", "claimName", Text(), required=True),
        Field("read_only", "readOnly", Flag()),
    ),
)
POD_VOLUME = FieldPart(
    "pod_volumes",
    (
        Field("name", "name", Text(), required=True),
        OneOf(
            "source",
            (
                *((name, VOLUME_SOURCES[name][0], part) for name, part in FILES.items()),
                *((name, key, part) for name, (key, part) in OWN_SOURCES.items()),
                ("existing_claim", _CLAIM_KEY, EXISTING_CLAIM),
            ),
        ),
    ),
)
