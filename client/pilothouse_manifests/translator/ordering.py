"""The order of a document in the apply of a whole application: phase, wave, and when a hook runs.

    argocd.argoproj.io/hook       PreSync, Sync, PostSync
    argocd.argoproj.io/sync-wave  the wave, in every phase
    helm.sh/hook                  pre-install and pre-upgrade are PreSync, post-install and post-upgrade PostSync
    helm.sh/hook-weight           the wave of a hook of Helm

As in Argo CD, Argo CD's annotation takes precedence over Helm's, and the weight of a Helm hook is its wave unless Argo
CD's annotation gives one. Hooks for other moments (tests, deletions, rollbacks, failures) are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pilothouse_manifests.translator.fields import Fields

PhaseWord = Literal["pre_sync", "sync", "post_sync"]
DeletionMoment = Literal["succeeded", "failed"]

HELM_HOOK: Final = "helm.sh/hook"
ARGO_HOOK: Final = "argocd.argoproj.io/hook"
_HELM_WEIGHT: Final = "helm.sh/hook-weight"
ARGO_WAVE: Final = "argocd.argoproj.io/sync-wave"
_WAVE: Final = re.compile(r"[+-]?[0-9]{1,9}")
# Word of a hook -> its phase in the first apply of an application, and in later ones.
_PHASES: Final[dict[str, dict[str, tuple[PhaseWord | None, PhaseWord | None]]]] = {
    ARGO_HOOK: {
        "PreSync": ("pre_sync", "pre_sync"),
        "Sync": ("sync", "sync"),
        "PostSync": ("post_sync", "post_sync"),
    },
    HELM_HOOK: {
        "pre-install": ("pre_sync", None),
        "pre-upgrade": (None, "pre_sync"),
        "post-install": ("post_sync", None),
        "post-upgrade": (None, "post_sync"),
    },
}
# Hooks for other moments -> why they are left out.
_LEFT_OUT: Final = {
    "Skip": "it is never applied",
    "SyncFail": "nothing runs when an apply fails",
    "PreDelete": "nothing runs when an application is deleted",
    "PostDelete": "nothing runs when an application is deleted",
    "pre-delete": "nothing runs when an application is deleted",
    "post-delete": "nothing runs when an application is deleted",
    "pre-rollback": "nothing runs for a rollback alone",
    "post-rollback": "nothing runs for a rollback alone",
    "test": "it runs on demand only",
    "test-success": "it runs on demand only",
    "test-failure": "it runs on demand only",
    "crd-install": "the cluster's administrator creates custom resource definitions",
}
_POLICIES: Final[dict[str, tuple[str, dict[str, DeletionMoment | None]]]] = {
    ARGO_HOOK: (
        "argocd.argoproj.io/hook-delete-policy",
        {"HookSucceeded": "succeeded", "HookFailed": "failed", "BeforeHookCreation": None},
    ),
    HELM_HOOK: (
        "helm.sh/hook-delete-policy",
        {"hook-succeeded": "succeeded", "hook-failed": "failed", "before-hook-creation": None},
    ),
}
# Annotation -> its words that keep an object from being deleted; the platform does not support them.
_RETENTION: Final = {
    "argocd.argoproj.io/sync-options": ("Prune=false", "Prune=confirm", "Delete=false", "Delete=confirm"),
    "helm.sh/resource-policy": ("keep",),
}


@dataclass(frozen=True, slots=True)
class DocumentOrder:
    """The order of a document. `install`: its phase in the first apply; `upgrade`: its phase in later ones; None: none.

    `delete_on`: the moments at which a hook is deleted. `alone`: as in Helm, its Job runs after the Jobs of its wave
    with smaller names, not at the same time.
    """

    install: PhaseWord | None = "sync"
    upgrade: PhaseWord | None = "sync"
    wave: int = 0
    hook: bool = False
    delete_on: frozenset[DeletionMoment] = frozenset()
    alone: bool = False


def read_order(root: Fields, annotation: Callable[[str], str]) -> DocumentOrder | None:
    """Returns the order of a document by its annotations.

    None if it is left out, with a note, or refused."""
    key = next((each for each in (ARGO_HOOK, HELM_HOOK) if annotation(each)), "")
    wave = _wave(root, annotation, ARGO_WAVE)
    if not key:
        return DocumentOrder(wave=wave or 0)
    words = _words(annotation(key))
    if not _check_words(root, key, words, {**_PHASES[key], **_LEFT_OUT}):
        return None
    taken = [_PHASES[key][each] for each in words if each in _PHASES[key]]
    if not taken:
        why = "; ".join(dict.fromkeys(_LEFT_OUT[each] for each in words))
        root.reporter.note(root.place, f"is left out: it is a hook ({annotation(key)}), and {why}")
        return None
    install, upgrade = ({each[at] for each in taken} - {None} for at in (0, 1))
    if len(install) > 1 or len(upgrade) > 1:
        message = "cannot be represented: a hook runs once in an apply, and this one names two phases"
        root.reporter.unusable(root.place, _path(key), message)
        return None
    if wave is None and key == HELM_HOOK:
        wave = _wave(root, annotation, _HELM_WEIGHT)
    policy, moments = _POLICIES[key]
    named = _words(annotation(policy))
    _check_words(root, policy, named, moments)
    delete_on = frozenset(moment for each in named if (moment := moments.get(each)) is not None)
    phases = next(iter(install), None), next(iter(upgrade), None)
    return DocumentOrder(*phases, wave or 0, hook=True, delete_on=delete_on, alone=key == HELM_HOOK)


def note_retention(root: Fields, annotation: Callable[[str], str]) -> None:
    """Notes that annotations which should keep an object from being deleted have no effect."""
    for key, words in _RETENTION.items():
        for word in words:
            if word in _words(annotation(key)):
                message = (
                    f"has {key}: {word}, which has no effect: it is pruned and deleted like any other object"
                )
                root.reporter.note(root.place, message)


def _wave(root: Fields, annotation: Callable[[str], str], key: str) -> int | None:
    text = annotation(key).strip()
    if not text:
        return None
    if _WAVE.fullmatch(text) is None:
        root.reporter.invalid(root.place, _path(key), "expected an integer of at most nine digits")
        return None
    return int(text)


def _check_words(root: Fields, key: str, words: Iterable[str], known: Iterable[str]) -> bool:
    known = tuple(known)
    unknown = [each for each in words if each not in known]
    if unknown:
        message = f"expected one or more of {', '.join(known)}"
        root.reporter.invalid(root.place, _path(key), message)
    return not unknown


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word for each in text.split(",") if (word := each.strip())))


def _path(key: str) -> str:
    return f"metadata.annotations[{key}]"
