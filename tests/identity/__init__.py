"""Tests of the noun identity, most of them through a real server."""
