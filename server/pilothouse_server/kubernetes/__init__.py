"""Kubernetes clusters: the API client, what we send to it, and how we read what it shows."""
