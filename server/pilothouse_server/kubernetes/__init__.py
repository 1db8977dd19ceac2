"""Kubernetes clusters: the API client, the objects that we send, and the reading of responses."""
