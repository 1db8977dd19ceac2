"""The order of a document in an application, from the annotations of Argo CD and Helm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pilothouse_client.apply.documents import parse
from pilothouse_manifests.translator.convert import convert
from pilothouse_manifests.translator.ordering import DeletionMoment, DocumentOrder
from pilothouse_manifests.translator.problems import Problems

PRE = DocumentOrder("pre_sync", "pre_sync", hook=True)
DELETED: frozenset[DeletionMoment] = frozenset({"succeeded", "failed"})


def read(annotations: str) -> tuple[DocumentOrder | None, Problems]:
    """Returns the order of a ConfigMap with these annotations, or None if it is left out, and the problems."""
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, annotations: {{{annotations}}}}}\n"
    problems = Problems()
    manifest = convert(parse(text, "web.yaml", problems), "cafe", problems, ordered=True)
    found = manifest.orders.get(("", "ConfigMap", "a"), DocumentOrder())
    return (found if manifest.configs else None), problems


@pytest.mark.parametrize(
    ("annotations", "order"),
    [
        ("team: blue", DocumentOrder()),
        ("argocd.argoproj.io/sync-wave: '-5'", DocumentOrder(wave=-5)),
        # Without a hook, a weight has no effect.
        ("helm.sh/hook-weight: '3'", DocumentOrder()),
        ("argocd.argoproj.io/hook: PreSync", PRE),
        ("argocd.argoproj.io/hook: Sync", DocumentOrder(hook=True)),
        ("argocd.argoproj.io/hook: 'PostSync,SyncFail'", DocumentOrder("post_sync", "post_sync", hook=True)),
        ("helm.sh/hook: 'pre-install, pre-upgrade'", replace(PRE, alone=True)),
        ("helm.sh/hook: pre-install", DocumentOrder("pre_sync", None, hook=True, alone=True)),
        ("helm.sh/hook: 'post-upgrade,pre-delete'", DocumentOrder(None, "post_sync", hook=True, alone=True)),
        (
            "helm.sh/hook: 'pre-install,post-upgrade'",
            DocumentOrder("pre_sync", "post_sync", hook=True, alone=True),
        ),
        (
            "helm.sh/hook: pre-install, helm.sh/hook-weight: '-3'",
            DocumentOrder("pre_sync", None, -3, hook=True, alone=True),
        ),
        (
            "helm.sh/hook: pre-install, helm.sh/hook-weight: '-3', argocd.argoproj.io/sync-wave: '2'",
            DocumentOrder("pre_sync", None, 2, hook=True, alone=True),
        ),
        ("helm.sh/hook: pre-install, argocd.argoproj.io/hook: PreSync", PRE),
        (
            "helm.sh/hook: pre-install, helm.sh/hook-delete-policy: 'hook-succeeded,hook-failed'",
            DocumentOrder("pre_sync", None, hook=True, alone=True, delete_on=DELETED),
        ),
        (
            "argocd.argoproj.io/hook: PreSync, "
            "argocd.argoproj.io/hook-delete-policy: 'HookSucceeded,HookFailed,BeforeHookCreation'",
            DocumentOrder("pre_sync", "pre_sync", hook=True, delete_on=DELETED),
        ),
    ],
)
def test_annotations_set_the_order_of_a_document(annotations: str, order: DocumentOrder) -> None:
    found, problems = read(annotations)
    assert found == order
    assert not problems.all
    assert not problems.notes


@pytest.mark.parametrize(
    ("annotations", "why"),
    [
        ("helm.sh/hook: test", "it is a hook (test), and it runs on demand only"),
        (
            "helm.sh/hook: 'pre-delete,post-rollback'",
            "nothing runs when an application is deleted; nothing runs for a rollback alone",
        ),
        ("argocd.argoproj.io/hook: Skip", "it is never applied"),
        ("argocd.argoproj.io/hook: SyncFail", "nothing runs when an apply fails"),
        ("argocd.argoproj.io/hook: PostDelete", "nothing runs when an application is deleted"),
    ],
)
def test_hooks_of_unsupported_moments_are_left_out_with_a_note(annotations: str, why: str) -> None:
    found, problems = read(annotations)
    assert found is None
    assert not problems.all
    [note] = problems.notes
    assert note.subject == "configmap/a"
    assert note.message.startswith("is left out: ")
    assert why in note.message


@pytest.mark.parametrize(
    "annotation",
    ["helm.sh/resource-policy: keep", "argocd.argoproj.io/sync-options: 'Replace=true,Prune=false'"],
)
def test_an_annotation_that_would_keep_an_object_is_noted(annotation: str) -> None:
    found, problems = read(annotation)
    assert found == DocumentOrder()
    assert not problems.all
    [note] = problems.notes
    assert annotation.partition(":")[0] in note.message
    assert "no effect" in note.message


@pytest.mark.parametrize(
    ("annotations", "path", "why"),
    [
        ("helm.sh/hook: pre-instal", "helm.sh/hook", "expected one or more of pre-install, "),
        ("argocd.argoproj.io/hook: presync", "argocd.argoproj.io/hook", "expected one or more of PreSync, "),
        ("helm.sh/hook: 'pre-install,post-install'", "helm.sh/hook", "this one names two phases"),
        ("argocd.argoproj.io/sync-wave: first", "argocd.argoproj.io/sync-wave", "expected an integer"),
        (
            "helm.sh/hook: pre-install, helm.sh/hook-weight: high",
            "helm.sh/hook-weight",
            "expected an integer of at most nine digits",
        ),
        (
            "helm.sh/hook: pre-install, helm.sh/hook-delete-policy: never",
            "helm.sh/hook-delete-policy",
            "expected one or more of hook-succeeded, hook-failed, before-hook-creation",
        ),
    ],
)
def test_an_invalid_ordering_annotation_is_a_problem(annotations: str, path: str, why: str) -> None:
    _, problems = read(annotations)
    [problem] = problems.all
    assert problem.path == f"metadata.annotations[{path}]"
    assert why in problem.message
