"""Connections to addresses that callers name: which are allowed, and their bounds."""
