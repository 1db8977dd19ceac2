"""Fields that do not survive the way to a cluster and back, and why: the one list.

`test_every_field` fails as well where an entry is no longer true.
"""

from __future__ import annotations

_PEOPLE = "a word for people, which the cluster has no place for"
_ETAG = "names the state that is to be changed; it is no part of it"
_ONE = "1 alone is allowed, which is what the API takes where nothing is said"
_READINESS = "refused: a readiness probe ends nothing"

# By resource and field. `everywhere`: it cannot be given at all. `import`: Kubernetes has no place for it.
EXCEPTIONS: dict[str, dict[str, dict[str, str]]] = {
    "pilothouse.container.v1.Container": {
        "everywhere": {
            "etag": _ETAG,
            "probes.readiness.termination_grace_seconds": _READINESS,
        },
        "import": {
            "display_name": _PEOPLE,
            "probes.liveness.success_threshold": _ONE,
            "probes.startup.success_threshold": _ONE,
            "drift_policy": "what the platform does about others' changes; the cluster does not know it",
        },
    },
}
