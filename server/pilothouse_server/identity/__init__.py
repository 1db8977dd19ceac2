"""The noun identity: users, roles, grants, sessions, and the authentication of calls."""
