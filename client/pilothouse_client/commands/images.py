"""`pilothouse images`."""

from __future__ import annotations

from typing import Annotated, Any

from pilothouse_client.commands import describe, many, verbs
from pilothouse_client.commands.invocation import connect
from pilothouse_client.commands.listing import ScopeOptions
from pilothouse_client.commands.name_completion import complete_image
from pilothouse_client.commands.options import (
    AllNamespaces,
    Format,
    Namespace,
    Output,
    ValidateOnly,
    namespace_or_all,
)
from pilothouse_client.commands.output import OutputColumn, done, show
from pilothouse_client.commands.values import enum_label, size

app = verbs.VerbGroup(no_args_is_help=True, help="Images that containers use.")
app.command("describe")(describe.of("images"))
# `sha256:` and twelve digits, as other tools show it.
_SHORT_DIGEST = 19
COLUMNS: list[OutputColumn[Any]] = [
    OutputColumn("IMAGE", lambda image: image.image, by_end=True),
    OutputColumn("STATUS", lambda image: enum_label(image, "status")),
    OutputColumn("SIZE", lambda image: size(image.size_bytes) if image.size_bytes else ""),
    OutputColumn("CONTAINERS", lambda image: image.container_count),
    OutputColumn("DIGEST", lambda image: image.digest[:_SHORT_DIGEST], whole=True),
    OutputColumn("WHOLE DIGEST", lambda image: image.digest, whole=True, wide=True),
]
_Image = Annotated[str, verbs.Argument(help="As containers name it.", complete=complete_image)]


@app.command("get")
def get(image: _Image, output: Output = Format.TABLE) -> None:
    """Show an image."""
    with connect() as client:
        show(client.containers.get_image(image=image), COLUMNS, output)


@app.command("list")
def list_images(
    namespace: Namespace = "", all_namespaces: AllNamespaces = False, *, options: ScopeOptions
) -> None:
    """List images, or watch them. Filter by name, repository, tag, status."""
    options.show(
        COLUMNS,
        lambda client: client.containers.list_images,
        "image",
        namespace_or_all(namespace, all_namespaces),
    )


@app.command("delete")
def delete(
    images: Annotated[list[str], verbs.Argument(help="Images.", complete=complete_image, metavar="IMAGE...")],
    validate_only: ValidateOnly = False,
) -> None:
    """Remove images that no container uses from the list."""
    with connect() as client:

        def act(image: str) -> None:
            client.containers.delete_image(image=image, validate_only=validate_only)
            done(f"image {image} forgotten")

        many.act_on_each(images, act, done="forgotten")
