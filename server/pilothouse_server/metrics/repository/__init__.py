"""SQL for usage and for the state of the database, by purpose."""
