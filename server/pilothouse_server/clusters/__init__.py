"""Clusters: the Kubernetes clusters that the platform's containers run on."""
