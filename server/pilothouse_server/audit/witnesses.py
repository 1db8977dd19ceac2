"""Heads of the audit log cosigned by witnesses (C2SP tlog-witness, tlog-cosignature).

A witness signs a head only if it continues the one that it signed before. So a log that shows different records to
different readers, or takes records back, gets no signature. The witness's signature is added to the note of the head.
The newest head with as many signatures as the policy requires is the one that is published.

A witness that refuses the proof (422), or that has signed a head which this log does not have, proves a fork: somebody
received another log of this origin (EQUIVOCATION). Such responses are counted separately. An error line and an alarm
record report a fork once for each witness, until the witness signs again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from prometheus_client import Counter, Gauge

from pilothouse_server.audit import notes, proofs
from pilothouse_server.audit.alarms import raise_alarm
from pilothouse_server.audit.notes import NoteError, Verifier
from pilothouse_server.audit.policy import MOST_WITNESSES, Policy, Witness
from pilothouse_server.errors import PilothouseError
from pilothouse_server.outbound import destinations
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
    "Heads of the audit log that a witness did not sign: it is away, it refused, or it proves another log.",
    ("witness", "reason"),
)
_AWAY, _REFUSED, _EQUIVOCATION = "AWAY", "REFUSED", "EQUIVOCATION"

_SECONDS = 10.0
_PAUSE_SECONDS = 15.0
_MOST_ANSWER_BYTES = 64 * 1024
_OK, _CONFLICT, _NOT_CONSISTENT = 200, 409, 422
# The number of newest heads among which a head with enough signatures is searched for.
_MOST_LOOKED_AT = 1000


async def published(store: Store, policy: Policy) -> Seal | None:
    """Returns the newest head that enough witnesses have signed, so that it may be published; None without any."""
    async with store.system_read() as transaction:
        for seal in await audit_tree.newest_seals(
            transaction, most=1 if policy.wanted == 0 else _MOST_LOOKED_AT
        ):
            if policy.met_by(seal.note):
                return seal
    return None


@dataclass
class Witnessing:
    """Gets signatures for the newest head; `run` is the task of one server, and `seal_made` wakes it."""

    store: Store
    policy: Policy
    # The size of the head that each witness signed last, if this server knows it.
    _sizes: dict[str, int] = field(default_factory=dict)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    # Witnesses whose proof of a fork has already been reported.
    _forked: set[str] = field(default_factory=set)

    def seal_made(self, _seal: Seal) -> None:
        """Wakes the task for a new head."""
        self._wake.set()

    async def run(self) -> None:
        """Requests signatures until cancelled; retries witnesses that are unavailable."""
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
        """Requests a signature of each witness that has not signed the newest head yet, all concurrently.

        Raises Unavailable.
        """
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
        """Adds signatures to the note of a head; another server may add some at the same time."""
        for _ in range(MOST_WITNESSES):
            async with self.store.system_write("seal") as transaction:
                seal = await audit_tree.seal_at(transaction, size)
                if seal is None:
                    return
                fresh = "".join(line for line in lines.splitlines(keepends=True) if line not in seal.note)
                if not fresh or await audit_tree.put_note(transaction, size, seal.note, seal.note + fresh):
                    return

    async def _ask(self, session: ClientSession, witness: Witness, seal: Seal) -> str:
        """Returns the lines of a witness's signatures; '' if it does not sign."""
        from aiohttp import ClientError

        name, old = witness.key.name, self._sizes.get(witness.key.name, 0)
        try:
            status, answer = await self._post(session, witness, seal, old)
            if status == _CONFLICT and answer.strip().isdecimal() and int(answer) <= seal.size:
                old = self._sizes[name] = int(answer)
                status, answer = await self._post(session, witness, seal, old)
        except (ClientError, TimeoutError, ValueError, destinations.TooLong) as error:
            FAILURES.labels(name, _AWAY).inc()
            log.warning(
                "a witness of the audit log is away", witness=name, reason=_AWAY, error=type(error).__name__
            )
            return ""
        lines = _signatures(witness.key, seal, answer) if status == _OK else ""
        if lines:
            self._sizes[name] = seal.size
            self._forked.discard(name)
        elif await self._is_fork(status, answer, seal, old):
            await self._forks(name, seal, status)
        else:
            FAILURES.labels(name, _REFUSED).inc()
            log.warning(
                "a witness does not sign the head of the audit log",
                witness=name,
                reason=_REFUSED,
                status=status,
            )
        return lines

    async def _is_fork(self, status: int, answer: str, seal: Seal, old: int) -> bool:
        """Returns whether a response proves that the witness has signed another log of this origin."""
        if status == _NOT_CONSISTENT:
            return True
        if status != _CONFLICT or not answer.strip().isdecimal():
            return False
        signed = int(answer)
        if signed <= seal.size:
            # The witness has signed a head of the same size with another root.
            return signed == old == seal.size
        # Another server may have sealed in between: a head is stored in the database before a witness receives it.
        async with self.store.system_read() as transaction:
            newest = await audit_tree.newest_seal(transaction)
        return newest is None or newest.size < signed

    async def _forks(self, name: str, seal: Seal, status: int) -> None:
        """Reports that a witness proves a fork. Raises Unavailable."""
        FAILURES.labels(name, _EQUIVOCATION).inc()
        if name in self._forked:
            return
        origin = notes.parse(seal.note)[0].origin
        log.error(
            "a witness has signed another log of this origin: the audit log was rewritten, or is served twice",
            witness=name,
            reason=_EQUIVOCATION,
            status=status,
            origin=origin,
            size=seal.size,
        )
        await raise_alarm(
            self.store,
            f"witness {name} has signed another log of the origin {origin}",
            {"reason": _EQUIVOCATION, "witness": name, "origin": origin, "size": seal.size},
        )
        self._forked.add(name)

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
            content = await destinations.read(answer, _MOST_ANSWER_BYTES)
            return answer.status, content.decode("utf-8", "replace")


def _log_only(note: str) -> str:
    """Returns a note with the log's own signatures only; a witness needs no others."""
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
