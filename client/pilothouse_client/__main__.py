"""The `pilothouse` command, also as `python -m pilothouse_client` where the script is not in the path.

A command lives for a fifth of a second, in which it makes many objects and hardly any garbage: with the collector's
defaults a third of its processor time goes to looking for some, while modules are imported and at the end.
"""

from __future__ import annotations

import gc

# So many objects are made between two collections. Importing makes fewer; a watch that runs for days is collected.
_THRESHOLD = 100_000


def main() -> None:
    """The entry point of the `pilothouse` command."""
    gc.set_threshold(_THRESHOLD)
    from pilothouse_client import cli

    try:
        cli.main()
    finally:
        # The interpreter's last collection need not visit what ends with the process.
        gc.freeze()


if __name__ == "__main__":
    main()
