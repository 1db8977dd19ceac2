"""All SQL about users, roles, grants, sessions and failed log-ins, one module each."""
