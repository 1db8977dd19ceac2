"""A variable may show a request or a limit of a program.

The constraints stay NOT VALID: they allow more than the former ones, so the existing rows satisfy them.
"""

from __future__ import annotations

from pilothouse_migrations import statements

revision = "0102"
down_revision = "0101"
branch_labels = None
depends_on = None
serves_from = "0.2.0"
replaces = ()
locks = ("environment_variables",)


def upgrade() -> None:
    statements.run("""
        ALTER TABLE environment_variables
            DROP CONSTRAINT ck_environment_variables_source,
            DROP CONSTRAINT ck_environment_variables_value_from,
            ADD CONSTRAINT ck_environment_variables_source
                CHECK (CASE value_from
                    WHEN 'literal' THEN source_name IS NULL AND source_key IS NULL
                    WHEN 'field_ref' THEN value IS NULL AND source_name IS NULL AND source_key IS NOT NULL
                    WHEN 'resource_field_ref' THEN source_key IS NOT NULL
                    ELSE value IS NULL AND source_name IS NOT NULL AND source_key IS NOT NULL END) NOT VALID,
            ADD CONSTRAINT ck_environment_variables_value_from
                CHECK (value_from IN ('literal', 'config_map', 'secret', 'field_ref', 'resource_field_ref')) NOT VALID;
        COMMENT ON COLUMN environment_variables.value IS 'Literal value, or the divisor of an amount.';
        COMMENT ON COLUMN environment_variables.source_name IS
            'The config map or secret, or the program whose amount it shows; null: its own.';
        COMMENT ON COLUMN environment_variables.source_key IS
            'Key in the config map or secret, or the path of a field reference or of an amount.';
    """)


def downgrade() -> None:
    statements.run("""
        DELETE FROM environment_variables WHERE value_from = 'resource_field_ref';
        ALTER TABLE environment_variables
            DROP CONSTRAINT ck_environment_variables_source,
            DROP CONSTRAINT ck_environment_variables_value_from,
            ADD CONSTRAINT ck_environment_variables_source
                CHECK (CASE value_from
                    WHEN 'literal' THEN source_name IS NULL AND source_key IS NULL
                    WHEN 'field_ref' THEN value IS NULL AND source_name IS NULL AND source_key IS NOT NULL
                    ELSE value IS NULL AND source_name IS NOT NULL AND source_key IS NOT NULL END),
            ADD CONSTRAINT ck_environment_variables_value_from
                CHECK (value_from IN ('literal', 'config_map', 'secret', 'field_ref'));
        COMMENT ON COLUMN environment_variables.value IS 'Literal value.';
        COMMENT ON COLUMN environment_variables.source_name IS 'The config map or secret.';
        COMMENT ON COLUMN environment_variables.source_key IS
            'Key in the config map or secret, or the path of a field reference.';
    """)
