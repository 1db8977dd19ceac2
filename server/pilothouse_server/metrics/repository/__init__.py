"""All SQL about usage and about the database itself, by what it is for."""
