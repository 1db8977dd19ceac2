"""What Pilothouse brings along so that it runs with nothing installed beside it: a PostgreSQL of its own."""
