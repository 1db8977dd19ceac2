"""Backups of the database: made, listed, verified, restored, and made on schedule.

A backup is a folder that gets its name when it is complete::

    pilothouse-20261127T080000Z/
        database.dump              pg_dump's custom format; encrypted: database.dump.sealed
        master.key.sealed          the key file of secrets, if requested; always encrypted
        manifest.json              its contents and requirements, with size and SHA-256 of the files above
        SHA256SUMS                 of the manifest and of all files, as `sha256sum --check` reads it

`making` creates one, `verifying` reads one back, `restoring` restores one into an empty database, `schedule` is the
periodic job. `manifests` has the form, `sealing` the encryption, `programs` finds pg_dump, pg_restore and psql,
`repository` has the SQL.
"""
