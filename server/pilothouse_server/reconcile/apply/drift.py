"""Drift: changes by others of our objects on the cluster, found and handled by the policy of the resource.

Drift is found in three ways. If another manager set one of our fields to another value, it owns the field, and our
apply conflicts: the cluster names manager and field. Fields that others removed have no owner: an apply would silently
set them again, so if nothing new is requested, a dry run is compared with the present object. Additions by others
conflict with nothing: `additions` finds them.

    REPAIR  applies, by force if necessary; additions become ours first, so that the same apply removes them
    REPORT  applies the rest, and names the others' fields
    ADOPT   as REPORT; values that the model can express become the desired ones

A field that is left to others is left out of the apply. Its owner stays the same: the manager that set it. Adopted
fields belong to both managers, and the caller may change them. The platform's own keys are never left to others,
because the platform finds its objects by them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec

from pilothouse_server.containers.drift_rules import DEFAULT_RULES, DriftRules
from pilothouse_server.containers.model import DriftPolicy
from pilothouse_server.containers.observation import DRIFTED
from pilothouse_server.guard.model import Admitted
from pilothouse_server.kubernetes import field_paths, fingerprints, managed_fields
from pilothouse_server.kubernetes.client import FIELD_MANAGER
from pilothouse_server.kubernetes.conditions import MESSAGE_LIMIT
from pilothouse_server.kubernetes.errors import Conflict, FieldConflict, NotFound
from pilothouse_server.kubernetes.objects import Manifest, Resource, T
from pilothouse_server.kubernetes.ownership import DOMAIN
from pilothouse_server.reconcile.apply import additions, managed_fields_diff
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import Condition, NamespaceRef

REPAIRED = "Repaired"
ADOPTED = "Adopted"
# Fields that can only be set when a StatefulSet is created, and the remedy for the caller.
FIXED_PATHS: Final = (
    *(".spec.serviceName", ".spec.podManagementPolicy"),
    *(".spec.volumeClaimTemplates", ".spec.selector"),
)
REMEDY: Final = (
    "an update with `replace` and without fields deletes the StatefulSet, without its pods and claims, and creates it "
    "again"
)
NOTHING: Final[Mapping[str, str]] = {}
_PLATFORMS = re.compile(rf"\.(labels|annotations)\.{re.escape(DOMAIN)}/")
# The API returns all conflicts in one response, but others may write again.
ROUNDS = 3


class Difference(msgspec.Struct, frozen=True):
    """One field that differs from our apply, and its manager; no manager if the cluster records none."""

    kind: str
    name: str
    field: str
    manager: str

    def __str__(self) -> str:
        by = f" by {self.manager!r}" if self.manager else ""
        return f"{self.kind} {self.name} {self.field}{by}"


class DriftObserved(Protocol):
    """The observed state of a resource."""

    @property
    def conditions(self) -> tuple[Condition, ...]: ...


class DriftSubject(Protocol):
    """A resource whose objects may drift: a container, a Service or a carried object."""

    @property
    def drift_policy(self) -> DriftPolicy: ...

    @property
    def namespace_ref(self) -> NamespaceRef: ...

    @property
    def observed(self) -> DriftObserved: ...


class Drift:
    """Drift of all objects of a resource. `admitted`: the content that they may have.

    `settled`: nothing new is desired, so others made every change that an apply would revert. An object that is older
    than our last apply (`noted`, by kind and name) is an exception: the cluster was restored to our earlier state,
    which nobody chose.
    """

    def __init__(
        self,
        subject: DriftSubject,
        admitted: Admitted,
        *,
        policy: DriftPolicy | None = None,
        settled: bool,
        noted: Mapping[str, str] = NOTHING,
        rules: DriftRules = DEFAULT_RULES,
    ) -> None:
        self.subject = subject
        self.policy = policy or subject.drift_policy
        self.admitted = admitted
        self.settled = settled
        self.rules = rules
        self._noted = dict(noted)
        self._older: set[str] = set()
        self.kept: list[Difference] = []
        self.repaired: list[Difference] = []
        self.adopted: list[str] = []
        # Objects that were applied before and are missing, by kind and name.
        self.recreated: list[tuple[str, str]] = []

    async def apply(
        self, client: LeasedClient, resource: Resource[T], manifest: Manifest, *, present: bool
    ) -> T:
        """Applies a manifest, and handles others' fields by the policy. Raises ClusterError, LeaseLost."""
        object_ = manifest["kind"], manifest["metadata"]["name"]
        if not present and fingerprints.key(*object_) in self._noted and object_ not in self.recreated:
            self.recreated.append(object_)
        if present and additions.concern(manifest):
            manifest = await self._meet_additions(client, resource, manifest)
        if self.policy != "repair":
            return await self._apply_the_rest(client, resource, manifest, present=present)
        try:
            return await client.apply(resource, manifest, self.admitted)
        except Conflict as conflict:
            if not conflict.fields:
                raise
            self.repaired += _differences(manifest, conflict.fields)
            return await client.apply(resource, manifest, self.admitted, force=True)

    async def _meet_additions(
        self, client: LeasedClient, resource: Resource[Any], manifest: Manifest
    ) -> Manifest:
        """Reports additions by others, or makes them ours, so that the next apply removes them in one rollout.

        Returns the manifest to apply.
        """
        metadata = manifest["metadata"]
        live = await client.read(resource, metadata.get("namespace"), metadata["name"])
        manifest = additions.with_restart_of(live, manifest)
        found = [
            Difference(manifest["kind"], metadata["name"], path, manager)
            for path, manager in await additions.find(client, resource, manifest, live, self.rules.permitted)
        ]
        if self.policy != "repair":
            self.kept += found
        paths = [difference.field for difference in found] if self.policy == "repair" else []
        if self.policy == "repair" or not self.settled:
            paths += additions.left_by_rolling_updates(manifest, live)
        if paths:
            record: Manifest = {
                # The patch conflicts if others write in between: then everything is compared again.
                "resourceVersion": live["metadata"]["resourceVersion"],
                "managedFields": managed_fields.taken_over(live, paths, FIELD_MANAGER, manifest),
            }
            home = self.subject.namespace_ref
            await client.merge_patch(resource, home, metadata["name"], {"metadata": record})
            self.repaired += found if self.policy == "repair" else []
        return manifest

    def condition(self) -> Condition:
        """Returns the condition `Drifted`."""
        if self.kept:
            kept = f"changed by others and kept: {_described(self.kept)}"
            if any(each.kind == "StatefulSet" and each.field.startswith(FIXED_PATHS) for each in self.kept):
                kept = f"{kept}; immutable fields are among them: {REMEDY}"
            return Condition(DRIFTED, "True", "FieldManagerConflict", kept[:MESSAGE_LIMIT])
        if self.repaired:
            taken_back = f"taken back: {_described(self.repaired)}"[:MESSAGE_LIMIT]
            return Condition(DRIFTED, "False", REPAIRED, taken_back)
        if self.adopted:
            return Condition(DRIFTED, "False", ADOPTED, self.adopted_description)
        before = next((c for c in self.subject.observed.conditions if c.type == DRIFTED), None)
        # The last drift that was handled stays in the condition until there is newer drift.
        if before is not None and before.reason in (REPAIRED, ADOPTED):
            return before
        return Condition(DRIFTED, "False", "InSync")

    @property
    def adopted_description(self) -> str:
        return f"adopted: {'; '.join(self.adopted)}"[:MESSAGE_LIMIT]

    async def _apply_the_rest(
        self, client: LeasedClient, resource: Resource[T], manifest: Manifest, *, present: bool
    ) -> T:
        ours, after, force = await self._without_contested(client, resource, manifest)
        if self.settled and present:
            metadata = manifest["metadata"]
            before = await client.read(resource, metadata.get("namespace"), metadata["name"])
            changed = [path for path in field_paths.differing(ours, before, after) if not is_platforms(path)]
            older = self.is_older(manifest["kind"], metadata["name"], fingerprints.version_of(before))
            # Only we own this field, so its other value comes from our earlier apply. The object's version may be
            # newer, because the cluster writes the status of an object that it restored.
            if older or any(managed_fields_diff.is_ours(path, ours, before) for path in changed):
                changed = []
            self.kept += [
                Difference(
                    manifest["kind"],
                    metadata["name"],
                    path,
                    managed_fields.holder(before, path, apart_from=FIELD_MANAGER),
                )
                for path in changed
            ]
            ours = field_paths.without(ours, changed)
        return await client.apply(resource, ours, self.admitted, force=force, whole=manifest)

    async def is_untouched(self, client: LeasedClient, resource: Resource[Any], manifest: Manifest) -> bool:
        """Returns whether an object matches its manifest and has no possible additions by others."""
        metadata = manifest["metadata"]
        try:
            live = await client.read(resource, metadata.get("namespace"), metadata["name"])
        except NotFound:
            return False
        manifest = additions.with_restart_of(live, manifest)
        return managed_fields_diff.matches_manifest(manifest, live) and not additions.candidates(
            manifest, live, self.rules.permitted
        )

    def note_deleted(self, kind: str, name: str) -> None:
        """Records that we deleted an object ourselves, to create it again."""
        self._noted.pop(fingerprints.key(kind, name), None)

    def note_older(self, kind: str, name: str) -> None:
        """Records that an object is in an older state than before, even if its version is newer."""
        self._older.add(fingerprints.key(kind, name))

    def is_older(self, kind: str, name: str, version: str) -> bool:
        """Returns whether a version of an object is older than the one that we applied last."""
        key = fingerprints.key(kind, name)
        return key in self._older or fingerprints.older(version, self._noted.get(key, ""))

    async def _without_contested(
        self, client: LeasedClient, resource: Resource[Any], manifest: Manifest
    ) -> tuple[Manifest, Manifest, bool]:
        """Returns the manifest without others' fields, the object that results, and whether to force the apply."""
        ours, force = manifest, False
        for _ in range(ROUNDS):
            try:
                return ours, await client.dry_run(resource, ours, force=force), force
            except Conflict as conflict:
                if not conflict.fields:
                    raise
                ours_too = await self._owned(client, resource, manifest, conflict)
                theirs = [field for field in conflict.fields if field.field not in ours_too]
                force = not theirs
                self.kept += _differences(manifest, theirs)
                ours = field_paths.without(ours, [field.field for field in theirs])
        return ours, await client.dry_run(resource, ours, force=force), force

    async def _owned(
        self, client: LeasedClient, resource: Resource[Any], manifest: Manifest, conflict: Conflict
    ) -> set[str]:
        """Returns the contested fields that are ours: all of the platform's own keys, and fields that we share.

        A manager that changes a field takes it from us. A field that we still own has the value of our apply, so the
        difference is no drift but the caller's new value.
        """
        paths = {field.field for field in conflict.fields}
        owned = {path for path in paths if is_platforms(path)}
        if not self.settled and owned != paths:
            metadata = manifest["metadata"]
            live = await client.read(resource, metadata.get("namespace"), metadata["name"])
            owned |= {path for path in paths if field_paths.is_owned(live, path, FIELD_MANAGER)}
        return owned


def is_platforms(path: str) -> bool:
    """Returns whether a field is one of the platform's own keys, which are never left to others."""
    return _PLATFORMS.search(path) is not None


def manager_of_replicas(live: Manifest) -> str:
    """Returns the manager that set the number of replicas; empty if the cluster does not record it."""
    return managed_fields.holder(live, ".spec.replicas", apart_from=FIELD_MANAGER)


def _differences(manifest: Manifest, fields: Iterable[FieldConflict]) -> list[Difference]:
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    return [
        Difference(
            kind,
            name,
            field.field,
            "" if field.manager == managed_fields.BEFORE_FIRST_APPLY else field.manager,
        )
        for field in fields
    ]


def _described(differences: list[Difference]) -> str:
    return "; ".join(str(difference) for difference in differences)
