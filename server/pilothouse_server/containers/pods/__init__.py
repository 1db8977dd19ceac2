"""Calls that access the pods of a container."""
