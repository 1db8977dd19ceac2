"""An embedded PostgreSQL, so that Pilothouse runs without any other installation."""
