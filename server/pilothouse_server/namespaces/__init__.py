"""The noun namespace: tables, repository, operations, messages, service."""
