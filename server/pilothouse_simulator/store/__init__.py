"""The objects of the cluster: versions, history, ownership of fields, the state file."""
