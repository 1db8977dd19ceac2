"""A PostgreSQL of its own, so that Pilothouse runs without any other installation."""
