"""`make migration NAME=short_words [REPLACES="function ..."]`: begins a migration.

It writes the module, numbered after the last one, and copies the former text of each function that it replaces into
the module's folder. If a function has been edited already, its former text is taken from the last commit.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from pilothouse_migrations import functions, runner
from pilothouse_migrations.checksums import FUNCTIONS
from tests.conventions.sources import ROOT

VERSIONS = ROOT / "migrations" / "pilothouse_migrations" / "versions"
_TEMPLATE = '''"""{title}."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "{revision}"
down_revision = "{down_revision}"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that get another text, are new or go. Their former texts are in {folder}/before/.
replaces = ({replaces})
# Tables that are altered, or whose indexes are dropped: they are locked before anything else.
locks = ()


def upgrade() -> None:
    statements.run("""
""")
    statements.replace_functions(revision)


def downgrade() -> None:
    statements.restore_functions(revision)
    statements.run("""
""")
'''


def make(name: str, replaces: list[str], versions: Path = VERSIONS) -> list[Path]:
    """Writes the migration and returns its files. Raises ValueError with the reason."""
    if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
        raise ValueError(f"NAME must be lower-case words joined by _, got {name!r}")
    last = runner.head()
    revision = f"{int(last) + 1:04}"
    former = {each: _former_text(each) for each in replaces if each in FUNCTIONS}
    folder = f"{revision}_{name}"
    made = [versions / f"v{folder}.py"]
    made[0].write_text(
        _TEMPLATE.format(
            title=name.replace("_", " ").capitalize(),
            revision=revision,
            down_revision=last,
            folder=folder,
            replaces="".join(f'"{each}", ' for each in replaces).rstrip() if replaces else "",
        ),
        "utf-8",
    )
    for each, text in former.items():
        path = versions / folder / "before" / f"{each}.sql"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        made.append(path)
    return made


def _former_text(name: str) -> str:
    """Returns the text of a function that checksums.py lists."""
    path = functions.SOURCES.functions / f"{name}.sql"
    texts = [path.read_text("utf-8")] if path.exists() else []
    committed = subprocess.run(
        ["git", "show", f"HEAD:{path.relative_to(ROOT)}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    texts += [committed.stdout] if committed.returncode == 0 else []
    for text in texts:
        if functions.checksum(text) == FUNCTIONS[name][0]:
            return text
    raise ValueError(
        f"functions/{name}.sql and its last commit both differ from checksums.py: restore its text first"
    )


def main(words: list[str]) -> int:
    """Writes the migration that the arguments name."""
    try:
        made = make(words[0] if words else "", words[1:])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for path in made:
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
