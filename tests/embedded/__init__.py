"""Tests of what the server brings along."""
