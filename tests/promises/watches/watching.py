"""The watchers of a campaign.

Each follows one filter over cuts, kills and servers, and records its events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.rpc import error_details_pb2

from pilothouse.config.v1 import config_pb2 as config
from pilothouse.container.v1 import container_pb2 as container
from pilothouse.resource.v1 import resource_pb2 as resource
from pilothouse.watch.v1 import watch_pb2
from tests.promises.calling import Caller, Outcome, failed
from tests.promises.watches import told
from tests.promises.watches.environment import BRIEF, NAMESPACES, NARROW, SILENT_SECONDS, Environment
from tests.promises.watches.recording import (
    ADDED,
    CONFIG,
    DELETED,
    MODIFIED,
    Cut,
    Life,
    Seen,
    Wanted,
    Watch,
)
from tests.waiting import runs_out

_KINDS = {
    resource.CHANGE_TYPE_ADDED: ADDED,
    resource.CHANGE_TYPE_MODIFIED: MODIFIED,
    resource.CHANGE_TYPE_DELETED: DELETED,
}
# A slow reader reads this many messages, then waits for this many further mutations.
_READ_THEN_WAIT, _WAIT_FOR_MUTATIONS = (40, 160), 300
# Other watchers leave by themselves after a number of messages in this range, whose upper end is at least this
# share of the campaign's mutations. So there are tokens and first states of all kinds of moments.
_LEAVES_AFTER, _LEAVES_AFTER_SHARE = (40, 800), 0.1


class Kind(NamedTuple):
    """A kind of watcher: its filter, caller and speed, and where it resumes.

    `late` is the share of the mutations after which it begins. A watcher that leaves by itself resumes with its
    token. With `anew` it begins again without a token.
    """

    wanted: Wanted
    user: str = ""
    slow: bool = False
    always_elsewhere: bool = True
    late: float = 0.0
    anew: bool = False


_TENANTS = frozenset(NAMESPACES[:2])
WATCHERS: tuple[Kind, ...] = (
    Kind(Wanted()),
    Kind(Wanted(label=("tier", "front"), scope=True), late=0.4),
    Kind(Wanted(status="CONTAINER_STATUS_STOPPED")),
    Kind(Wanted(), slow=True),
    Kind(Wanted(CONFIG, scope=True), late=0.5),
    Kind(Wanted(), anew=True),
    Kind(Wanted(visible=_TENANTS, scope=True), user="tenant"),
    Kind(Wanted(namespace=NAMESPACES[0]), always_elsewhere=False, late=0.3),
    Kind(Wanted(namespace=NAMESPACES[1], label=("tier", "back"), scope=True)),
    Kind(Wanted(CONFIG, label=("tier", "front")), anew=True),
    Kind(Wanted(status="CONTAINER_STATUS_PAUSED"), always_elsewhere=False, anew=True),
    Kind(Wanted(namespace=NAMESPACES[2]), slow=True, late=0.2),
    Kind(Wanted(namespace=NAMESPACES[1]), anew=True),
    Kind(Wanted(label=("tier", "back"), status="CONTAINER_STATUS_STOPPED")),
    Kind(Wanted(CONFIG, namespace=NAMESPACES[0])),
    Kind(Wanted(visible=_TENANTS, label=("tier", "front")), user="tenant", anew=True),
    Kind(Wanted(), always_elsewhere=False, late=0.6),
    Kind(Wanted(status="CONTAINER_STATUS_PENDING"), late=0.1),
    Kind(Wanted(CONFIG), always_elsewhere=False),
    Kind(Wanted(namespace=NAMESPACES[0], status="CONTAINER_STATUS_PENDING")),
)


def request(wanted: Wanted, token: str = "") -> Any:
    """Returns the request of a watch with this filter."""
    fields: dict[str, Any] = {
        "namespace": wanted.namespace,
        "label_selector": "" if wanted.label is None else "=".join(wanted.label),
        "resume_token": token,
        "bookmark_period_seconds": 1,
    }
    if wanted.scope:
        noun = watch_pb2.NOUN_CONFIG if wanted.kind == CONFIG else watch_pb2.NOUN_CONTAINER
        own = watch_pb2.Scope(
            noun=noun, namespace=fields.pop("namespace"), label_selector=fields.pop("label_selector")
        )
        other = watch_pb2.Scope(noun=watch_pb2.NOUN_VOLUME, namespace=wanted.namespace)
        return watch_pb2.WatchRequest(scopes=[other, own], **fields)
    if wanted.kind == CONFIG:
        return config.WatchConfigsRequest(**fields)
    if wanted.status:
        fields["status"] = container.ContainerStatus.Value(wanted.status)
    return container.WatchContainersRequest(**fields)


def method(wanted: Wanted) -> str:
    """Returns the RPC that serves the filter."""
    if wanted.scope:
        return "Watch"
    return "WatchConfigs" if wanted.kind == CONFIG else "WatchContainers"


def seen(answer: Any) -> Seen | None:
    """Returns the change in a message, or None for a marker."""
    entity = told.entity(answer)
    if entity is None:
        return None
    change = _KINDS[answer.change_type]
    return Seen(answer.revision, change, entity.uid, told.version(entity.etag), told.digest(entity))


def followers(environment: Environment) -> list[Follower]:
    """Returns the watchers of a campaign.

    One more watches the namespace that is deleted at the end.
    """
    kinds = [*WATCHERS[: environment.size.watchers], Kind(Wanted(namespace=BRIEF))]
    made = [Follower(environment, number, kind) for number, kind in enumerate(kinds)]
    environment.recording.watches = [follower.watch for follower in made]
    return made


class Given(NamedTuple):
    """A token that a watcher received, with its revision and life."""

    revision: int
    token: str
    life: int


class Follower:
    """One watcher. `tokens` are some of its tokens, for probes at the end."""

    def __init__(self, environment: Environment, number: int, kind: Kind) -> None:
        self.kind = kind
        self.watch = Watch(f"watcher {number} ({_words(kind)})", kind.wanted)
        self.tokens: list[Given] = []
        self.position = 0
        self._environment = environment
        self._choose = random.Random(f"watcher {environment.size.seed} {number}")
        self._token = ""
        self._life = Life()
        self._left = 0

    async def run(self) -> None:
        """Follows until cancelled, or until its namespace is deleted."""
        counts = self._environment.recording.counts
        where = self._choose.randrange(len(self._environment.servers))
        progress = self._environment.progress
        await progress.reached(int(self.kind.late * progress.wanted))
        async with self._environment.callers(self.kind.user, NARROW if self.kind.slow else ()) as callers:
            while True:
                if not self._token:
                    self._life = Life()
                outcome = await self._follow(callers[where])
                why = f"{outcome.code} {outcome.reason}".rstrip()
                counts[f"a stream ended: {why}"] += 1
                if (
                    self.kind.wanted.namespace in self._environment.recording.gone
                    and outcome.code == "NOT_FOUND"
                ):
                    self.watch.ended = why
                    return
                self._take_end(outcome)
                if self.kind.always_elsewhere or outcome.code not in ("OK", "RESOURCE_EXHAUSTED"):
                    where = (where + 1) % len(callers)
                self._life.cuts.append(Cut(len(self._life.changes), self._life.until, where, why))

    def _take_end(self, outcome: Outcome) -> None:
        """Decides how to resume: with another token, without one, or as before."""
        info = outcome.detail(error_details_pb2.ErrorInfo)
        if outcome.code == "RESOURCE_EXHAUSTED" and info is not None and outcome.reason == "SLOW_CONSUMER":
            # This token has the same position, or a later one after events that concern other watches.
            self._token = info.metadata["resume_token"] or self._token
        elif outcome.code == "OUT_OF_RANGE" or (outcome.code == "OK" and self.kind.anew):
            self._token = ""
        elif outcome.code not in ("OK", "UNAVAILABLE", "CANCELLED", "SILENT"):
            self.watch.faults.append(f"the stream ended with {outcome.code} {outcome.message}")

    async def _follow(self, caller: Caller) -> Outcome:
        """Follows one stream until it ends, is silent for too long, or is abandoned."""
        least, most = _LEAVES_AFTER
        share = int(_LEAVES_AFTER_SHARE * self._environment.size.mutations)
        self._left = self._choose.randint(least, max(most, share))
        patience = asyncio.timeout(runs_out(SILENT_SECONDS))
        try:
            async with patience:
                body = request(self.kind.wanted, self._token)
                rule = self._environment.rule(method(self.kind.wanted))
                async with caller.watching(rule, body) as stream:
                    async for answer in stream:
                        self._take(answer)
                        self._left -= 1
                        if self._token and self._left < 0 and self.kind.wanted.namespace != BRIEF:
                            return Outcome("OK")
                        if self.kind.slow:
                            patience.reschedule(None)
                            await self._dawdle()
                        patience.reschedule(asyncio.get_running_loop().time() + SILENT_SECONDS)
        except TimeoutError:
            return Outcome("SILENT")
        except grpc.aio.AioRpcError as error:
            return failed(error)
        return Outcome("OK")

    async def _dawdle(self) -> None:
        """Makes a slow reader wait for further mutations from time to time."""
        progress = self._environment.progress
        if self._left % self._choose.randint(*_READ_THEN_WAIT) == 0:
            await progress.reached(progress.done + _WAIT_FOR_MUTATIONS)

    def _take(self, answer: Any) -> None:
        """Records a message."""
        change = seen(answer)
        in_step = bool(self._token)
        if change is None:
            if (answer.change_type == resource.CHANGE_TYPE_SYNCED) is in_step:
                self.watch.faults.append(
                    f"a marker {answer.change_type} at {answer.revision} comes at a wrong moment"
                )
            if not in_step:
                self._life.began = answer.revision
                self.watch.lives.append(self._life)
        elif not in_step and not answer.resume_token and change.change == ADDED and not change.revision:
            if change.uid in self._life.first:
                self.watch.faults.append(f"the first state holds {change.uid} twice")
            self._life.first[change.uid] = change.digest
            return
        elif not in_step or not answer.resume_token:
            self.watch.faults.append(f"{change} comes with the token {answer.resume_token[:8]!r}")
            return
        else:
            self._life.changes.append(change)
        if not answer.resume_token:
            self.watch.faults.append(f"an answer at {answer.revision} has no token")
        self._token = answer.resume_token
        self._life.until = self.position = max(self._life.until, answer.revision)
        if self._choose.random() < 0.002 or not in_step:
            self.tokens.append(Given(answer.revision, self._token, len(self.watch.lives) - 1))


def _words(kind: Kind) -> str:
    wanted = kind.wanted
    parts: Sequence[str] = (
        wanted.kind,
        wanted.namespace,
        "" if wanted.label is None else "=".join(wanted.label),
        wanted.status,
        "scope" if wanted.scope else "",
        kind.user,
        "slow" if kind.slow else "",
        "anew" if kind.anew else "",
    )
    return " ".join(filter(None, parts))
