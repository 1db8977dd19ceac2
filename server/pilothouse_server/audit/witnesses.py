"""Heads of the audit log cosigned by witnesses (C2SP tlog-witness, tlog-cosignature).

A witness signs a head only where it continues the one that it signed before, so a log that shows different people
different things, or takes something back, finds no witness for it. What a witness signs is added to the note of the
head. While fewer witnesses have signed a head than the policy wants, the head before it is the one that is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge

from pilothouse_server import outbound
from pilothouse_server.audit import notes, proofs
from pilothouse_server.audit.notes import NoteError, Verifier
from pilothouse_server.audit.policy import MOST_WITNESSES, Policy, Witness
from pilothouse_server.errors import PilothouseError
from pilothouse_server.store import audit_tree
from pilothouse_server.store.audit_tree import Seal
from pilothouse_server.store.unit_of_work import Store

if TYPE_CHECKING:
    from aiohttp import ClientSession

log = structlog.get_logger(__name__)

WITNESSED_SIZE = Gauge(
    "pilothouse_audit_witnessed_size",
    "Leaves of the newest head of the audit log that enough witnesses signed.",
)
FAILURES = Counter(
    "pilothouse_audit_witness_failures_total",
    "Heads of the audit log that a witness did not sign.",
    ("witness",),
)

_SECONDS = 10.0
_PAUSE_SECONDS = 15.0
_MOST_ANSWER_BYTES = 64 * 1024
_OK, _CONFLICT = 200, 409
# A head older than so many others is not looked for.
_MOST_LOOKED_AT = 1000


async def published(store: Store, policy: Policy) -> Seal | None:
    """The newest head that may be published: the newest that enough witnesses have signed."""
    async with store.system_read() as transaction:
        for seal in await audit_tree.newest_seals(
            transaction, most=1 if policy.wanted == 0 else _MOST_LOOKED_AT
        ):
            if policy.met_by(seal.note):
                return seal
    return None


@dataclass
class Witnessing:
    """Has the newest head signed; `run` is the task of one server, `seal_made` wakes it."""

    store: Store
    policy: Policy
    # Of each witness the size of the head that it signed last, as far as it is known here.
    _sizes: dict[str, int] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def seal_made(self, _seal: Seal) -> None:
        """Learns that a head was sealed."""
        self._wake.set()

    async def run(self) -> None:
        """Asks until cancelled; a witness that is away is asked again."""
        from aiohttp import ClientSession, ClientTimeout

        async with ClientSession(timeout=ClientTimeout(total=_SECONDS), trust_env=False) as session:
            while True:
                self._wake.clear()
                try:
                    await self.round(session)
                except PilothouseError as error:
                    log.warning("witnesses of the audit log are not asked", reason=error.reason)
                try:
                    async with asyncio.timeout(_PAUSE_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def round(self, session: ClientSession) -> None:
        """Asks each witness that has not signed the newest head yet, all at once. Raises Unavailable."""
        async with self.store.system_read() as transaction:
            seal = await audit_tree.newest_seal(transaction)
        if seal is None:
            return
        signed = {key.key_id for key in self.policy.signed_by(seal.note)}
        missing = [each for each in self.policy.witnesses if each.key.key_id not in signed]
        lines = await asyncio.gather(*(self._ask(session, each, seal) for each in missing))
        if any(lines):
            await self._add(seal.size, "".join(lines))
        if (known := await published(self.store, self.policy)) is not None:
            WITNESSED_SIZE.set(known.size)

    async def _add(self, size: int, lines: str) -> None:
        """Adds signatures to the note of a head, to which another server may add at the same time."""
        for _ in range(MOST_WITNESSES):
            async with self.store.system_write("seal") as transaction:
                seal = await audit_tree.seal_at(transaction, size)
                if seal is None:
                    return
                fresh = "".join(line for line in lines.splitlines(keepends=True) if line not in seal.note)
                if not fresh or await audit_tree.put_note(transaction, size, seal.note, seal.note + fresh):
                    return

    async def _ask(self, session: ClientSession, witness: Witness, seal: Seal) -> str:
        """The lines of a witness's signatures; '' where it does not sign."""
        from aiohttp import ClientError

        name = witness.key.name
        try:
            status, answer = await self._post(session, witness, seal, self._sizes.get(name, 0))
            if status == _CONFLICT and answer.strip().isdecimal() and int(answer) <= seal.size:
                self._sizes[name] = int(answer)
                status, answer = await self._post(session, witness, seal, int(answer))
        except (ClientError, TimeoutError, ValueError, outbound.TooLong) as error:
            FAILURES.labels(name).inc()
            log.warning("a witness of the audit log is away", witness=name, error=type(error).__name__)
            return ""
        lines = _signatures(witness.key, seal, answer) if status == _OK else ""
        if lines:
            self._sizes[name] = seal.size
        else:
            FAILURES.labels(name).inc()
            log.warning("a witness does not sign the head of the audit log", witness=name, status=status)
        return lines

    async def _post(self, session: ClientSession, witness: Witness, seal: Seal, old: int) -> tuple[int, str]:
        hashes: Sequence[bytes] = ()
        if 0 < old <= seal.size:
            async with self.store.system_read() as transaction:
                state = await audit_tree.read(transaction)
                hashes = await proofs.consistency(transaction, state, old, seal.size)
        body = "".join(
            (f"old {old}\n", *(f"{notes.base64_text(each)}\n" for each in hashes), "\n", _log_only(seal.note))
        )
        async with session.post(
            f"{witness.url}/add-checkpoint", data=body.encode(), allow_redirects=False
        ) as answer:
            content = await outbound.read(answer, _MOST_ANSWER_BYTES)
            return answer.status, content.decode("utf-8", "replace")


def _log_only(note: str) -> str:
    """A note as the log signed it: of others' signatures a witness needs none."""
    text, _, lines = note.rpartition("\n\n")
    return f"{text}\n\n" + "".join(
        line
        for line in lines.splitlines(keepends=True)
        if len(notes.signature_line(line.rstrip("\n"))[1]) == 4 + 64
    )


def _signatures(key: Verifier, seal: Seal, answer: str) -> str:
    checkpoint, _ = notes.parse(seal.note)
    found = []
    for line in answer.splitlines():
        try:
            name, value = notes.signature_line(line)
        except NoteError:
            continue
        if name == key.name and value[:4] == key.key_id and key.verifies(checkpoint.text, value[4:]):
            found.append(line + "\n")
    return "".join(found[:1])
