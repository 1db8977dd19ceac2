"""The `pilothouse` command, also as `python -m pilothouse_client` where the script is not in the path.

A command runs for a fifth of a second, and creates many objects but hardly any garbage. With the garbage collector's
defaults, collections take a third of its CPU time, while modules are imported and at the end.
"""

from __future__ import annotations

import gc

# The number of new objects between two collections. Imports create fewer; a watch that runs for days is collected.
_THRESHOLD = 100_000


def main() -> None:
    """The entry point of the `pilothouse` command."""
    gc.set_threshold(_THRESHOLD)
    from pilothouse_client import cli

    try:
        cli.main()
    finally:
        # The interpreter's last collection need not visit objects that end with the process.
        gc.freeze()


if __name__ == "__main__":
    main()
