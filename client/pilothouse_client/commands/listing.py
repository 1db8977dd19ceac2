"""The options of verbs that list resources, with the calls and the output that they determine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    AllNamespaces,
    Filter,
    Format,
    Limit,
    Namespace,
    OrderBy,
    Output,
    Selector,
    Watch,
    check_watch,
    enum_number,
    namespace_or_all,
    with_status,
)
from pilothouse_client.commands.output import Columns, show_all, show_changes

if TYPE_CHECKING:
    from pilothouse_client import Client

# Returns a call of the client.
CallOf = Callable[["Client"], Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class TableOptions:
    """The options of a list that cannot be watched."""

    filter_: Filter = ""
    order_by: OrderBy = ""
    limit: Limit = 0
    output: Output = Format.TABLE

    def show(self, columns: Columns, listed: CallOf, **narrowed: object) -> None:
        """Writes the results of a call; `narrowed` are further fields of its request."""
        with connect() as client:
            found = listed(client)(filter=self.filter_, order_by=self.order_by, **narrowed)
            show_all(found, columns, self.output, self.limit)


@dataclass(frozen=True, slots=True)
class ScopeOptions:
    """The options of a list whose watch is one scope of `WatchService.Watch`."""

    filter_: Filter = ""
    order_by: OrderBy = ""
    limit: Limit = 0
    watch: Watch = False
    output: Output = Format.TABLE

    def show(self, columns: Columns, listed: CallOf, noun: str, namespace: str = "") -> None:
        """Writes the results of a call, or the changes of a scope of `noun`."""
        if not self.watch:
            where = {"namespace": namespace} if namespace else {}
            options = TableOptions(self.filter_, self.order_by, self.limit, self.output)
            return options.show(columns, listed, **where)
        from pilothouse.watch.v1 import watch_pb2

        check_watch("", self.order_by, self.limit, goes_with="--filter")
        kind = watch_pb2.Noun.Value(f"NOUN_{noun.upper()}")
        scope = watch_pb2.Scope(noun=kind, namespace=namespace, filter=self.filter_)
        with connect() as client, client.watches.watch(scopes=[scope]) as changes:
            resources = (
                replace(change, resource=getattr(change.resource.resource, noun)) for change in changes
            )
            return show_changes(resources, columns, self.output)


@dataclass(frozen=True, slots=True)
class NamespacedOptions:
    """The options of a list of resources in one namespace or in all, which can be watched."""

    namespace: Namespace = ""
    all_namespaces: AllNamespaces = False
    selector: Selector = ""
    filter_: Filter = ""
    order_by: OrderBy = ""
    limit: Limit = 0
    watch: Watch = False
    output: Output = Format.TABLE

    def show(
        self,
        columns: Columns,
        listed: CallOf,
        watched: CallOf,
        *,
        statuses: Any = None,
        status: str = "",
        chosen: Callable[[Any], Iterable[Any]] = iter,
    ) -> None:
        """Writes the results of a call, or the changes of a watch that are `chosen`.

        `statuses` is the enum of `status`, by which both narrow.
        """
        narrowed: dict[str, Any] = {
            "namespace": namespace_or_all(self.namespace, self.all_namespaces),
            "label_selector": self.selector,
        }
        number = enum_number(statuses, status, "--status") if status else 0
        with connect() as client:
            if not self.watch:
                filter_ = with_status(self.filter_, statuses, number)
                found = listed(client)(filter=filter_, order_by=self.order_by, **narrowed)
                show_all(found, columns, self.output, self.limit)
                return
            goes_with = "--selector" if statuses is None else "--selector and --status"
            check_watch(self.filter_, self.order_by, self.limit, goes_with=goes_with)
            if number:
                narrowed["status"] = number
            with watched(client)(**narrowed) as changes:
                show_changes(chosen(changes), columns, self.output)
