"""All SQL of the reconciler: the work queue, leases, and the write-backs of what a cluster showed."""
