"""`pilothouse search`: finds resources of all nouns by a part of a name, a label, an image or a reason."""

from __future__ import annotations

from typing import Annotated, Any

from pilothouse_client.commands import verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.options import (
    AllNamespaces,
    Format,
    Limit,
    Namespace,
    Output,
    namespace_or_all,
)
from pilothouse_client.commands.output import OutputColumn, show_all


def _noun(found: Any) -> str:
    from pilothouse.watch.v1 import watch_pb2

    return watch_pb2.Noun.Name(found.noun).removeprefix("NOUN_").lower()


_COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("NOUN", _noun),
    OutputColumn("NAMESPACE", lambda found: found.namespace),
    OutputColumn("NAME", lambda found: found.name),
    OutputColumn("KIND", lambda found: found.kind),
    OutputColumn("STATUS", lambda found: found.status),
    OutputColumn("REASON", lambda found: found.reason),
    OutputColumn("IMAGE", lambda found: found.image),
]


def command(
    words: Annotated[
        list[str], verbs.Argument(help="Words that must all match, such as web app=shop nginx.")
    ],
    namespace: Namespace = "",
    all_namespaces: AllNamespaces = False,
    limit: Limit = 0,
    output: Output = Format.TABLE,
) -> None:
    """Search names, labels, images, kinds, reasons and statuses of all nouns that you may list."""
    with connect() as client:
        found = client.watches.search(
            query=" ".join(words), namespace=namespace_or_all(namespace, all_namespaces)
        )
        show_all(found, _COLUMNS, output, limit)
