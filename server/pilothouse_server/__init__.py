"""Pilothouse server: a gRPC control plane for container platforms on Kubernetes."""
