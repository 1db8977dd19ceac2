"""`pilothouse serve` when it cannot start: one line with the reason, and nothing used up.

Also checks the files that it leaves on the disk.
"""

from __future__ import annotations

import re
import signal
import socket
import stat
from pathlib import Path

import psutil
import pytest

from pilothouse_server.cli.server import serve_plainly
from tests.conftest import Database
from tests.readme.served import Shell, serving

_PASSWORD = re.compile(r"password +(\S+)")


def variables(database: Database) -> dict[str, str]:
    return {
        "PILOTHOUSE_DATABASE_URL": database.app_dsn,
        "PILOTHOUSE_SYSTEM_DATABASE_URL": database.system_dsn,
        "PILOTHOUSE_MAINTENANCE_DATABASE_URL": database.maintenance_dsn,
    }


@pytest.mark.parametrize("name", ["LISTEN", "METRICS_LISTEN", "AUDIT_TILES_LISTEN"])
async def test_a_taken_address_is_reported_before_anything_is_made(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listening = {"PILOTHOUSE_LISTEN": "127.0.0.1:0", f"PILOTHOUSE_{name}": address}
        shell = Shell("", tmp_path, {**listening, "PILOTHOUSE_DATA_DIR": str(tmp_path / "data")})
        said = await shell.run("pilothouse serve --dev", succeeds=False)
    assert said.startswith(f"pilothouse: PILOTHOUSE_{name}: {address} cannot be listened on")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("there", ["a file", "a server"])
async def test_an_unusable_unix_socket_is_reported_before_anything_is_made(
    tmp_path: Path, there: str
) -> None:
    place = tmp_path / "a.sock"
    data = {"PILOTHOUSE_LISTEN": f"unix:{place}", "PILOTHOUSE_DATA_DIR": str(tmp_path / "data")}
    with socket.socket(socket.AF_UNIX) as serves:
        if there == "a file":
            place.write_text("what somebody keeps")
        else:
            serves.bind(str(place))
            serves.listen()
        why = (
            "a file of that name exists and is not a socket"
            if there == "a file"
            else "another program listens there"
        )
        said = await Shell("", tmp_path, data).run("pilothouse serve --dev", succeeds=False)
        assert said == f"pilothouse: PILOTHOUSE_LISTEN: unix:{place} cannot be listened on: {why}\n"
        assert place.is_socket() == (there == "a server")
    assert there == "a server" or place.read_text() == "what somebody keeps"
    assert not (tmp_path / "data").exists()


@pytest.mark.full(minutes=5)
async def test_a_taken_address_is_reported_and_uses_up_no_password(
    database: Database, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        shell = Shell("", tmp_path, {**variables(database), "PILOTHOUSE_LISTEN": listen})
        said = await shell.run("pilothouse serve", succeeds=False)
    assert f"PILOTHOUSE_LISTEN: {listen} cannot be listened on" in said
    assert "Traceback" not in said
    printed: list[str] = []
    async with serving("pilothouse serve", tmp_path, variables(database), printed) as address:
        shown = _PASSWORD.search("".join(printed))
        assert shown is not None
        shell = Shell(address, tmp_path)
        login = f"pilothouse login --server {address} --user admin --password-stdin"
        assert "logged in" in await shell.run(login, shown[1] + "\n")


@pytest.mark.full(minutes=5)
@pytest.mark.parametrize(
    ("end_by", "loop"), [(signal.SIGINT, "asyncio"), (signal.SIGTERM, "asyncio"), (signal.SIGTERM, "uvloop")]
)
async def test_a_server_in_the_background_ends_on_a_signal(
    database: Database, tmp_path: Path, end_by: signal.Signals, loop: str
) -> None:
    # A shell without job control ignores SIGINT in a process that it starts with `&`, and its child processes inherit
    # that.
    background = "sh -c 'trap \"\" INT TERM; exec pilothouse serve'"
    # It drains and exits with 0, or `serving` raises.
    chosen = {**variables(database), "PILOTHOUSE_EVENT_LOOP": loop}
    async with serving(background, tmp_path, chosen, end_by=end_by) as address:
        assert address


@pytest.mark.full(minutes=5)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LISTEN", "nonsense"),
        ("MAINTENANCE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none"),
        ("TLS_CERTIFICATE_FILE", "absent.pem"),
        ("EVENT_LOOP", "trio"),
    ],
)
async def test_an_unusable_setting_is_named(
    database: Database, tmp_path: Path, name: str, value: str
) -> None:
    changed = {f"PILOTHOUSE_{name}": value}
    if name.startswith("TLS"):
        changed["PILOTHOUSE_TLS_KEY_FILE"] = "absent.key"
    shell = Shell("", tmp_path, {"PILOTHOUSE_LISTEN": "127.0.0.1:0", **variables(database), **changed})
    said = await shell.run("pilothouse serve", succeeds=False)
    assert f"PILOTHOUSE_{name}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--processes"], ["--processes", "x"], ["--processes=2"], ["--dev", "--nonsense"], ["more"]],
)
def test_unusual_command_lines_are_left_to_the_parser(words: list[str]) -> None:
    assert not serve_plainly(words)


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("pilothouse serve", 2, "PILOTHOUSE_DATABASE_URL must be set"),
        ("pilothouse serve --processes 65", 2, "PILOTHOUSE_PROCESSES must be from 1 to 64"),
        ("pilothouse serve --nonsense", 2, "nonsense"),
        (
            "PILOTHOUSE_DIRECT_DATABASE_URL=postgresql://a@127.0.0.1/b pilothouse serve",
            2,
            "also needs PILOTHOUSE_SYSTEM_DATABASE_URL and PILOTHOUSE_MAINTENANCE_DATABASE_URL",
        ),
    ],
)
async def test_an_invalid_command_line_is_reported(tmp_path: Path, line: str, code: int, words: str) -> None:
    said = await Shell("", tmp_path).run(f"{line} || test $? = {code}")
    assert words in said
    assert "Traceback" not in said


@pytest.mark.full(minutes=5)
async def test_a_server_loads_only_the_libraries_it_needs(database: Database, tmp_path: Path) -> None:
    """Each of these takes megabytes: the command parser, the modules that decrypt secrets, and those that connect to
    clusters.
    """
    async with serving("pilothouse serve", tmp_path, variables(database)) as address:
        port = int(address.rpartition(":")[2])
        # Only child processes of this one: another program may use the same port of another address.
        loaded = " ".join(
            each.path
            for child in psutil.Process().children()
            if any(found.laddr.port == port for found in child.net_connections("tcp"))
            for each in child.memory_maps()
        )
    assert "cygrpc" in loaded, "libraries are seen"
    assert [
        name for name in ("pydantic_core", "aiohttp", "cryptography", "greenlet") if f"/{name}/" in loaded
    ] == []


@pytest.mark.full(minutes=5)
async def test_the_data_directory_is_closed_to_other_users(tmp_path: Path) -> None:
    """PostgreSQL is in it too, as another user if root starts the server."""
    folder = tmp_path / "data"
    async with serving("pilothouse serve --dev", tmp_path, {"PILOTHOUSE_DATA_DIR": str(folder)}):
        pass
    made = {path.name: path.stat().st_mode for path in (folder, *folder.iterdir())}
    assert made.keys() == {"data", "cluster.json", "database-position.json", "master.key", "postgres"}
    open_to_others = [f"{stat.filemode(mode)} {name}" for name, mode in made.items() if mode & 0o077]
    assert not open_to_others
