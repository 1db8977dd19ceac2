"""Tests of the noun identity, most of them with a real server."""
