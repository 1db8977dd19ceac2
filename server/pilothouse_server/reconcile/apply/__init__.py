"""What the database asks for, brought to the clusters: one reconciler a type of resource."""
