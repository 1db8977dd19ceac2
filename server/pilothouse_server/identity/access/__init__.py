"""Roles, grants, and what they permit: who may do what, and why."""
