"""The images of sidecars and init containers.

ListImages shows them next to those of the main programs. A trigger writes the rows in the transaction that writes the
container's document, also for servers of 0.2.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0114"
down_revision = "0113"
branch_labels = None
depends_on = None
# The oldest release that may run on the schema after this migration.
serves_from = "0.2.0"
# Functions that this migration replaces, creates or drops.
replaces = ("write_program_images", "keep_program_images")
# Tables that are altered, or whose indexes are dropped. The runner locks them first.
locks = ("containers", "container_images")


def upgrade() -> None:
    statements.run("""
CREATE TABLE program_images (
    container_id bigint NOT NULL,
    namespace_id bigint NOT NULL,
    program varchar(63) NOT NULL,
    image varchar(1000) NOT NULL,
    image_id bigint NOT NULL,
    CONSTRAINT pk_program_images PRIMARY KEY (container_id, program),
    CONSTRAINT fk_program_images_container
        FOREIGN KEY (container_id, namespace_id) REFERENCES containers(id, namespace_id) ON DELETE CASCADE,
    CONSTRAINT fk_program_images_image FOREIGN KEY (image_id) REFERENCES container_images(id)
);
CREATE INDEX idx_program_images_container ON program_images (container_id, namespace_id);
CREATE INDEX idx_program_images_namespace_id ON program_images (namespace_id);
CREATE INDEX idx_program_images_image_id ON program_images (image_id);

COMMENT ON TABLE program_images IS
    'Images of sidecars and init containers; that of the main program is in the row of its container.';
COMMENT ON COLUMN program_images.container_id IS 'The container it belongs to.';
COMMENT ON COLUMN program_images.namespace_id IS 'The namespace it belongs to.';
COMMENT ON COLUMN program_images.program IS 'Name of the program in its pods.';
COMMENT ON COLUMN program_images.image IS 'The image as the container has it.';
COMMENT ON COLUMN program_images.image_id IS 'The image it runs.';

ALTER TABLE program_images ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY program_images_access_policy ON program_images TO pilothouse_app
    USING ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]))
    WITH CHECK ((SELECT app_sees_all()) OR namespace_id = ANY ((SELECT app_namespace_ids())::bigint[]));
CREATE POLICY program_images_system_policy ON program_images TO pilothouse_system USING (true) WITH CHECK (true);
GRANT SELECT ON program_images TO pilothouse_app;
GRANT SELECT, UPDATE ON program_images TO pilothouse_system;

ALTER POLICY container_images_visible_policy ON container_images
    USING ((SELECT app_sees_all())
        OR EXISTS (SELECT FROM containers AS c WHERE c.image_id = container_images.id)
        OR EXISTS (SELECT FROM program_images AS p WHERE p.image_id = container_images.id));
""")
    statements.replace_functions(revision)
    statements.run("""
CREATE TRIGGER keep_program_images
    AFTER INSERT ON containers
    FOR EACH ROW
    WHEN (new.spec ?| ARRAY['sidecars', 'init_containers'])
    EXECUTE FUNCTION keep_program_images();
CREATE TRIGGER keep_changed_program_images
    AFTER UPDATE OF spec ON containers
    FOR EACH ROW
    WHEN (old.spec -> 'sidecars' IS DISTINCT FROM new.spec -> 'sidecars'
        OR old.spec -> 'init_containers' IS DISTINCT FROM new.spec -> 'init_containers')
    EXECUTE FUNCTION keep_program_images();

SELECT write_program_images(c.id, c.namespace_id, c.spec) FROM containers AS c
WHERE c.spec ?| ARRAY['sidecars', 'init_containers'] ORDER BY c.id;
""")


def downgrade() -> None:
    statements.run("""
DROP TRIGGER keep_changed_program_images ON containers;
DROP TRIGGER keep_program_images ON containers;
ALTER POLICY container_images_visible_policy ON container_images
    USING ((SELECT app_sees_all()) OR EXISTS (SELECT FROM containers AS c WHERE c.image_id = container_images.id));
DROP TABLE program_images;
""")
    statements.restore_functions(revision)
