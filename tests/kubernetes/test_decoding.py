"""Responses with many values: a list is decoded in parts, next to other work.

Responses that are not lists have a limit of values.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse_server.kubernetes import decoding, fingerprints, logs
from pilothouse_server.kubernetes.client import ClusterClient
from pilothouse_server.kubernetes.decoding import MOST_ITEMS, MOST_VALUES
from pilothouse_server.kubernetes.errors import AnswerTooLarge, ClusterError, TooManyValues, Unreachable
from pilothouse_server.kubernetes.logs import LogOptions, pod_log
from pilothouse_server.kubernetes.objects import CONFIG_MAP_METADATA, DEPLOYMENTS, PODS, SERVICES, Resource
from pilothouse_server.kubernetes.transport import ClusterTransport, TransportLimits
from pilothouse_server.runtime import event_loop
from tests.clusters import hostile
from tests.clusters.hostile import MEGABYTE, Asked, hostile_server
from tests.waiting import poll_until

Ask = Callable[[ClusterClient], Awaitable[Any]]
_HEAD = b'{"metadata": {"resourceVersion": "1"}, '


@asynccontextmanager
async def _client(body: bytes, **limits: Any) -> AsyncIterator[ClusterClient]:
    """Yields a client of a cluster that responds to every request with this body."""
    bounds = TransportLimits(request_seconds=30.0, **limits)
    async with hostile_server(hostile.saying(body)) as server:
        client = await ClusterClient.from_kubeconfig(server.kubeconfig(), name="dense", limits=bounds)
        try:
            yield client
        finally:
            await client.close()


def _listed(*items: bytes, field: str = "items") -> bytes:
    return _HEAD + b'"%s": [%s]}' % (field.encode(), b",".join(items))


def _object(inner: bytes, size: int = MEGABYTE) -> bytes:
    """Returns an object that contains `size` bytes of `inner` in a list."""
    return b'{"metadata": {"name": "p"}, "x": [%s]}' % b",".join([inner] * (size // (len(inner) + 1)))


async def _watch(client: ClusterClient) -> list[tuple[str, str]]:
    async with aclosing(client.watch(PODS, resource_version="1")) as events:
        return [(event.type, event.object.metadata.name) async for event in events]


_DENSE = _object(b"{}")
_OF_ONE: dict[str, Ask] = {
    "object": lambda client: client.get(PODS, "n", "p"),
    "whole object": lambda client: client.read(PODS, "n", "p"),
    "dry run": lambda client: client.dry_run(PODS, {"metadata": {"namespace": "n", "name": "p"}}),
    "version": lambda client: client.version(),
}


_INNER = [b"{}", b"[]", b"1", b'""', b'{"":1}', b'"\\"","\\\\"']


def _each_once(ways: Iterable[str], inner: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """Returns each request with the first content, and each content with one request.

    All requests count values in the same way.
    """
    first, *others = ways
    return [*((first, each) for each in inner), *((way, inner[0]) for way in others)]


@pytest.mark.parametrize(("what", "inner"), _each_once(_OF_ONE, _INNER))
async def test_an_object_of_too_many_values_is_refused(what: str, inner: bytes) -> None:
    async with _client(_object(inner, 5 * MEGABYTE)) as client:
        with pytest.raises(AnswerTooLarge, match=f"a response has more than {MOST_VALUES} values"):
            await _OF_ONE[what](client)
        # It has the same effect as any other response that is too large.
        with pytest.raises(AnswerTooLarge):
            client.check_answers()


@pytest.mark.parametrize("inner", _INNER)
async def test_a_dense_object_that_users_can_create_is_not_the_clusters_fault(inner: bytes) -> None:
    async with _client(_object(inner, 3 * MEGABYTE)) as client:
        with pytest.raises(TooManyValues, match=f"more than {MOST_VALUES} values at cluster 'dense'"):
            await client.get(PODS, "n", "p")
        client.check_answers()
        # The cluster still receives requests.
        with pytest.raises(TooManyValues):
            await client.get(PODS, "n", "p")
    async with _client(_listed(_object(inner, 3 * MEGABYTE))) as client:
        assert await client.newest_version(PODS) == "1"
        client.check_answers()


@pytest.mark.parametrize("resource", [PODS, SERVICES])
async def test_a_dense_object_is_left_out_of_a_list(resource: Resource[Any]) -> None:
    async with _client(_listed(b"{}", _DENSE, b"{}")) as client:
        page = await client.list(resource)
        client.check_answers()
    assert (len(page.items), page.left_out) == (2, (("", "p"),))
    async with _client(_listed(b"{}", _object(b"1,null", 5 * MEGABYTE)), page_bytes=16 * MEGABYTE) as client:
        with pytest.raises(AnswerTooLarge, match="an object of a list has more"):
            await client.list(resource)


async def test_a_dense_pod_is_left_out_of_a_node_summary() -> None:
    pods = [b'{"podRef": {"uid": "%s"}, "x": [%s]}' % (uid, more) for uid, more in ((b"a", b""), (b"b", b""))]
    dense = b'{"podRef": {"uid": "dense"}, "x": [%s]}' % b",".join([b"{}"] * (MEGABYTE // 3))
    async with _client(_listed(pods[0], dense, pods[1], field="pods")) as client:
        found = await client.node_stats("n")
        client.check_answers()
    assert [pod.pod_ref.uid for pod in found.pods] == ["a", "b"]


async def test_the_response_to_a_deletion_is_not_decoded() -> None:
    async with _client(_object(b"{}", 3 * MEGABYTE)) as client:
        assert await client.delete(PODS, "n", "p", uid="u")


@pytest.mark.parametrize("kind", ["ADDED", "DELETED"])
async def test_only_the_name_of_a_dense_object_in_a_watch_is_read(kind: str) -> None:
    small, large = b'{"metadata": {"name": "q"}}', _object(b"{}", 5 * MEGABYTE)
    lines = [b'{"type": "%s", "object": %s}\n' % (kind.encode(), each) for each in (_DENSE, small, large)]
    async with _client(b"".join(lines[:2])) as client:
        seen = "BOOKMARK" if kind == "ADDED" else kind
        assert await _watch(client) == [(seen, "p"), (kind, "q")]
        client.check_answers()
    async with _client(b"".join(lines)) as client:
        with pytest.raises(AnswerTooLarge, match="an object of a watch has more"):
            await _watch(client)


async def test_dense_objects_hide_no_other_objects_of_their_list() -> None:
    """Two dense objects make a page denser than any page of Kubernetes.

    A page of fewer objects is not too dense, or has only one object.
    """
    objects = [b'{"metadata": {"name": "p-%d"}}' % number for number in range(40)]
    for number in (3, 20, 21):
        args = b",".join([b'""'] * (MEGABYTE // 2))
        objects[number] = b'{"metadata": {"name": "dense-%d"}, "spec": {"args": [%s]}}' % (number, args)
    limits: list[int] = []

    async def answer(asked: Asked) -> None:
        query = parse_qs(urlsplit(asked.target).query)
        limits.append(limit := int(query["limit"][0]))
        first = int(query.get("continue", ["0"])[0])
        end = b'"%d"' % (first + limit) if first + limit < len(objects) else b'""'
        items = b",".join(objects[first : first + limit])
        await asked.whole(
            b'{"metadata": {"resourceVersion": "7", "continue": %s}, "items": [%s]}' % (end, items)
        )

    async with hostile_server(answer) as server:
        client = await ClusterClient.from_kubeconfig(server.kubeconfig(), name="dense")
        try:
            page = await client.list(PODS)
            newest = await client.newest_version(PODS)
            client.check_answers()
        finally:
            await client.close()
    assert [item.metadata.name for item in page.items] == [
        f"p-{n}" for n in range(40) if n not in (3, 20, 21)
    ]
    assert page.left_out == (("", "dense-3"), ("", "dense-20"), ("", "dense-21"))
    assert newest == "7"
    # The first page was too dense, and the client requested a smaller one.
    assert limits[0] > limits[1]


_LISTS: dict[str, tuple[str, Ask]] = {
    "pods": ("items", lambda client: client.list(PODS)),
    "services": ("items", lambda client: client.list(SERVICES)),
    "config maps": ("items", lambda client: client.list(CONFIG_MAP_METADATA)),
    "usage": ("pods", lambda client: client.node_stats("n")),
}


_NEWEST: tuple[str, Ask] = ("items", lambda client: client.newest_version(PODS))


@pytest.mark.parametrize("what", _LISTS)
async def test_a_list_of_too_many_items_is_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    count = decoding._Items.one_more

    def counting(items: Any) -> None:
        nonlocal made
        made += 1
        count(items)

    monkeypatch.setattr(decoding._Items, "one_more", counting)
    field, ask = _LISTS[what]
    async with _client(_listed(*[b'{"metadata": {}}'] * 400_000, field=field)) as client:
        with pytest.raises(AnswerTooLarge, match=f"a list has more than {MOST_ITEMS} items"):
            await ask(client)
    # The first item beyond the limit was detected.
    assert made == MOST_ITEMS + 1


@pytest.mark.parametrize("what", _LISTS)
async def test_a_list_of_values_other_than_objects_cannot_be_read(what: str) -> None:
    field, ask = _LISTS[what]
    async with _client(_listed(*[b"12345678"] * 500_000, field=field)) as client:
        with pytest.raises(Unreachable, match="cannot be read"):
            await ask(client)


@pytest.mark.parametrize(
    ("what", "inner"), _each_once([*_LISTS, "newest version"], [b"{}", b"[]", b'""', b"[[]]"])
)
async def test_a_list_of_too_many_values_is_refused_before_decoding(
    what: str, inner: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[object] = []
    monkeypatch.setattr(decoding, "decode", lambda _body, form: decoded.append(form))
    field, ask = {**_LISTS, "newest version": _NEWEST}[what]
    async with _client(_listed(_object(inner, 5 * MEGABYTE), field=field)) as client:
        with pytest.raises(
            AnswerTooLarge,
            match=r"a list has more values per byte than Kubernetes sends|an object has more than 4194304",
        ):
            await ask(client)
    assert not decoded


async def test_characters_within_texts_do_not_make_a_list_too_dense() -> None:
    """Any user can write such characters into an annotation."""
    text = json.dumps(',[{"\\' * 150_000).encode()
    pods = [b'{"metadata": {"name": "p-%d", "annotations": {"a": %s}}}' % (n, text) for n in range(3)]
    async with _client(_listed(*pods)) as client:
        assert [pod.metadata.name for pod in (await client.list(PODS)).items] == ["p-0", "p-1", "p-2"]


_texts = st.text(st.sampled_from('\\",[{:a\u20ac'), max_size=12)
_values = st.recursive(
    st.integers(0, 9) | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=30,
)


def _slowly(text: str) -> int:
    """Returns the number of values outside texts and of texts, by characters."""
    count, inside, escaped = 0, False, False
    for sign in text:
        if inside:
            inside, escaped = escaped or sign != '"', sign == "\\" and not escaped
        elif sign == '"':
            inside, count = True, count + 1
        else:
            count += {",": 1, "[": 1, "{": 2}.get(sign, 0)
    return count


@given(_values, st.integers(1, 9))
async def test_values_outside_texts_are_counted_across_pieces(value: Any, step: int) -> None:
    text = json.dumps(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_CLOSE_STEP_BYTES", step)
        assert await decoding._outside_texts(text.encode(), 1 << 40) == _slowly(text)
        # The function reads no more of the text than necessary.
        most = _slowly(text) // 2
        assert await decoding._outside_texts(text.encode(), most) > most or not most


def _pod(number: int) -> bytes:
    fields: dict[str, Any] = {f"f:field-{each}": {} for each in range(300)}
    pod = {
        "metadata": {
            "name": f"p-{number}",
            "labels": {"app": "web"},
            "managedFields": [{"fieldsV1": fields}],
        },
        "status": {"phase": "Running", "containerStatuses": [{"name": "main", "ready": True}]},
    }
    return json.dumps(pod).encode()


async def test_a_long_list_is_read_completely_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each share is used up immediately.
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)
    names: list[str] = []
    read = fingerprints.read
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turn_of_each: list[int] = []

    def noting(body: Any, resource: Resource[Any]) -> Any:
        turn_of_each.append(turns)
        return read(body, resource)

    monkeypatch.setattr("pilothouse_server.kubernetes.client.read", noting)
    body = _listed(*map(_pod, range(500)))
    assert len(body) > MEGABYTE
    async with _client(body) as client:
        other = asyncio.create_task(others())
        page = await client.list(PODS)
        other.cancel()
    names = [pod.metadata.name for pod in page.items]
    assert names == [f"p-{number}" for number in range(500)]
    assert all(pod.status.container_statuses[0].ready for pod in page.items)
    # Other tasks ran before each item.
    assert all(one < next_one for one, next_one in pairwise(turn_of_each))


@pytest.mark.parametrize("dense", [True, False])
async def test_one_long_response_is_checked_at_a_time(monkeypatch: pytest.MonkeyPatch, dense: bool) -> None:
    """Once one response is too large, the waiting requests are abandoned."""
    checked = at_once = most = 0
    check = decoding.check_items

    async def noting(body: bytes, name: str, *, of_one: bool = False) -> None:
        nonlocal checked, at_once, most
        checked, at_once = checked + 1, at_once + 1
        most = max(most, at_once)
        # All requests are present before the first response is found too large.
        await poll_until(all_wait)
        await check(body, name, of_one=of_one)
        at_once -= 1

    waiting = 0

    async def all_wait() -> bool:
        return waiting == 4

    begun = ClusterTransport.checks

    def counting(transport: ClusterTransport, text: Any) -> Any:
        nonlocal waiting
        waiting += 1
        return begun(transport, text)

    monkeypatch.setattr("pilothouse_server.kubernetes.client.check_items", noting)
    monkeypatch.setattr(ClusterTransport, "checks", counting)
    body = _listed(*[b"{}"] * 300_000) if dense else _listed(*map(_pod, range(100)))
    async with _client(body) as client:
        ended = await asyncio.gather(*(client.list(PODS) for _ in range(4)), return_exceptions=True)
    assert [isinstance(each, AnswerTooLarge) for each in ended] == [dense] * 4
    assert (checked, most) == (1 if dense else 4, 1)


async def test_a_short_list_is_decoded_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    def unexpected(*_: Any) -> Any:
        raise AssertionError("one by one")

    monkeypatch.setattr("pilothouse_server.kubernetes.client.read", unexpected)
    async with _client(_listed(*map(_pod, range(10)))) as client:
        assert len((await client.list(PODS)).items) == 10


def _annotated(**changes: Any) -> bytes:
    """Returns an object with as many annotations as Kubernetes accepts from users.

    They have 256 KiB, with short names.
    """
    annotations = {f"{number:x}": "" for number in range(50_000)}
    # The field managers, of which there may be several.
    fields: dict[str, Any] = {f"f:{key}": {} for key in annotations}
    metadata = {
        "name": "n",
        "uid": "u",
        "generation": 1,
        "resourceVersion": "1",
        "annotations": annotations,
        "labels": {"a": "b"},
        "managedFields": [{"manager": "m", "fieldsV1": {"f:metadata": {"f:annotations": fields}}}] * 2,
    }
    whole: dict[str, Any] = {
        "metadata": metadata,
        "spec": {"type": "ClusterIP"},
        "status": {"x": 1},
        "kind": "Service",
    }
    for path, value in changes.items():
        part = whole
        *way, last = path.split("__")
        for step in way:
            part = part[step]
        part[last] = value
    return msgspec.json.encode(whole)


async def test_the_largest_annotations_of_users_are_accepted() -> None:
    body = _annotated()
    assert len(body) > decoding.AT_ONCE_BYTES
    assert decoding._values(body, 0, len(body)) > MOST_VALUES
    async with _client(body) as client:
        assert len((await client.get(SERVICES, "n", "n")).metadata.annotations or {}) == 50_000
        assert (await client.read(SERVICES, "n", "n"))["metadata"]["name"] == "n"
    async with _client(_listed(body)) as client:
        assert len((await client.list(SERVICES)).items[0].metadata.annotations or {}) == 50_000
    async with _client(b'{"type": "ADDED", "object": %s}\n' % body) as client:
        assert await _watch(client) == [("ADDED", "n")]


@pytest.mark.parametrize("text", [",{[", '"', "\\", '\\"', '"\\', '{"a": 1}, ', "<\n"])
async def test_characters_within_a_text_are_not_counted_as_values(text: str) -> None:
    whole = {"metadata": {"name": "p", "annotations": {"a": text * (MEGABYTE // len(text)), "b": ""}}}
    body = msgspec.json.encode(whole)
    async with _client(body) as client:
        assert (await client.read(PODS, "n", "p")) == whole
        assert (await client.get(PODS, "n", "p")).metadata.annotations == whole["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"status__x": 2, "metadata__resourceVersion": "2"}, True),
        ({"spec__type": "NodePort"}, False),
        ({"metadata__annotations__0": "x"}, False),
        ({"metadata__labels__a": "c"}, False),
        ({"metadata__generation": 2}, False),
        ({"metadata__uid": "v"}, False),
    ],
)
def test_a_long_object_has_a_fingerprint(changes: dict[str, Any], same: bool) -> None:
    first, other = (fingerprints.read(_annotated(**each), DEPLOYMENTS).mark for each in ({}, changes))
    assert fingerprints.same(first, other) is same


def test_the_fingerprint_of_a_versioned_object_ignores_its_values() -> None:
    first, other = (
        fingerprints.read(_annotated(**each), CONFIG_MAP_METADATA).mark
        for each in ({}, {"metadata__annotations__0": "x"})
    )
    assert first == other


async def test_too_many_container_statuses_cannot_be_read() -> None:
    def pod(number: int) -> bytes:
        return b'{"status": {"containerStatuses": [%s]}}' % b",".join([b'{"name": "c"}'] * number)

    async with _client(pod(4096)) as client:
        assert len((await client.get(PODS, "n", "p")).status.container_statuses) == 4096
    async with _client(pod(4097)) as client:
        with pytest.raises(ClusterError, match="cannot be read"):
            await client.get(PODS, "n", "p")


async def test_other_tasks_run_while_lines_of_a_log_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "_SHARE_SECONDS", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"\n" * 1000

    other = asyncio.create_task(others())
    count = 0
    async for _ in logs._lines(chunks()):
        count += 1
    other.cancel()
    assert (count, turns >= 999) == (1000, True)
    async with _client(b"2026-01-01T00:00:00Z a\n2026-01-01T00:00:01Z b\n") as client:
        log = pod_log(client, "n", "p", container="c", options=LogOptions())
        assert [line.text async for line in log] == [b"a", b"b"]
