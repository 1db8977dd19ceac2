"""Replays a recording of a real API server against the simulated cluster.

Requests are sent in order, at their recorded times on the simulated clock, so that a cluster with `speed=20` replays
twenty seconds in one. Watches run concurrently. A read whose response differs from the recording is repeated until it
agrees or a deadline passes, because controllers may still be working; a write is sent once.

`replay` returns the differences; `check` compares them with `known_differences`. Recorded values that vary are
translated into those of this run (see `replay_compare`). A resourceVersion that no earlier response contained is
replaced by the current version.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from pilothouse_server.runtime.tasks import cancel_and_wait
from pilothouse_simulator import SimulatedCluster
from tests.simulator.known_differences import KNOWN
from tests.simulator.recordings import load, namespaces_of
from tests.simulator.replay_compare import Comparer, Difference, Substitutions
from tests.simulator.replay_streams import by_object, ends, stand_in_for, text_differences
from tests.waiting import poll_until, within

JsonObject = dict[str, Any]
Body = Callable[["Replay"], Any]
Action = Callable[["Replay"], Awaitable[None]]

_WORKLOADS = ("Deployment", "Scale", "StatefulSet", "DaemonSet", "Job", "CronJob")
_READ_DEADLINE_SECONDS = 10.0
_STREAM_DEADLINE_SECONDS = 10.0
_LITERAL_VERSIONS = re.compile(r"^(\d{1,2}|9{6,}|[^\d].*)$")
# The fields in the response to a write that depend on the progress of controllers.
_CONTROLLERS_WORK = re.compile(
    r"body\.(items\[\d+\]\.)?(status\..*|metadata\.annotations(\.deployment\.kubernetes\.io/revision)?"
    r"|metadata\.managedFields\.kube-controller-manager.*)"
)


@dataclass
class _Stream:
    """A watch or a followed log, concurrent with the other requests."""

    index: int
    exchange: JsonObject
    lines: list[JsonObject] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    task: asyncio.Task[None] | None = None

    @property
    def is_text(self) -> bool:
        return any("text" in line for line in self.exchange["response"]["lines"])


@dataclass(frozen=True)
class Options:
    """How a recording is replayed.

    - `bodies` gives the request bodies that the recording only describes in words, by the number of the exchange
    - `after` repeats an unrecorded action after an exchange
    - `skip` leaves exchanges out
    - `exact_streams` compares every event of a watch instead of the first and last of each object
    - `varying` names further keys whose values are not compared
    - `racing` names exchanges whose responses depend on the controllers' progress within milliseconds
    - `names` translates names of the recording into names of this cluster
    - `identities` gives the Authorization header of users other than the administrator, by their names in the
      recording, or of one exchange by its number
    - `pace` sends requests at the recorded times; `read_deadline_seconds` and `stream_deadline_seconds` (of the loop)
      limit how long a read is repeated and how long a stream's last lines are awaited
    """

    bodies: Mapping[int, Body] = field(default_factory=dict)
    after: Mapping[int, Action] = field(default_factory=dict)
    skip: frozenset[int] = frozenset()
    exact_streams: bool = False
    varying: frozenset[str] = frozenset()
    racing: frozenset[int] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    identities: Mapping[int | str, str] = field(default_factory=dict)
    pace: bool = True
    read_deadline_seconds: float = _READ_DEADLINE_SECONDS
    stream_deadline_seconds: float = _STREAM_DEADLINE_SECONDS


class Replay:
    """One replay. `answers` has the response bodies of the simulator by the number of their exchange."""

    def __init__(
        self,
        cluster: SimulatedCluster,
        recording: JsonObject,
        options: Options,
    ) -> None:
        self.cluster = cluster
        self.recording = recording
        self.substitutions = Substitutions(names=dict(options.names))
        self.answers: dict[int, Any] = {}
        self._options = options
        self._comparer = Comparer(self.substitutions, varying=options.varying)
        self._session: aiohttp.ClientSession
        self._streams: list[_Stream] = []

    async def run(self) -> list[Difference]:
        """Sends all requests and returns all differences."""
        differences: list[Difference] = []
        began = self.cluster.clock.elapsed()
        async with aiohttp.ClientSession(self.cluster.url) as self._session:
            try:
                for index, exchange in enumerate(self.recording["exchanges"]):
                    if index in self._options.skip or exchange["request"]["method"] == "-":
                        continue
                    if self._options.pace:
                        due = began + exchange["at_ms"] / 1000
                        await self.cluster.clock.sleep(due - self.cluster.clock.elapsed())
                    differences += await self._exchange(index, exchange)
                    if index in self._options.after:
                        await self._options.after[index](self)
                for stream in self._streams:
                    differences += await self._finish(stream)
            finally:
                await cancel_and_wait(*(stream.task for stream in self._streams if stream.task is not None))
        return differences

    async def _exchange(self, index: int, exchange: JsonObject) -> list[Difference]:
        if "lines" in exchange["response"]:
            stream = _Stream(index, exchange)
            self._streams.append(stream)
            stream.task = asyncio.create_task(self._read_stream(stream))
            await stream.began.wait()
            return []
        # Read before the request: a change during the request must cause another request.
        revision = self.cluster.store.revision
        differences = await self._send(index, exchange)
        writes = exchange["request"]["method"] != "GET"
        if index in self._options.racing or (writes and _is_workload(exchange["response"])):
            differences = [entry for entry in differences if not _CONTROLLERS_WORK.fullmatch(entry.path)]
        if writes or index in self._options.racing:
            return differences

        async def read_again() -> list[Difference]:
            nonlocal revision, differences
            if self.cluster.store.revision != revision:
                revision = self.cluster.store.revision
                differences = await self._send(index, exchange)
            return differences

        # The caller reports the differences that remain at the deadline.
        with suppress(AssertionError):
            await poll_until(read_again, self._is_known, seconds=self._options.read_deadline_seconds)
        return differences

    def _request(
        self, index: int, exchange: JsonObject
    ) -> tuple[str, str, list[tuple[str, str]], dict[str, str], bytes | None]:
        request = exchange["request"]
        headers = {name: self.substitutions.text(value) for name, value in request["headers"].items()}
        identity = self._options.identities.get(index, self._options.identities.get(request.get("as"), ""))
        if request.get("as") is None:
            identity = f"Bearer {self.cluster.token}"
        if identity:
            headers["authorization"] = identity
        query = [
            (name, self._version(part) if name == "resourceVersion" else self.substitutions.text(part))
            for name, value in request["query"].items()
            for part in (value if isinstance(value, list) else [value])
        ]
        body: Any = request.get("body")
        if index in self._options.bodies:
            body = self._options.bodies[index](self)
        elif body is not None:
            body = self.substitutions.apply(body)
        data = None
        if body is not None:
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
        return request["method"], self.substitutions.text(request["path"]), query, headers, data

    def _version(self, recorded: str) -> str:
        if recorded in self.substitutions.values:
            return self.substitutions.values[recorded]
        if _LITERAL_VERSIONS.match(recorded):
            return recorded
        return str(self.cluster.store.revision)

    async def _send(self, index: int, exchange: JsonObject) -> list[Difference]:
        method, path, query, headers, data = self._request(index, exchange)
        async with self._session.request(
            method,
            path,
            params=query,
            headers=headers,
            data=None if data is None else io.BytesIO(data),
            skip_auto_headers={"Content-Type", "Accept"},
        ) as response:
            raw = await response.read()
            return self._compare(index, exchange["response"], response, raw)

    def _compare(
        self, index: int, recorded: JsonObject, response: aiohttp.ClientResponse, raw: bytes
    ) -> list[Difference]:
        compare = self._comparer.compare
        differences = compare(index, "status", recorded["status"], response.status)
        for name in ("content-type", "warning", "retry-after"):
            expected = recorded["headers"].get(name)
            values = response.headers.getall(name, [])
            seen: Any = values if len(values) > 1 else values[0] if values else None
            differences += compare(index, f"header.{name}", expected, seen)
        if "etag" in recorded["headers"]:
            self.substitutions.learn(recorded["headers"]["etag"], response.headers.get("etag", ""))
        if "body" in recorded:
            try:
                body = json.loads(raw)
            except ValueError:
                return [*differences, Difference(index, "body", recorded["body"], raw[:200])]
            self.answers[index] = body
            if (
                isinstance(recorded["body"], dict)
                and "type" in recorded["body"]
                and "object" in recorded["body"]
            ):
                body = {"type": body.get("type"), "object": body.get("object")}
            differences += compare(index, "body", recorded["body"], body)
        elif "text" in recorded:
            differences += compare(index, "text", recorded["text"], raw.decode())
        return differences

    async def _read_stream(self, stream: _Stream) -> None:
        method, path, query, headers, data = self._request(stream.index, stream.exchange)
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.request(
            method, path, params=query, headers=headers, data=data, timeout=timeout
        ) as response:
            stream.began.set()
            async for raw in response.content:
                async with stream.changed:
                    stream.lines.append({"text": raw.decode()} if stream.is_text else json.loads(raw))
                    stream.changed.notify_all()

    async def _finish(self, stream: _Stream) -> list[Difference]:
        """Waits for the recorded lines, or the end of the stream, and compares them object by object."""
        assert stream.task is not None
        response = stream.exchange["response"]
        whole = response.get("ended") == "server closed"

        async def compared() -> list[Difference]:
            if stream.is_text:
                return text_differences(stream.index, response["lines"], stream.lines, whole=whole)
            recorded = [line["json"] for line in response["lines"]]
            return self._compare_lines(stream.index, recorded, stream.lines)

        if whole:
            async with within(_STREAM_DEADLINE_SECONDS + 30 / self.cluster.clock.speed):
                await stream.task
            return await compared()

        async def changed() -> None:
            async with stream.changed:
                await stream.changed.wait()

        with suppress(AssertionError):
            seconds = self._options.stream_deadline_seconds
            await poll_until(compared, self._is_known, seconds=seconds, woken_by=changed)
        return await compared()

    def _is_known(self, differences: list[Difference]) -> bool:
        """Returns whether all differences are known, so that a repeated read cannot remove any."""
        name = self.recording["scenario"]
        known = [entry for entry in KNOWN if entry.recording == name]
        return all(any(entry.matches(found) for entry in known) for found in differences)

    def _compare_lines(
        self, index: int, recorded: list[JsonObject], simulated: list[JsonObject]
    ) -> list[Difference]:
        old, new = by_object(recorded), by_object(simulated)
        unpaired = [name for name in new if name not in old]
        differences: list[Difference] = []
        for name, events in old.items():
            others = new.get(name)
            if others is None:
                # The name was generated, so the next object of the same family is compared instead.
                stand_in = stand_in_for(
                    events[0], self.substitutions, {entry: new[entry][0] for entry in unpaired}
                )
                others = new[stand_in] if stand_in is not None else []
                if stand_in is not None:
                    unpaired.remove(stand_in)
            path = f"lines[{name}]"
            differences += self._comparer.compare(
                index, f"{path}.types", self._types(events), self._types(others)
            )
            pairs = zip(events, others, strict=False) if self._options.exact_streams else ends(events, others)
            for number, (event, other) in enumerate(pairs):
                differences += self._comparer.compare(index, f"{path}[{number}]", event, other)
        return differences

    def _types(self, events: list[JsonObject]) -> list[str]:
        types = [event["type"] for event in events]
        if self._options.exact_streams:
            return types
        return [kind for position, kind in enumerate(types) if position == 0 or types[position - 1] != kind]


def _is_workload(response: JsonObject) -> bool:
    body = response.get("body")
    return isinstance(body, dict) and body.get("kind") in _WORKLOADS


async def create(cluster: SimulatedCluster, path: str, body: JsonObject) -> JsonObject:
    """Creates over HTTP an object that existed before a recording."""
    headers = {"authorization": f"Bearer {cluster.token}"}
    async with (
        aiohttp.ClientSession(cluster.url, headers=headers) as session,
        session.post(path, json=body, params={"fieldManager": "pilothouse"}) as response,
    ):
        document: JsonObject = await response.json()
        assert response.status == 201, document
        return document


async def replay(
    cluster: SimulatedCluster,
    name: str,
    options: Options | None = None,
    *,
    prepare: Callable[[SimulatedCluster], Awaitable[None]] | None = None,
) -> list[Difference]:
    """Creates the namespaces of the recording, runs `prepare`, replays, and returns the differences."""
    recording = load(name)
    for namespace in namespaces_of(recording):
        await create(cluster, "/api/v1/namespaces", {"metadata": {"name": namespace}})
    if prepare is not None:
        await prepare(cluster)
    return await Replay(cluster, recording, options or Options()).run()


def check(name: str, differences: list[Difference]) -> None:
    """Fails on an unknown difference, and on a known difference that no longer occurs."""
    unused = [known for known in KNOWN if known.recording == name]
    unknown: list[Difference] = []
    used = set()
    for difference in differences:
        matching = [known for known in unused if known.matches(difference)]
        used.update(matching)
        if not matching:
            unknown.append(difference)
    assert not unknown, f"{name} is not as recorded:\n" + "\n".join(map(str, unknown[:60]))
    gone = [known for known in unused if known not in used]
    assert not gone, f"{name}: these known differences no longer occur, remove them: {gone}"
