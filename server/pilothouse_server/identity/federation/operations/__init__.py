"""The rules of federation."""
