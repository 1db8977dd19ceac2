"""Permissions: which caller holds which permission, and why a call is refused. Pure rules, no database or gRPC."""
