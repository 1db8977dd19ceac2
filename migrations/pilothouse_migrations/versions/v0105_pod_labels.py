"""Pods have their own labels and annotations; those of existing containers stay as they are."""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0105"
down_revision = "0104"
branch_labels = None
depends_on = None
serves_from = "0.2.0"
replaces = ()
locks = ()


def upgrade() -> None:
    statements.run("""
        UPDATE containers AS c
        SET spec = spec || CASE
            WHEN spec -> 'taken_over' IS NULL
                THEN jsonb_build_object('pod_labels', labels, 'pod_annotations', annotations)
            ELSE jsonb_build_object(
                'pod_labels', coalesce((
                    SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(spec -> 'taken_over' -> 'pod_labels') AS e
                    WHERE e.key NOT LIKE 'pilothouse.dev/%'), '{}'),
                'pod_annotations', coalesce((
                    SELECT jsonb_object_agg(e.key, e.value)
                    FROM jsonb_each(spec -> 'taken_over' -> 'pod_annotations') AS e
                    WHERE e.key NOT LIKE 'pilothouse.dev/%'), '{}'))
            END
        WHERE spec -> 'pod_labels' IS NULL;
    """)


def downgrade() -> None:
    statements.run("UPDATE containers SET spec = spec - 'pod_labels' - 'pod_annotations';")
