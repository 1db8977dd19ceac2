"""Volumes: claims of storage, and the other types of volumes that containers can mount."""
