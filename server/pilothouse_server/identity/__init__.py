"""The noun identity: users, roles, grants, sessions, and the owner of a token."""
