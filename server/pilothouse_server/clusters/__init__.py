"""Clusters: where the platform's containers are brought up."""
