"""The noun service: tables, repository, operations, messages, gRPC service, and the Services on a cluster."""
