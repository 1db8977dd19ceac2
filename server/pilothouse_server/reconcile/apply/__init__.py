"""What the database asks for, applied to the clusters: one reconciler for each type of resource."""
