"""The rules of users, roles, grants, sessions and log-in, one module each."""
