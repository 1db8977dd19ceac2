"""The kinds of objects, as people write them."""

from __future__ import annotations

from pilothouse_client.commands.failures import CommandError
from pilothouse_manifests.carried import CARRIED

_WRONG_COMMAND_LINE = 2
# kubectl's short names.
_SHORT = {
    "ing": "ingress",
    "netpol": "networkpolicy",
    "pdb": "poddisruptionbudget",
    "hpa": "horizontalpodautoscaler",
    "sa": "serviceaccount",
    "gtw": "gateway",
}


def kind_of(text: str) -> tuple[str, str]:
    """Returns version and kind; kinds that are open by default need only their name, others need both."""
    if "/" in text:
        version, _, kind = text.rpartition("/")
        return version, kind
    word = _SHORT.get(text.lower(), text.lower())
    names = {word, word.removesuffix("s"), word.removesuffix("es"), f"{word.removesuffix('ies')}y"}
    found = sorted((version, kind) for version, kind in CARRIED if kind.lower() in names)
    if not found:
        known = ", ".join(sorted({kind.lower() for _, kind in CARRIED}))
        words = f"KIND {text}: give {known}, or VERSION/KIND such as postgresql.cnpg.io/v1/Cluster"
        raise CommandError(words, _WRONG_COMMAND_LINE)
    # Chooses the newest stable version: v2 of autoscalers, v1 of routes.
    return max(found, key=lambda each: ("beta" not in each[0], each[0]))
