"""The noun identity: users, roles, grants, sessions, and who a token belongs to."""
