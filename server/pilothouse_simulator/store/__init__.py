"""The objects of the cluster: versions, history, ownership of fields, the file that keeps them."""
