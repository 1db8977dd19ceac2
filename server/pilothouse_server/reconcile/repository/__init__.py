"""All SQL of the reconciler: the work queue, leases, and write-backs of a cluster's state."""
