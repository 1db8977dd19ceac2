"""rsyslog as Debian packages it, which receives lines over TLS with GnuTLS and writes them to a file."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import started
from tests.waiting import poll_until

_PROGRAM = shutil.which("rsyslogd", path="/usr/sbin:/usr/local/sbin")
needs_rsyslog = pytest.mark.skipif(
    _PROGRAM is None or not list(Path("/usr/lib").glob("*/rsyslog/lmnsd_gtls.so")),
    reason="needs Debian's rsyslog and rsyslog-gnutls",
)
_SETTINGS = """
global(workDirectory="{folder}" maxMessageSize="256k" defaultNetstreamDriver="gtls"
    defaultNetstreamDriverCAFile="{folder}/certificate" defaultNetstreamDriverCertFile="{folder}/certificate"
    defaultNetstreamDriverKeyFile="{folder}/key")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{folder}/port")
template(name="raw" type="string" string="%rawmsg%\\n")
action(type="omfile" file="{folder}/lines" template="raw")
"""


@dataclass(frozen=True, slots=True)
class Rsyslog:
    """A running rsyslog: its address, and the lines that it has written."""

    address: str
    file: Path

    async def lines(self) -> list[bytes]:
        """Returns the complete lines."""
        return self.file.read_bytes().split(b"\n")[:-1] if self.file.exists() else []


@asynccontextmanager
async def rsyslog(folder: Path, certificate: str, key: str) -> AsyncIterator[Rsyslog]:
    """Runs a receiver on its own port."""
    assert _PROGRAM is not None
    for name, text in (
        ("certificate", certificate),
        ("key", key),
        ("settings", _SETTINGS.format(folder=folder)),
    ):
        (folder / name).write_text(text)
    port = folder / "port"

    async def listens() -> str:
        return port.read_text().strip() if port.exists() else ""

    with (folder / "said").open("wb") as said:
        words = (_PROGRAM, "-n", "-f", str(folder / "settings"), "-i", str(folder / "pid"))
        async with started(*words, stdout=said, stderr=asyncio.subprocess.STDOUT):
            number = await poll_until(listens, what="a port of rsyslog")
            yield Rsyslog(f"tls://127.0.0.1:{number}", folder / "lines")
