"""The account of an embedded program, and the command line that switches to it.

PostgreSQL refuses to run as root. If root starts the server, PostgreSQL therefore runs as an unprivileged account. That
account could enter neither a 0700 folder of root's with its data nor a virtual environment below such a folder with its
programs. Opening those folders to everybody would expose their other content. So the program gets one capability
instead, to bypass file permissions, and no other privilege of root's. PostgreSQL checks its own programs by
`access(2)`, which respects the capability only if the kernel does not clear it for users other than root.

`setpriv` (util-linux, part of every Debian) changes the account. It also sets the signal that the program
gets when its parent dies. This must come after the change of account, which clears that setting.
"""

from __future__ import annotations

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

# Accounts for a program that root starts, in order of preference. The second exists everywhere.
UNPRIVILEGED = ("postgres", "nobody")
FILE_CAPABILITY = "+dac_override"


@dataclass(frozen=True)
class ProcessAccount:
    """The user and group that an embedded program runs as.

    `changed` is True if they are not those of this process.
    """

    user_id: int
    group_id: int
    changed: bool

    @classmethod
    def choose(cls, owner_of: Path) -> ProcessAccount:
        """Returns this process's own account, or another one under root.

        Under root it is the owner of the existing data `owner_of`, or an unprivileged account if there is no data yet
        or root owns it.

        Raises:
            LookupError: under root, if none of the accounts in `UNPRIVILEGED` exists.
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
        """Returns the words to put before a command so that it runs as this account.

        `dies_with_parent_by` names the signal (as in "INT") that the program gets when the thread that
        started it ends. So start the program from the main thread, which lives as long as the process.

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
        """Makes this account the owner of `path`, unless it is that of this process."""
        if self.changed:
            os.chown(path, self.user_id, self.group_id)
