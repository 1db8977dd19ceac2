"""The checks before retention drops records: the records match the tree, and the log signs the drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pilothouse_server.audit import drops
from pilothouse_server.audit.log_identity import LogIdentity, origin_of
from pilothouse_server.audit.repository import Stretch
from pilothouse_server.audit.verification import Verification
from pilothouse_server.store import audit_tree
from pilothouse_server.store.audit_tree import TreeState
from pilothouse_server.store.unit_of_work import Store


@dataclass(frozen=True, slots=True)
class Dropping:
    """The tree over the log and its keys, for retention. All methods raise Unavailable."""

    store: Store
    identity: LogIdentity

    async def intact(self, stretches: Sequence[Stretch]) -> bool:
        """Returns whether these records exist and match the tree."""
        walk = Verification(self.store, await self._state(), self.identity)
        for first, last in stretches:
            await walk.records_between(first, last)
        return not walk.report.findings

    async def sign(self, dropped: Sequence[Stretch]) -> str:
        """Returns the signature line of every key, for the text that lists the dropped ranges."""
        origin = origin_of(await self._state())
        return "".join(signer.line(drops.text(origin, dropped)) for signer in self.identity.signers(origin))

    async def signed(self, metadata: Mapping[str, Any]) -> tuple[bool, bool]:
        """Returns whether a key of the log has signed a record's dropped ranges, and whether all present keys have."""
        state = await self._state()
        by = drops.signed_by(metadata, self.identity.verifiers(state))
        now = [signer.verifier for signer in self.identity.signers(origin_of(state))]
        return bool(by), all(key in by for key in now)

    async def _state(self) -> TreeState:
        async with self.store.system_read() as transaction:
            return await audit_tree.read(transaction)
