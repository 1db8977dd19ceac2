"""Fields of ours that others changed on the cluster: found, and met as the container's policy says.

There are two ways to find them. Another manager who set a field of ours to another value owns it, and an apply of ours
conflicts: the cluster names manager and field. What others removed nobody owns: an apply would set it again without a
word, so where nothing new is asked for, a dry run is compared with what is there.

    REPAIR  applies, by force where it must
    REPORT  applies the rest, and says whose the others are
    ADOPT   as REPORT; what the model can express becomes what is wanted

A field that is left to others is left out of the apply. It is not given up by that: who set it owns it already. What
was adopted is ours as well as theirs, and the caller's to change. Keys of the platform's own are left to nobody: by
them it finds its objects again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from pilothouse_server.containers.model import Container, DriftPolicy
from pilothouse_server.containers.observation import DRIFTED
from pilothouse_server.kubernetes import field_paths, marks
from pilothouse_server.kubernetes.client import FIELD_MANAGER
from pilothouse_server.kubernetes.errors import Conflict, FieldConflict
from pilothouse_server.kubernetes.objects import Manifest, Resource, T
from pilothouse_server.kubernetes.ownership import DOMAIN
from pilothouse_server.reconcile.apply import agreement
from pilothouse_server.reconcile.queue.leased_client import LeasedClient
from pilothouse_server.values.resources import Condition

REPAIRED = "Repaired"
ADOPTED = "Adopted"
NOTHING: Final[Mapping[str, str]] = {}
_PLATFORMS = re.compile(rf"\.(labels|annotations)\.{re.escape(DOMAIN)}/")
# The API returns all conflicts at once, but others go on writing.
ROUNDS = 3


class Difference(msgspec.Struct, frozen=True):
    """One field of ours that is not as we applied it, and who changed it; no manager where it was removed."""

    kind: str
    name: str
    field: str
    manager: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.field} by {self.manager}"


class Drift:
    """What was found over all objects of a container.

    `settled`: nothing new is asked for, so that whatever an apply would change was changed by others. Unless an object
    is older than the one that we applied last (`noted`, by kind and name): then the cluster was put back to a state of
    ours that is wanted no more, and nobody decided upon it.
    """

    def __init__(
        self,
        container: Container,
        *,
        policy: DriftPolicy | None = None,
        settled: bool,
        noted: Mapping[str, str] = NOTHING,
    ) -> None:
        self.container = container
        self.policy = policy or container.drift_policy
        self.settled = settled
        self._noted = noted
        self._older: set[str] = set()
        self.kept: list[Difference] = []
        self.repaired: list[Difference] = []
        self.adopted: list[str] = []

    async def apply(
        self, client: LeasedClient, resource: Resource[T], manifest: Manifest, *, present: bool
    ) -> T:
        """Applies a manifest, and meets others' fields as the policy says. Raises ClusterError, LeaseLost."""
        if self.policy != "repair":
            return await self._apply_the_rest(client, resource, manifest, present=present)
        try:
            return await client.apply(resource, manifest)
        except Conflict as conflict:
            if not conflict.fields:
                raise
            self.repaired += _differences(manifest, conflict.fields)
            return await client.apply(resource, manifest, force=True)

    def condition(self) -> Condition:
        """Returns the condition `Drifted`."""
        if self.kept:
            return Condition(
                DRIFTED,
                "True",
                "FieldManagerConflict",
                f"changed by others and kept: {_described(self.kept)}",
            )
        if self.repaired:
            return Condition(DRIFTED, "False", REPAIRED, f"taken back: {_described(self.repaired)}")
        if self.adopted:
            return Condition(DRIFTED, "False", ADOPTED, self.adopted_description)
        before = next((c for c in self.container.observed.conditions if c.type == DRIFTED), None)
        # The last that was met stays shown until there is something newer.
        if before is not None and before.reason in (REPAIRED, ADOPTED):
            return before
        return Condition(DRIFTED, "False", "InSync")

    @property
    def adopted_description(self) -> str:
        return f"taken over as wanted: {'; '.join(self.adopted)}"

    async def _apply_the_rest(
        self, client: LeasedClient, resource: Resource[T], manifest: Manifest, *, present: bool
    ) -> T:
        ours, after, force = await self._without_contested(client, resource, manifest)
        if self.settled and present:
            metadata = manifest["metadata"]
            before = await client.read(resource, metadata.get("namespace"), metadata["name"])
            changed = [
                path for path in field_paths.differing(ours, before, after) if not _PLATFORMS.search(path)
            ]
            older = self.is_older(manifest["kind"], metadata["name"], marks.version_of(before))
            # What is ours alone, with another value, nobody set but we, in an apply that is wanted no more. Its version
            # may be newer by now: of an object that went back, the cluster writes the status.
            if older or any(agreement.is_ours(path, ours, before) for path in changed):
                changed = []
            manager = last_foreign_manager(before)
            self.kept += [Difference(manifest["kind"], metadata["name"], path, manager) for path in changed]
            ours = field_paths.without(ours, changed)
        return await client.apply(resource, ours, force=force)

    def note_older(self, kind: str, name: str) -> None:
        """Notes that an object is known to be older than one that was there before, whatever its version."""
        self._older.add(marks.key(kind, name))

    def is_older(self, kind: str, name: str, version: str) -> bool:
        """Returns whether a version of an object is older than the one that we applied last."""
        key = marks.key(kind, name)
        return key in self._older or marks.older(version, self._noted.get(key, ""))

    async def _without_contested(
        self, client: LeasedClient, resource: Resource[Any], manifest: Manifest
    ) -> tuple[Manifest, Manifest, bool]:
        """Returns the manifest without others' fields, what the object would be by it, and whether to force it."""
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
        """Returns the contested fields that are ours: of the platform's own keys all, and what we share with others.

        Whoever changes a field takes it from us. One that we still own is as we applied it, so that it is not drift but
        the caller who wants it otherwise now.
        """
        paths = {field.field for field in conflict.fields}
        owned = {path for path in paths if _PLATFORMS.search(path)}
        if not self.settled and owned != paths:
            metadata = manifest["metadata"]
            live = await client.read(resource, metadata.get("namespace"), metadata["name"])
            owned |= {path for path in paths if field_paths.is_owned(live, path, FIELD_MANAGER)}
        return owned


def last_foreign_manager(live: Manifest) -> str:
    """Returns who wrote an object last, apart from us and from what controllers report."""
    others = [
        entry
        for entry in live["metadata"].get("managedFields") or ()
        if entry.get("manager") != FIELD_MANAGER and entry.get("subresource") != "status"
    ]
    newest = max(others, key=lambda entry: str(entry.get("time", "")), default=None)
    return repr(newest["manager"]) if newest else "somebody unknown"


def manager_of_replicas(live: Manifest) -> str:
    """Returns who set the number of replicas."""
    for entry in live["metadata"].get("managedFields") or ():
        fields = entry.get("fieldsV1", {}).get("f:spec", {})
        if "f:replicas" in fields:
            return repr(entry["manager"])
    return "somebody unknown"


def _differences(manifest: Manifest, fields: Iterable[FieldConflict]) -> list[Difference]:
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    return [Difference(kind, name, field.field, repr(field.manager)) for field in fields]


def _described(differences: list[Difference]) -> str:
    return "; ".join(str(difference) for difference in differences)
