"""Revisions: the newest desired states of a resource, each stored whole in the form of its noun."""
