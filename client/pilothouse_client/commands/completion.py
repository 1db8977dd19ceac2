"""`pilothouse completion`: the script by which a shell completes verbs, options, names and values.

The script runs the command for each completion. Names come from the server, for the namespace and the context on the
line. Without a server, or after a second, no names are completed.
"""

from __future__ import annotations

from typing import Annotated

import click

from pilothouse_client.commands import verbs
from pilothouse_client.commands.terminal import say

SHELLS = ("bash", "zsh", "fish")


def command(shell: Annotated[str, verbs.Argument(type=click.Choice(SHELLS), help="The shell.")]) -> None:
    """Write the completion of a shell. In bash: eval "$(pilothouse completion bash)"."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    root = click.get_current_context().find_root()
    say(made(root.command, {}, "pilothouse", "_PILOTHOUSE_COMPLETE").source())
