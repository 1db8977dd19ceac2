"""All SQL about usage and about the database itself, by purpose."""
