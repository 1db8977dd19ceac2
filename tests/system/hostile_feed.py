"""A watch of several nouns that breaks every promise about order, between the server and a tab.

It sends initial states with deleted rows, duplicate rows and a second SYNCED; it repeats changes and sends them in
the wrong order; it reuses a name under another uid before the former resource is deleted; and it breaks off or falls
silent at any point. If `honest` is set, it sends its state as the server would, and nothing else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from pilothouse.application.v1 import application_pb2
from pilothouse.config.v1 import config_pb2
from pilothouse.container.v1 import container_pb2
from pilothouse.identity.v1 import identity_pb2
from pilothouse.namespace.v1 import namespace_pb2
from pilothouse.resource.v1 import resource_pb2
from pilothouse.watch.v1 import watch_pb2 as pb
from tests.gateway.browser import framed

ADDED, MODIFIED, DELETED = (
    resource_pb2.CHANGE_TYPE_ADDED,
    resource_pb2.CHANGE_TYPE_MODIFIED,
    resource_pb2.CHANGE_TYPE_DELETED,
)
SYNCED, BOOKMARK = resource_pb2.CHANGE_TYPE_SYNCED, resource_pb2.CHANGE_TYPE_BOOKMARK
# Few enough that each name returns under many uids; enough users that the page shows the first before the rest
# arrive.
_FEW, _MANY = 6, 130
_BREAKS_OFF = 0.04
_PREFIX_BYTES = 5
_UNKNOWN, _OUT_OF_RANGE, _UNAVAILABLE = 2, 11, 14


def made(noun: int, name: str, uid: str) -> pb.Resource:
    """Returns a resource that shows its uid, six digits, in one of its columns."""
    match noun:
        case pb.NOUN_NAMESPACE:
            return pb.Resource(namespace=namespace_pb2.Namespace(name=name, uid=uid, cluster_name=uid))
        case pb.NOUN_APPLICATION:
            return pb.Resource(
                application=application_pb2.Application(
                    namespace="demo", name=name, uid=uid, revision=int(uid)
                )
            )
        case pb.NOUN_CONFIG:
            kind = config_pb2.ConfigMap(namespace="demo", name=name, uid=uid, data={uid: "value"})
            return pb.Resource(config=config_pb2.Config(config_map=kind))
        case pb.NOUN_USER:
            return pb.Resource(user=identity_pb2.User(username=name, uid=uid, email=uid))
        case pb.NOUN_CLUSTER:
            return pb.Resource(cluster=namespace_pb2.Cluster(name=name, uid=uid, version=uid))
        case pb.NOUN_GRANT:
            # A grant has no uid: the three fields together are its key.
            return pb.Resource(
                grant=identity_pb2.RoleGrant(username=name, role="viewer", namespace="demo", assigned_by=uid)
            )
    return pb.Resource(container=container_pb2.Container(namespace="demo", name=name, uid=uid, image=uid))


class HostileFeed:
    """The feed of one tab; the same `seed` gives the same feed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        # The existing resources by noun and uid, and the deleted ones.
        self.there: dict[int, dict[str, pb.Resource]] = {}
        self._gone: dict[int, dict[str, pb.Resource]] = {}
        self.honest = False
        self.streams = 0
        self.hang_and_leak: set[str] = set()
        self._made = 0
        self._closing: list[asyncio.Future[None]] = []
        self._socket: Any = None

    async def install(self, page: Any) -> None:
        """Takes effect at the next load of the page, and makes the page run its watch itself."""
        await page.add_init_script("delete window.SharedWorker")
        await page.route_web_socket("**/ws/pilothouse.watch.v1.WatchService/Watch", self._opened)

    async def aclose(self) -> None:
        """Stops sending."""
        self._socket = None
        await asyncio.gather(*self._closing)

    def cut(self) -> None:
        """Ends the current stream so that the page must read the state again."""
        self._end(_UNKNOWN, "the changes are not there")

    def _opened(self, socket: Any) -> None:
        received = b""

        def take(data: bytes) -> None:
            nonlocal received
            received += data
            while len(received) >= _PREFIX_BYTES:
                end = _PREFIX_BYTES + int.from_bytes(received[1:_PREFIX_BYTES])
                flags, contents = received[0], received[_PREFIX_BYTES:end]
                received = received[end:]
                if not flags:
                    self._begin(socket, pb.WatchRequest.FromString(contents))

        def closed(*_: object) -> None:
            if socket is self._socket:
                self._socket = None

        socket.on_message(take)
        socket.on_close(closed)

    def _begin(self, socket: Any, request: pb.WatchRequest) -> None:
        self.streams += 1
        self._socket = socket
        self._serve(socket, request)

    def _serve(self, socket: Any, request: pb.WatchRequest) -> None:
        whole = [not request.resume_token or scope.initial_state for scope in request.scopes]
        if self.honest:
            if request.resume_token:
                self.cut()
            self._state(socket, request.scopes, [True] * len(whole))
            self._send(socket, pb.WatchResponse(change_type=SYNCED, resume_token="token"))
        elif self._state(socket, request.scopes, whole):
            for _ in range(self._random.choice((1, 1, 2))):
                self._send(socket, pb.WatchResponse(change_type=SYNCED, resume_token="token"))
            self._later(socket, request.scopes)

    def _later(self, socket: Any, scopes: Sequence[pb.Scope]) -> None:
        pause = self._random.choice((0, 0.005, 0.03, 0.06))
        asyncio.get_running_loop().call_later(pause, self._go_on, socket, scopes)

    def _go_on(self, socket: Any, scopes: Sequence[pb.Scope]) -> None:
        if socket is not self._socket or self.honest:
            return
        if self._random.random() < _BREAKS_OFF:
            self._break_off(scopes)
            return
        for response in self._happens(scopes):
            self._send(socket, response)
        self._later(socket, scopes)

    def _state(self, socket: Any, scopes: Sequence[pb.Scope], whole: Sequence[bool]) -> bool:
        """Sends the state of the scopes that need one; returns False if the stream broke off."""
        for at, (scope, wanted) in enumerate(zip(scopes, whole, strict=True)):
            if not wanted:
                continue
            there = list(self._of(scope.noun).values())
            if not self.honest:
                # Add duplicate rows and deleted rows.
                there += self._some(there) + self._some(list(self._gone.get(scope.noun, {}).values()))
                self._random.shuffle(there)
            for each in there:
                self._send(socket, pb.WatchResponse(change_type=ADDED, resource=each, scope=at))
                if not self.honest and self._random.random() < 0.01:
                    self._break_off(scopes)
                    return False
        return True

    def _happens(self, scopes: Sequence[pb.Scope]) -> list[pb.WatchResponse]:
        """Returns one random event as responses in any order."""
        at = self._random.randrange(len(scopes))
        noun = scopes[at].noun
        there, gone = self._of(noun), self._gone.setdefault(noun, {})
        response = self._random.choice((ADDED, MODIFIED))
        uid = self._random.choice([*there, *gone])
        changes: list[tuple[Any, pb.Resource]]
        match self._random.randrange(5):
            case 0:
                # The resource is deleted and created again under its name; sometimes the new one comes first.
                uid = self._random.choice(list(there))
                former = there.pop(uid)
                gone[uid] = former
                fresh = self._fresh(noun, self._name(former))
                changes = [(DELETED, former), (ADDED, fresh)]
                self._random.shuffle(changes)
            case 1:
                # A repeated old change, of an existing or a deleted resource.
                changes = [(response, there.get(uid) or gone[uid])]
            case 2:
                changes = [(DELETED, each) for each in self._some(list(gone.values()))] * 2
            case 3:
                changes = [(response, each) for each in self._some(list(there.values()))] * 2
            case _:
                return [pb.WatchResponse(change_type=self._random.choice((SYNCED, BOOKMARK)))]
        token = self._random.choice(("", "token"))
        return [
            pb.WatchResponse(change_type=kind, resource=each, scope=at, resume_token=token)
            for kind, each in changes
        ]

    def _break_off(self, scopes: Sequence[pb.Scope]) -> None:
        how = self._random.choice(("silence", "closed", "unavailable", "unknown", "scope"))
        self.hang_and_leak.add(how)
        match how:
            case "closed":
                self._closing.append(asyncio.ensure_future(self._socket.close()))
            case "unavailable":
                self._end(_UNAVAILABLE, "the server is shutting down")
            case "unknown":
                self._end(_UNKNOWN, "the changes are not there")
            case "scope":
                self._end(_OUT_OF_RANGE, f"scopes[{self._random.randrange(len(scopes))}]: read it again")

    def _end(self, code: int, message: str) -> None:
        if self._socket is not None:
            self._socket.send(framed(f"grpc-status:{code}\r\ngrpc-message:{message}\r\n".encode(), 0x80))
            self._socket = None

    def _send(self, socket: Any, response: pb.WatchResponse) -> None:
        if socket is self._socket:
            socket.send(framed(response.SerializeToString()))

    def _of(self, noun: int) -> dict[str, pb.Resource]:
        if noun not in self.there:
            self.there[noun] = {}
            for number in range(_MANY if noun == pb.NOUN_USER else _FEW):
                self._fresh(noun, f"name-{number}")
        return self.there[noun]

    def _fresh(self, noun: int, name: str) -> pb.Resource:
        self._made += 1
        uid = str(100_000 + self._made)
        self.there[noun][uid] = made(noun, name, uid)
        return self.there[noun][uid]

    def _name(self, resource: pb.Resource) -> str:
        found = getattr(resource, resource.WhichOneof("kind") or "")
        if isinstance(found, config_pb2.Config):
            found = found.config_map
        return str(getattr(found, "name", "") or getattr(found, "username", ""))

    def _some(self, items: list[pb.Resource]) -> list[pb.Resource]:
        return self._random.sample(items, min(len(items), self._random.randrange(4)))
