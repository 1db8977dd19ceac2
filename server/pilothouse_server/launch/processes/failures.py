"""The text for a failure: one line if it is known, both in the command and in a server process.

Any other exception is a fault of the program, and shows where it happened.
"""

from __future__ import annotations


def words_of(error: BaseException) -> str | None:
    """Returns the text for a known failure, else None."""
    # Imported only after a failure: a supervisor does not need these modules otherwise.
    from pilothouse_migrations.databases import DatabaseRefusedError
    from pilothouse_migrations.schema import MigrationError
    from pilothouse_migrations.versions_gate import UnsupportedServerError
    from pilothouse_server.errors import PilothouseError
    from pilothouse_server.kubernetes.errors import ClusterError
    from pilothouse_server.runtime.child_program import EmbeddedProgramError
    from pilothouse_server.values.database_address import tls_problem

    if isinstance(error, DatabaseRefusedError):
        return f"the database refused: {error.orig}"
    if problem := tls_problem(error):
        return problem
    # SettingsError is a ValueError.
    known = (
        PilothouseError,
        MigrationError,
        UnsupportedServerError,
        EmbeddedProgramError,
        ClusterError,
        ValueError,
        OSError,
    )
    return str(error) if isinstance(error, known) else None
