"""Reports of nodes about images, written to the rows of the images that containers use.

A tag means another digest after another pull, so a digest is a row of its own, to which the container points. That does
not change the desired state: the requested image is in the container's document.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import orjson
from sqlalchemy import text

from pilothouse_server.store.unit_of_work import Transaction


class ImageSeen(msgspec.Struct, frozen=True):
    """The image that a container's pods run in place of the desired `image`; unknown parts are None."""

    container_id: int
    image: str
    digest: str
    size_bytes: int | None = None
    architecture: str | None = None
    os: str | None = None


# All observers create rows in one order, because several may see the same images concurrently.
_SEEN = text("""
WITH seen AS (
    SELECT r.*, i.repository, i.name, i.tag
    FROM jsonb_to_recordset(CAST(CAST(:rows AS text) AS jsonb)) AS r(
        container_id bigint, image text, digest text, size_bytes bigint, architecture text, os text)
    -- The desired image may have changed since.
    JOIN containers AS c ON c.id = r.container_id AND c.spec ->> 'image' = r.image
    JOIN container_images AS i ON i.id = c.image_id),
known AS (
    INSERT INTO container_images AS i (repository, name, tag, digest, size_bytes, architecture, os)
    SELECT DISTINCT ON (repository, name, tag, digest)
        repository, name, tag, digest, size_bytes, architecture, os
    FROM seen ORDER BY repository, name, tag, digest, size_bytes NULLS LAST
    ON CONFLICT ON CONSTRAINT uq_container_images_reference DO UPDATE
    SET size_bytes = COALESCE(EXCLUDED.size_bytes, i.size_bytes),
        architecture = COALESCE(EXCLUDED.architecture, i.architecture), os = COALESCE(EXCLUDED.os, i.os),
        status = 'available'
    RETURNING id, repository, name, tag, digest)
UPDATE containers AS c SET image_id = known.id
FROM seen JOIN known ON known.repository IS NOT DISTINCT FROM seen.repository AND known.name = seen.name
    AND known.tag IS NOT DISTINCT FROM seen.tag AND known.digest = seen.digest
WHERE c.id = seen.container_id AND c.image_id <> known.id
    -- The present row decides, after a concurrent change of it has committed.
    AND c.spec ->> 'image' = seen.image
""")

_FAILED = text("""
UPDATE container_images SET status = 'error'
WHERE status = 'available'
  AND id IN (SELECT c.image_id FROM unnest(CAST(:container_ids AS bigint[]), CAST(:images AS text[])) AS r(id, image)
             JOIN containers AS c ON c.id = r.id AND c.spec ->> 'image' = r.image)
""")


async def write_seen(transaction: Transaction, seen: Sequence[ImageSeen]) -> None:
    """Records the images that the pods of these containers run."""
    if seen:
        rows = orjson.dumps([msgspec.to_builtins(each) for each in seen]).decode()
        await transaction.connection.execute(_SEEN, {"rows": rows})


async def write_failed(transaction: Transaction, failed: Sequence[tuple[int, str]]) -> None:
    """Records that the desired images of these containers, by id, cannot be pulled."""
    if failed:
        parameters = {"container_ids": [each for each, _ in failed], "images": [image for _, image in failed]}
        await transaction.connection.execute(_FAILED, parameters)
