"""The noun service: tables, repository, operations, messages, gRPC service, and its form on a cluster."""
