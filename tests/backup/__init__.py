"""Backups: made, refused, restored, made on schedule."""
