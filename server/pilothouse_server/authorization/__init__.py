"""Permissions: which caller holds which, and why a call is refused. Pure rules, without database or gRPC."""
