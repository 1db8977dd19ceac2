"""Conventions of this project, each one a failing check (`make lint` runs them all)."""
