"""A local copy of the resources of a watch: read it as often as you like, and wait for a condition on it.

    with WatchInformer(lambda: client.containers.watch(namespace="shop")) as shop:
        web = shop.get("web")
        shop.wait_for(lambda all_of_them: len(all_of_them) == 3, timeout=30)

The watch runs in a thread (`WatchInformer`), or in a task (`AsyncWatchInformer`), and continues by itself after cuts.
The copy is complete from the first SYNCED on. When the watch restarts, resources that no longer exist are removed at
its next SYNCED.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pilothouse_client.errors import PilothouseError
from pilothouse_client.streams import Change, ChangeKind

Resource = TypeVar("Resource")
# Resources by name, or by `namespace/name` if they are of several namespaces.
Resources = Mapping[str, Resource]
Condition = Callable[[Resources[Resource]], bool]
_SECONDS = 60.0


def _nothing(_change: Change[Any]) -> None:
    pass


class _Copy(Generic[Resource]):
    """The resources, and how a change alters them."""

    def __init__(self, on_change: Callable[[Change[Resource]], object]) -> None:
        self._on_change = on_change
        self._resources: dict[str, Resource] = {}
        self._seen: set[str] | None = set()
        self.is_whole = False

    def take(self, change: Change[Resource]) -> None:
        if change.kind is ChangeKind.RESTARTED:
            self._seen = set()
        elif change.kind is ChangeKind.SYNCED:
            if self._seen is not None:
                kept = {key: self._resources[key] for key in self._resources if key in self._seen}
                self._resources, self._seen = kept, None
            self.is_whole = True
        elif change.kind is ChangeKind.DELETED:
            self._resources = {k: v for k, v in self._resources.items() if k != _key(change.resource)}
        elif change.kind is not ChangeKind.BOOKMARK:
            # A new mapping, so that a mapping which a caller has read never changes.
            self._resources = {**self._resources, _key(change.resource): change.resource}
            if self._seen is not None:
                self._seen.add(_key(change.resource))
        self._on_change(change)

    @property
    def resources(self) -> Resources[Resource]:
        return self._resources

    def get(self, name: str, namespace: str = "") -> Resource | None:
        """Returns a resource; None if it is not there.

        The namespace may be left out if only one has the name."""
        if namespace:
            return self._resources.get(f"{namespace}/{name}")
        found = [each for key, each in self._resources.items() if key.rpartition("/")[2] == name]
        return found[0] if len(found) == 1 else None

    def by_name(self) -> dict[str, Resource]:
        """Returns the resources by name, or by `namespace/name` if they are of several namespaces."""
        several = len({key.rpartition("/")[0] for key in self._resources}) > 1
        return {key if several else key.rpartition("/")[2]: each for key, each in self._resources.items()}


def _key(resource: Any) -> str:
    name = getattr(resource, "name", "") or getattr(resource, "username", "")
    return f"{getattr(resource, 'namespace', '')}/{name}"


class WatchInformer(Generic[Resource]):
    """The copy of a blocking client's watch.

    `watch` opens the watch; `on_change` is called with each change, in the thread that reads. Entering the context
    waits at most `timeout` seconds until the copy is complete. After the watch has failed for good, reads raise its
    PilothouseError.

    >>> with WatchInformer[Container](lambda: client.containers.watch(namespace=namespace)) as copy:
    ...     web = client.containers.create(
    ...         container=Container(namespace=namespace, name="web", image="nginx")
    ...     )
    ...     print(*copy.wait_for(lambda seen: len(seen) == 1, timeout=30))
    web
    """

    def __init__(
        self,
        watch: Callable[[], Any],
        *,
        on_change: Callable[[Change[Resource]], object] = _nothing,
        timeout: float = _SECONDS,
    ) -> None:
        self._watch, self._timeout = watch, timeout
        self._copy: _Copy[Resource] = _Copy(on_change)
        self._changed = threading.Condition()
        self._error: PilothouseError | None = None
        self._stream: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._stream = self._watch()
        self._thread = threading.Thread(target=self._follow, name="pilothouse informer", daemon=True)
        self._thread.start()
        try:
            self._until(lambda: self._copy.is_whole, self._timeout)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the watch."""
        if self._stream is not None:
            self._stream.close()
        if self._thread is not None:
            self._thread.join()

    def get(self, name: str, namespace: str = "") -> Resource | None:
        """Returns a resource; None if it is not there."""
        with self._changed:
            self._check()
            return self._copy.get(name, namespace)

    def all(self) -> dict[str, Resource]:
        """Returns all resources, by name, or by `namespace/name` if they are of several namespaces."""
        with self._changed:
            self._check()
            return self._copy.by_name()

    def wait_for(self, condition: Condition[Resource], *, timeout: float = _SECONDS) -> dict[str, Resource]:
        """Waits until a condition on all resources holds; returns them.

        Raises TimeoutError."""
        return self._until(lambda: condition(self._copy.by_name()), timeout)

    def _until(self, condition: Callable[[], bool], timeout: float) -> dict[str, Resource]:
        with self._changed:
            if not self._changed.wait_for(lambda: self._error is not None or condition(), timeout):
                raise TimeoutError(f"the condition does not hold after {timeout:g} s")
            self._check()
            return self._copy.by_name()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _follow(self) -> None:
        try:
            for change in self._stream:
                with self._changed:
                    self._copy.take(change)
                    self._changed.notify_all()
        except PilothouseError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()


class AsyncWatchInformer(Generic[Resource]):
    """As `WatchInformer`, of an asynchronous client; `on_change` is called in the event loop.

    >>> async def containers() -> list[str]:
    ...     async with (
    ...         AsyncClient(address, token=token) as client,
    ...         AsyncWatchInformer[Container](lambda: client.containers.watch(namespace=namespace)) as copy,
    ...     ):
    ...         return list(copy.all())
    >>> asyncio.run(containers())
    []
    """

    def __init__(
        self,
        watch: Callable[[], Any],
        *,
        on_change: Callable[[Change[Resource]], object] = _nothing,
        timeout: float = _SECONDS,
    ) -> None:
        self._watch, self._timeout = watch, timeout
        self._copy: _Copy[Resource] = _Copy(on_change)
        self._changed = asyncio.Condition()
        self._error: PilothouseError | None = None
        self._stream: Any = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._stream = self._watch()
        self._task = asyncio.create_task(self._follow())
        try:
            await self._until(lambda: self._copy.is_whole, self._timeout)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the watch."""
        if self._stream is not None and self._task is not None:
            await self._stream.aclose()
            await self._task

    def get(self, name: str, namespace: str = "") -> Resource | None:
        """Returns a resource; None if it is not there."""
        self._check()
        return self._copy.get(name, namespace)

    def all(self) -> dict[str, Resource]:
        """Returns all resources, by name, or by `namespace/name` if they are of several namespaces."""
        self._check()
        return self._copy.by_name()

    async def wait_for(
        self, condition: Condition[Resource], *, timeout: float = _SECONDS
    ) -> dict[str, Resource]:
        """Waits until a condition on all resources holds; returns them.

        Raises TimeoutError."""
        return await self._until(lambda: condition(self._copy.by_name()), timeout)

    async def _until(self, condition: Callable[[], bool], timeout: float) -> dict[str, Resource]:
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: self._error is not None or condition())
        except TimeoutError:
            raise TimeoutError(f"the condition does not hold after {timeout:g} s") from None
        self._check()
        return self._copy.by_name()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def _follow(self) -> None:
        try:
            async for change in self._stream:
                async with self._changed:
                    self._copy.take(change)
                    self._changed.notify_all()
        except PilothouseError as error:
            async with self._changed:
                self._error = error
                self._changed.notify_all()
