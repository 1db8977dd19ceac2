"""The noun container: tables, repository, operations, messages, service."""
