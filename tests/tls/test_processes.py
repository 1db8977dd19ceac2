"""Several processes on two addresses, with client certificates.

Each process loads a renewed certificate and authenticates client certificates.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_client import AsyncClient, Tls
from pilothouse_server.launch.processes.supervisor import Processes
from tests.client.certificates import made
from tests.conftest import Database
from tests.harness import NOWHERE, settings_for
from tests.tls.serving import Files, shown
from tests.waiting import poll_until

# This many new connections in a row miss one of two processes once in 30,000 runs.
_CONNECTIONS = 16


@pytest.mark.full
async def test_each_process_loads_renewals_and_requests_certificates(
    database: Database, tmp_path: Path
) -> None:
    files, authority = Files(tmp_path, made("servers", authority=True)), made("clients", authority=True)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "users").write_text("dns admin.example admin\n")
    files.renew()
    settings = settings_for(
        database,
        tmp_path / "data",
        processes=2,
        tls_certificate_file=files.certificate,
        tls_key_file=files.key,
        tls_client_ca_file=tmp_path / "ca.pem",
        tls_client_users_file=tmp_path / "users",
        tls_client_listen="127.0.0.1:0",
    )
    server = Processes(settings, {"local": NOWHERE})
    try:
        ports = (await server.start(), server.asking_port)
        assert None not in ports
        renewed = files.renew().certificate.serial_number
        for port in ports:

            async def all_show_it(address: str = f"127.0.0.1:{port}") -> bool:
                return {await shown(address) for _ in range(_CONNECTIONS)} == {renewed}

            await poll_until(all_show_it)
        own = made("admin.example", by=authority)
        tls = Tls(files.authority.pem, own.pem, own.key_pem)
        for _ in range(_CONNECTIONS):
            async with AsyncClient(f"127.0.0.1:{ports[1]}", tls=tls) as client:
                assert (await client.identity.who_am_i()).user.username == "admin"
    finally:
        await server.stop()
