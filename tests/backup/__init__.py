"""Backups: created, refused, restored, created on schedule."""
