"""Calls that reach into the pods of a container."""
