"""`pilothouse protos`: writes the proto files of the API as a module for buf, from which others generate stubs.

The files import only each other and the well-known types of protobuf, which every generator has.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import pilothouse_client
from pilothouse_client.commands import verbs
from pilothouse_client.commands.failures import CommandError
from pilothouse_client.commands.terminal import say

_BUF = """\
version: v2
modules:
  - path: .
"""


def _source() -> Path:
    """Returns the directory of the files: next to the client in an installed wheel, else in the repository."""
    package = Path(pilothouse_client.__file__).parent
    installed = package / "protos"
    return installed if installed.is_dir() else package.parents[1] / "protos"


def command(
    folder: Annotated[Path, verbs.Argument(help="Folder to write to; files of the same names are replaced.")],
) -> None:
    """Write the proto files of the API into a folder, as a module for buf."""
    source = _source() / "pilothouse"
    try:
        files = sorted(source.rglob("*.proto"))
        for file in files:
            target = folder / "pilothouse" / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        (folder / "buf.yaml").write_text(_BUF, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write to {folder}: {error.strerror}") from error
    say(f"{len(files)} files in {folder}")
