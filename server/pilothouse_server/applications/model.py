"""Values of applications, independent of storage, transport and clusters.

GivenDocument   a document as the caller sends it
WantedObject    an object that the documents ask for, in the form of its noun (`documents`)
ApplicationPlan the differences between wanted and stored objects, and why an apply is refused (`comparison`)
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from pilothouse_manifests.translator.ordering import DocumentOrder
from pilothouse_server.values.resources import Namespaced, ObjectWarning

ApplicationStatus = Literal["healthy", "progressing", "degraded", "suspended", "missing"]
ChangeAction = Literal["create", "update", "unchanged", "prune", "replace", "run"]
ProblemWeight = Literal["harmless", "behaviour", "security"]
ApplicationPhase = Literal["pre_sync", "sync", "post_sync"]
HookOutcome = Literal["succeeded", "failed", "skipped"]
MemberNoun = Literal["config_map", "secret", "volume", "service", "object", "container"]

# Objects are written in this order, so that a container finds the configuration and the volumes that it names.
NOUNS: Final[tuple[MemberNoun, ...]] = ("config_map", "secret", "volume", "service", "object", "container")


class MemberKey(msgspec.Struct, frozen=True, order=True):
    """Identifies an object in a namespace. `api_group` and `kind` are set only for carried objects."""

    noun: MemberNoun
    name: str
    api_group: str = ""
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.kind or self.noun.replace('_', ' ')} {self.name}"


class GivenDocument(msgspec.Struct, frozen=True):
    """A document as the caller sends it: JSON text, and the file or stream that it was read from."""

    json: str
    source: str = ""

    def __repr__(self) -> str:
        return f"GivenDocument({self.source!r})"


class WantedObject(msgspec.Struct, frozen=True):
    """An object that documents ask for, in the form of its noun.

    `value`: a `Container`, `Service`, `CarriedObject`, `Volume` or `ConfigMap`, or the `Asked` of a secret. `fields`:
    names of the fields that the documents decide; None if they decide all. Other fields keep their stored values.
    `document`: the index of its document, -1 for an object that several documents imply. `order`: phase and wave from
    its annotations.
    """

    key: MemberKey
    api_version: str
    kind: str
    value: Any
    document: int = -1
    source: str = ""
    fields: frozenset[str] | None = None
    order: DocumentOrder = DocumentOrder()

    def __repr__(self) -> str:
        return f"WantedObject({str(self.key)!r})"


class FieldDifference(msgspec.Struct, frozen=True):
    """A field that differs: both values as JSON, cut after 1,000 characters. `masked`: left out as secret."""

    path: str
    before: str = ""
    after: str = ""
    masked: bool = False


class ApplicationChange(msgspec.Struct, frozen=True):
    """The effect of an apply on one object, with its phase and wave.

    `fields`: those that an update changes. `modified_fields`: those that other calls changed since the newest revision.
    """

    api_version: str
    kind: str
    name: str
    action: ChangeAction
    fields: tuple[FieldDifference, ...] = ()
    modified_fields: tuple[FieldDifference, ...] = ()
    phase: ApplicationPhase = "sync"
    wave: int = 0


class ApplicationProblem(msgspec.Struct, frozen=True):
    """A reason why an apply is refused. `document`: index of the document, -1 for none."""

    document: int
    reason: str
    message: str
    kind: str = ""
    name: str = ""
    path: str = ""
    weight: ProblemWeight | None = None
    permission: str = ""
    source: str = ""


class ReadDocuments(msgspec.Struct, frozen=True):
    """The objects that documents ask for, and the problems of the documents."""

    wanted: tuple[WantedObject, ...] = ()
    problems: tuple[ApplicationProblem, ...] = ()
    warnings: tuple[ObjectWarning, ...] = ()


class RevisionDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document of a revision; its text is stored by `digest`. `secret`: the Secret's name, if the document is one."""

    digest: str
    kind: str
    name: str
    source: str = ""
    secret: str = ""


class KeyScope(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits of the API key of a call, in addition to those of its owner.

    `permissions`: None for no limit. `in_namespaces`: the key is limited to some namespaces, including that of the
    call.
    """

    permissions: tuple[str, ...] | None = None
    in_namespaces: bool = False


class RevisionState(msgspec.Struct, frozen=True, omit_defaults=True):
    """A revision of an application, as it is stored.

    `failed_revision`: number of the failed revision that this one rolls back; 0 if a caller made this revision.
    `reason`: why that one failed. `key_scope`: the limits of the API key that applied this revision. They also limit
    what the server does later in the name of the key's owner.
    """

    documents: tuple[RevisionDocument, ...] = ()
    rollback_on_failure: bool = False
    progress_deadline_seconds: int = 0
    failed_revision: int = 0
    reason: str = ""
    key_scope: KeyScope | None = None


class ApplyChoice(msgspec.Struct, frozen=True):
    """The rights and options of an apply, and the settings of its revision.

    `revisions_kept` None and empty `labels` leave the stored values as they are. `origin`: number of the revision that
    a rollback restores; None for an apply. `failed_revision`, `reason` and `key_scope`: as in `RevisionState`. `left`:
    members that stay as they are, although no document names them. `delete_hooks`: pruning also deletes hooks.
    """

    name: str = ""
    prune: bool = False
    take_over: bool = False
    replace: bool = False
    force: bool = False
    delete_claims: bool = False
    rollback_on_failure: bool = False
    progress_deadline_seconds: int = 0
    revisions_kept: int | None = None
    labels: dict[str, str] = {}
    origin: int | None = None
    failed_revision: int = 0
    reason: str = ""
    key_scope: KeyScope | None = None
    rerun_jobs: bool = False
    left: frozenset[MemberKey] = frozenset()
    delete_hooks: bool = False

    @property
    def runs_hooks(self) -> bool:
        """Whether hooks take part. A rollback runs them only if the caller asks for it."""
        return self.origin is None or self.rerun_jobs


class MemberPlace(msgspec.Struct, frozen=True):
    """The place of an object in an apply. `step`: index of its phase and wave among the steps of the apply, from 0.

    `delete_on`: outcomes after which a hook is deleted. `skipped`: the hook takes no part in this apply.
    """

    phase: ApplicationPhase = "sync"
    wave: int = 0
    step: int = 0
    hook: bool = False
    delete_on: frozenset[str] = frozenset()
    skipped: bool = False


class Member(msgspec.Struct, frozen=True):
    """An object of an application.

    `generation`: that of the object's desired state when the newest revision was written. `status`, `reason`,
    `modified` and `modified_by` describe the object as it is now. `failed`: waiting does not make it healthy.
    `fails_at`: when it fails if it does not change; None if time alone changes nothing.

    `pruned`: the object is deleted at its step. `outcome`: how a hook ended, once that no longer depends on its object.
    `waiting`: its step has not begun, and the cluster does not have its desired state. `running`: a Job that has not
    succeeded yet. `resource_id`: None if the object does not exist or is being deleted.
    """

    key: MemberKey
    api_version: str
    kind: str
    generation: int = 0
    status: ApplicationStatus = "progressing"
    reason: str = ""
    message: str = ""
    modified: bool = False
    modified_by: str = ""
    failed: bool = False
    fails_at: datetime | None = None
    place: MemberPlace = MemberPlace()
    pruned: bool = False
    outcome: HookOutcome | None = None
    outcome_reason: str = ""
    outcome_message: str = ""
    waiting: bool = False
    running: bool = False
    resource_id: int | None = None

    @property
    def phase(self) -> ApplicationPhase:
        return self.place.phase

    @property
    def wave(self) -> int:
        return self.place.wave

    @property
    def hook(self) -> bool:
        return self.place.hook

    @property
    def name(self) -> str:
        return self.key.name


class ApplicationResource(Namespaced, msgspec.Struct, frozen=True, kw_only=True):
    """An application as stored. `revision`: number of the newest revision.

    `step`: the step that this revision has reached. `installed`: a revision has reached its phase Sync.
    """

    id: int = 0
    uid: str = ""
    name: str
    labels: dict[str, str] = {}
    revision: int = 0
    revisions_kept: int = 20
    rollback_on_failure: bool = False
    progress_deadline_seconds: int = 0
    status: ApplicationStatus = "progressing"
    reason: str = ""
    message: str = ""
    members: tuple[Member, ...] = ()
    step: int = 0
    installed: bool = False
    resource_version: int = 1
    row_version: int = 1
    created_at: datetime | None = None
    updated_at: datetime | None = None
    created_by: str = ""


class UserRef(msgspec.Struct, frozen=True):
    """A user's id, and the username at the time of the apply."""

    id: int
    name: str


class FollowedApplication(msgspec.Struct, frozen=True):
    """An application whose status is to be written; `application` has its stored status.

    `deadline_at`: when the newest revision is rolled back if it is not healthy; None if it is not to be rolled back.
    `applied_by`: the user who applied that revision.
    """

    application: ApplicationResource
    healthy_since: datetime | None = None
    deadline_at: datetime | None = None
    not_rolled_back: str = ""
    applied_by: UserRef | None = None
