"""Which account an embedded program runs under, and the command line that puts it there.

PostgreSQL refuses to run as root. Started by root it therefore runs as an unprivileged account, which could enter
neither a 0700 folder of root's that holds its data nor a virtual environment below one that holds its programs.
Opening those folders to everybody would expose their other content. So the program gets one capability instead, for
passing file permissions, and no other power of root's. It counts in `access(2)`, by which PostgreSQL checks its own
programs, only if the kernel does not clear it for users other than root.

`setpriv` (util-linux, part of every Debian) changes the account. It also sets the signal that the program
gets when its parent dies, in the one place where that holds: after the change of account, which clears it.
"""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

# Accounts that a program started by root may take, in order of preference. The second exists everywhere.
UNPRIVILEGED = ("postgres", "nobody")
FILE_CAPABILITY = "+dac_override"


@dataclass(frozen=True)
class ProcessAccount:
    """The user and group that an embedded program runs as. `changed`: they are not those of this process."""

    user_id: int
    group_id: int
    changed: bool

    @classmethod
    def choose(cls, owner_of: Path) -> ProcessAccount:
        """This process's own account; under root, the owner of the existing data `owner_of`, or an
        unprivileged account for data yet to be made.

        Raises:
            LookupError: under root, where none of the accounts in `UNPRIVILEGED` exists.
        """
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), changed=False)
        if owner_of.exists() and owner_of.stat().st_uid != 0:
            owner = owner_of.stat()
            return cls(owner.st_uid, owner.st_gid, changed=True)
        for name in UNPRIVILEGED:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid, changed=True)
        raise LookupError(f"PostgreSQL does not run as root, and none of the users {UNPRIVILEGED} exists")

    def command(self, *, dies_with_parent_by: str | None = None) -> list[str]:
        """The words to put before a command so that it runs as this account.

        `dies_with_parent_by` names the signal (as in "INT") that the program gets when the thread that
        started it ends: start it from a thread that lives as long as the process, the main one.

        Raises:
            FileNotFoundError: `setpriv` is needed and not installed.
        """
        options: list[str] = []
        if self.changed:
            options += [f"--reuid={self.user_id}", f"--regid={self.group_id}", "--clear-groups"]
            options += [f"--inh-caps={FILE_CAPABILITY}", f"--ambient-caps={FILE_CAPABILITY}"]
            options.append("--securebits=+no_setuid_fixup")
        if dies_with_parent_by is not None:
            options.append(f"--pdeathsig={dies_with_parent_by}")
        if not options:
            return []
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise FileNotFoundError("setpriv is missing: apt-get install util-linux")
        return [setpriv, *options, "--"]

    def own(self, path: Path) -> None:
        """Gives `path` to this account where it is not that of this process."""
        if self.changed:
            os.chown(path, self.user_id, self.group_id)
