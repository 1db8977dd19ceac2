"""Applies the desired state to the clusters: one reconciler for each type of resource."""
