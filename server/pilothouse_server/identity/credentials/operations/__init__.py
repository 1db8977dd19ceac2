"""The rules of credentials."""
