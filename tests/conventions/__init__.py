"""Conventions of this project: each is a check that can fail (`make lint` runs them all)."""
