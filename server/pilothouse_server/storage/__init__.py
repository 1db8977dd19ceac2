"""Volumes: claims of storage, and what else containers can mount."""
