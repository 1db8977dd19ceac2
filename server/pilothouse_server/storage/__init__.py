"""Volumes: claims of storage, and other things that containers can mount."""
