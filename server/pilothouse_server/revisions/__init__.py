"""Revisions: the newest desired states of a resource, each stored whole. Each noun says what its own contain."""
