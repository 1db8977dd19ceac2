"""The rules of config maps and secrets, and of the keys that encrypt secrets."""
