"""How strictly the identity of a database is verified, given only its URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilothouse_server.settings.model import SettingsError, load
from pilothouse_server.values import InvalidValueError, database_address
from pilothouse_server.values.database_address import secured, weakness

_NOBODY = {"HOME": "/nowhere"}


@pytest.mark.parametrize(
    "place",
    [
        "postgresql:///db?host=/run/postgresql",
        "postgresql://u:p@/db?host=%2Frun%2Fpostgresql&port=5433",
        "postgresql://u@localhost/db",
        "postgres://u@LOCALHOST.:5432/db",
        "postgresql://u:p@127.1.2.3:1/db",
        "postgresql://u:p%40ss@[::1]:5432/db?application_name=x",
        "postgresql://%2Frun%2Fpostgresql/db",
        "postgresql://",
    ],
)
def test_a_database_on_this_machine_needs_no_verification(place: str) -> None:
    assert secured(place, "ca.pem", _NOBODY) == place
    assert weakness(place, _NOBODY) == ""


@pytest.mark.parametrize(
    "place",
    [
        "postgresql://u:p@db.example/db",
        "postgresql://u:p@10.0.0.5:5432/db",
        "postgresql://u:p@[fd00::1]/db",
        "postgresql://u:p@localhost.example/db",
        "postgresql://u:p@localhost:1,db.example:2/db",
        "postgresql:///db?host=db.example",
        "postgresql:///db?host=/run,db.example",
        "postgresql://u:p%40localhost@db/db?application_name=x",
        "postgresql+asyncpg://db/db",
    ],
)
def test_a_database_on_another_machine_is_verified(place: str) -> None:
    found = secured(place, "/etc/db ca.pem", _NOBODY)
    assert found.startswith(place)
    assert found.removeprefix(place)[1:] == "sslmode=verify-full&sslrootcert=/etc/db%20ca.pem"
    assert secured(found, "other.pem", _NOBODY) == found
    assert weakness(place, _NOBODY) == "prefer"
    assert weakness(found, _NOBODY) == ""


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca"])
def test_an_explicit_sslmode_is_kept(mode: str) -> None:
    place = f"postgresql://u@db.example/db?sslmode={mode}"
    added = "&sslrootcert=ca.pem" if mode == "verify-ca" else ""
    assert secured(place, "ca.pem", _NOBODY) == place + added
    assert weakness(place, _NOBODY) == mode
    environment = {**_NOBODY, "PGSSLMODE": mode}
    assert "sslmode" not in secured("postgresql://u@db.example/db", "ca.pem", environment)
    assert weakness("postgresql://u@db.example/db", environment) == mode


def test_authorities_are_taken_from_url_environment_or_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "postgresql://u@db.example/db?sslmode=verify-full"
    own = f"{place}&sslrootcert=mine.pem"
    assert secured(own, "ca.pem", _NOBODY) == own
    assert secured(place, "ca.pem", {**_NOBODY, "PGSSLROOTCERT": "env.pem"}) == place
    assert secured("postgresql://u@db.example/db", "", {"PGHOST": "x", **_NOBODY}).count("sslrootcert=/") == 1
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").touch()
    assert secured(place, "", {"HOME": str(tmp_path)}) == place
    # `system` is valid for libpq, but the driver does not support it.
    bundle = secured("postgresql://u@db.example/db?sslrootcert=system&port=1", "", _NOBODY)
    assert bundle.startswith("postgresql://u@db.example/db?port=1&sslmode=verify-full&sslrootcert=/")
    monkeypatch.setattr(database_address, "_BUNDLES", ())
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(InvalidValueError, match="PILOTHOUSE_DATABASE_CA_FILE"):
        secured(place, "", _NOBODY)
    with pytest.raises(SettingsError, match="PILOTHOUSE_REPLICA_DATABASE_URL: no authority can verify"):
        load({"PILOTHOUSE_REPLICA_DATABASE_URL": place, **_NOBODY})


def test_all_database_urls_of_the_settings_are_secured() -> None:
    names = (
        "DATABASE_URL",
        "SYSTEM_DATABASE_URL",
        "MAINTENANCE_DATABASE_URL",
        "DIRECT_DATABASE_URL",
        "REPLICA_DATABASE_URL",
    )
    given = {f"PILOTHOUSE_{name}": f"postgresql://u@{name.lower().replace('_', '-')}/db" for name in names}
    settings = load({**given, "PILOTHOUSE_DATABASE_CA_FILE": "ca.pem", **_NOBODY})
    for name in names:
        assert getattr(settings, name.lower()).endswith("?sslmode=verify-full&sslrootcert=ca.pem"), name
