"""Reports of nodes about images, written to the rows of the images that containers use.

A later pull of a tag may get another digest. So each digest is a row of its own: the container points to the row of its
main program, and `program_images` to the rows of its other programs. That does not change the desired state: the
requested images are in the container's document.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.store.unit_of_work import Transaction


class ImageSeen(msgspec.Struct, frozen=True):
    """The image that a container's pods run for the desired `image`; unknown parts are None.

    `program`: the sidecar or init container that runs it; empty for the main program.
    """

    container_id: int
    image: str
    digest: str
    size_bytes: int | None = None
    architecture: str | None = None
    os: str | None = None
    program: str = ""


# Locks containers in the order in which all transactions lock them, and before the images.
_LOCK = text("SELECT FROM containers WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR NO KEY UPDATE")
# All observers create and change rows in one order, because several may report the same images concurrently.
_SEEN = text("""
WITH reported AS (
    SELECT * FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
        container_id bigint, program text, image text, digest text, size_bytes bigint, architecture text, os text)),
desired AS (
    -- The desired image may have changed since.
    SELECT r.*, c.image_id FROM reported AS r
    JOIN containers AS c ON c.id = r.container_id AND c.spec ->> 'image' = r.image WHERE r.program = ''
    UNION ALL
    SELECT r.*, p.image_id FROM reported AS r
    JOIN program_images AS p ON p.container_id = r.container_id AND p.program = r.program AND p.image = r.image),
seen AS (
    SELECT d.*, i.repository, i.name, i.tag FROM desired AS d JOIN container_images AS i ON i.id = d.image_id),
known AS (
    INSERT INTO container_images AS i (repository, name, tag, digest, size_bytes, architecture, os)
    SELECT DISTINCT ON (repository, name, tag, digest)
        repository, name, tag, digest, size_bytes, architecture, os
    FROM seen ORDER BY repository, name, tag, digest, size_bytes NULLS LAST
    ON CONFLICT ON CONSTRAINT uq_container_images_reference DO UPDATE
    SET size_bytes = COALESCE(EXCLUDED.size_bytes, i.size_bytes),
        architecture = COALESCE(EXCLUDED.architecture, i.architecture), os = COALESCE(EXCLUDED.os, i.os),
        status = 'available'
    RETURNING id, repository, name, tag, digest),
moved AS (
    SELECT seen.container_id, seen.program, seen.image, known.id AS image_id
    FROM seen JOIN known ON known.repository IS NOT DISTINCT FROM seen.repository AND known.name = seen.name
        AND known.tag IS NOT DISTINCT FROM seen.tag AND known.digest = seen.digest
    WHERE known.id <> seen.image_id),
others AS (
    UPDATE program_images AS p SET image_id = moved.image_id FROM moved
    WHERE p.container_id = moved.container_id AND p.program = moved.program AND p.image = moved.image)
UPDATE containers AS c SET image_id = moved.image_id
FROM moved
WHERE c.id = moved.container_id AND moved.program = '' AND c.image_id <> moved.image_id
""")

_FAILED = text("""
WITH failed AS (
    SELECT i.id FROM container_images AS i
    WHERE i.status = 'available' AND i.id IN (
        SELECT coalesce(p.image_id, c.image_id)
        FROM unnest(CAST(:container_ids AS bigint[]), CAST(:programs AS text[]), CAST(:images AS text[]))
            AS r(id, program, image)
        LEFT JOIN containers AS c ON c.id = r.id AND r.program = '' AND c.spec ->> 'image' = r.image
        LEFT JOIN program_images AS p ON p.container_id = r.id AND p.program = r.program AND p.image = r.image)
    ORDER BY i.repository, i.name, i.tag, i.digest FOR NO KEY UPDATE OF i)
UPDATE container_images AS i SET status = 'error' FROM failed WHERE i.id = failed.id
""")


async def write_seen(transaction: Transaction, seen: Sequence[ImageSeen]) -> None:
    """Records the images that the pods of these containers run."""
    await transaction.connection.execute(_LOCK, {"ids": [each.container_id for each in seen]})
    rows = orjson.dumps([msgspec.to_builtins(each) for each in seen]).decode()
    await transaction.connection.execute(_SEEN, {"rows": rows})


async def write_failed(transaction: Transaction, failed: Sequence[tuple[int, str, str]]) -> None:
    """Records images that cannot be pulled: container id, program, and desired image."""
    container_ids, programs, images = (list(each) for each in zip(*failed, strict=True))
    parameters = {"container_ids": container_ids, "programs": programs, "images": images}
    await transaction.connection.execute(_FAILED, parameters)
