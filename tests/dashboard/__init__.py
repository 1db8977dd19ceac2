"""Calls about several nouns."""
